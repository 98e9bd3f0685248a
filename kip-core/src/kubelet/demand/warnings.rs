//! What a user should hear although the pod runs: annotations that do nothing here.

use k8s_openapi::api::core::v1::Pod;

use super::annotations::{KNOWN, PREFIX};

/// A sentence for each annotation of Kip's that has no effect: names nobody knows, and names of the old Kip that mean nothing here.
pub fn warnings(pod: &Pod) -> Vec<String> {
    let annotations = pod.metadata.annotations.iter().flatten();
    annotations
        .filter(|(_, value)| !value.trim().is_empty())
        .filter_map(|(key, _)| {
            let name = key.strip_prefix(PREFIX)?;
            let why = match name {
                "healthcheck-healthy-timeout" => {
                    "the connection to each cell is watched all the time, and a cell is given up when the cloud no longer has its \
                     instance"
                        .to_owned()
                }
                "image-overlay-rootfs" => "containerd always stacks image layers with overlayfs".to_owned(),
                "task-role" | "task-execution-role" => {
                    format!("there are no Fargate tasks; give the cell a role with {PREFIX}instance-profile")
                }
                known if KNOWN.contains(&known) => return None,
                _ => format!("there is none of this name; known are {}", KNOWN.join(", ")),
            };
            Some(format!("Annotation {key} has no effect: {why}."))
        })
        .collect()
}

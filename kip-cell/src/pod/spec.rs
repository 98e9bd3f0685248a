//! Builds the runtime's view of the pod: the CRI configuration of its sandbox and of each container.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kip_cell_api::v1::{Container, Pod};

use super::model::Image;
use super::{resources, security};
use crate::cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxPodSandboxConfig, Mount, MountPropagation, PodSandboxConfig, PodSandboxMetadata,
};

/// Label: UID of the pod. The labels are the kubelet's, so that tools which know those find our containers.
pub(crate) const LABEL_UID: &str = "io.kubernetes.pod.uid";
/// Label: name of the container.
pub(crate) const LABEL_CONTAINER: &str = "io.kubernetes.container.name";
const LABEL_POD: &str = "io.kubernetes.pod.name";
const LABEL_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Annotation: image the pod asked for when the container was created.
pub(crate) const NOTE_IMAGE: &str = "kip.dev/image";
/// Annotation: seconds waited after this run ends before the next.
pub(crate) const NOTE_BACKOFF: &str = "kip.dev/backoff-seconds";
/// Annotation: the sandbox the run is in, which the container's status does not say.
pub(crate) const NOTE_SANDBOX: &str = "kip.dev/sandbox";
/// Annotation: generation of the pod the container was created for.
const NOTE_GENERATION: &str = "kip.dev/generation";

/// Facts of the cell that go into the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// Parent cgroup, empty for the runtime's default.
    pub(crate) cgroup_parent: String,
    /// Memory of the machine in bytes.
    pub(crate) memory_bytes: u64,
}

/// Configuration of the n-th sandbox of a pod, its logs under `log_directory`.
pub(crate) fn sandbox(pod: &Pod, cell: &Cell, attempt: u32, log_directory: &str) -> PodSandboxConfig {
    let dns = pod.dns.clone().unwrap_or_default();
    let sysctls = pod
        .security
        .iter()
        .flat_map(|security| security.sysctls.clone())
        .collect();
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt,
        }),
        // A pod in the host's network has the host's name; the runtime refuses to set another.
        hostname: if pod.host_network {
            String::new()
        } else {
            hostname(pod)
        },
        log_directory: log_directory.into(),
        dns_config: Some(DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        port_mappings: Vec::new(),
        labels: pod_labels(pod),
        annotations: pod.annotations.clone(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cell.cgroup_parent.clone(),
            security_context: Some(security::sandbox(pod)),
            sysctls,
            ..Default::default()
        }),
    }
}

/// The pod's host name: its own, else the pod's name, at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let name = if pod.hostname.is_empty() {
        &pod.name
    } else {
        &pod.hostname
    };
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// What a container's configuration needs that only the running cell knows.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) attempt: u32,
    pub(crate) backoff: Duration,
    pub(crate) sandbox_id: &'a str,
    pub(crate) image: &'a Image,
    pub(crate) pod_ips: &'a [String],
    pub(crate) mounts: Vec<Mount>,
}

/// Configuration of one run of a container, or why it must not be started.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    cell: &Cell,
    start: Start<'_>,
) -> Result<ContainerConfig, String> {
    let security_context = security::container(pod, container, start.image)?;
    let mut labels = pod_labels(pod);
    labels.insert(LABEL_CONTAINER.into(), container.name.clone());
    let annotations = HashMap::from([
        (NOTE_IMAGE.to_owned(), container.image.clone()),
        (NOTE_BACKOFF.to_owned(), start.backoff.as_secs().to_string()),
        (NOTE_SANDBOX.to_owned(), start.sandbox_id.to_owned()),
        (NOTE_GENERATION.to_owned(), pod.generation.to_string()),
    ]);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: start.attempt,
        }),
        image: Some(ImageSpec {
            image: start.image.id.clone(),
            ..Default::default()
        }),
        command: container.command.clone(),
        args: container.args.clone(),
        working_dir: container.working_dir.clone(),
        envs: environment(container, pod, start.pod_ips),
        mounts: start.mounts,
        devices: Vec::new(),
        labels,
        annotations,
        log_path: log_path(&container.name, start.attempt),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::linux_resources(pod, container, cell.memory_bytes)),
            security_context: Some(security_context),
        }),
    })
}

/// A run's log file relative to the pod's log folder.
pub(crate) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The mount propagation CRI has for the contract's word.
pub(crate) fn propagation(word: &str) -> MountPropagation {
    match word {
        "HostToContainer" => MountPropagation::PropagationHostToContainer,
        "Bidirectional" => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

/// The environment in the spec's order; of two variables with one name the later counts.
fn environment(container: &Container, pod: &Pod, pod_ips: &[String]) -> Vec<KeyValue> {
    let mut seen = BTreeMap::new();
    let mut out: Vec<KeyValue> = Vec::with_capacity(container.env.len() + 1);
    if !container.env.iter().any(|variable| variable.name == "HOSTNAME") && !pod.host_network {
        out.push(KeyValue {
            key: "HOSTNAME".into(),
            value: hostname(pod),
        });
    }
    for variable in &container.env {
        let value = match variable.field.as_str() {
            "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
            "status.podIPs" => pod_ips.join(","),
            _ => variable.value.clone(),
        };
        match seen.get(&variable.name) {
            Some(&index) => {
                let earlier: &mut KeyValue = &mut out[index];
                earlier.value = value;
            }
            None => {
                seen.insert(variable.name.clone(), out.len());
                out.push(KeyValue {
                    key: variable.name.clone(),
                    value,
                });
            }
        }
    }
    out
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels = pod.labels.clone();
    labels.insert(LABEL_UID.into(), pod.uid.clone());
    labels.insert(LABEL_POD.into(), pod.name.clone());
    labels.insert(LABEL_NAMESPACE.into(), pod.namespace.clone());
    labels
}

#[cfg(test)]
mod tests {
    use kip_cell_api::v1::EnvVar;

    use super::*;
    use crate::pod::fixtures;

    /// Programs that announce themselves by POD_IP must see the address the pod really has.
    #[test]
    fn pod_ip_is_filled_in_and_later_names_win() {
        let mut pod = fixtures::pod("Always", &["c"]);
        let variable = |name: &str, value: &str, field: &str| EnvVar {
            name: name.into(),
            value: value.into(),
            field: field.into(),
        };
        pod.containers[0].env = vec![
            variable("A", "1", ""),
            variable("IP", "ignored", "status.podIP"),
            variable("IPS", "", "status.podIPs"),
            variable("A", "2", ""),
        ];
        let ips = ["10.0.0.2".to_owned(), "fd00::2".to_owned()];
        let got = environment(&pod.containers[0], &pod, &ips);
        let got: Vec<_> = got.iter().map(|kv| format!("{}={}", kv.key, kv.value)).collect();
        assert_eq!(
            got,
            ["HOSTNAME=pod", "A=2", "IP=10.0.0.2", "IPS=10.0.0.2,fd00::2"]
        );
    }

    #[test]
    fn hostname_fits() {
        let mut pod = fixtures::pod("Always", &["c"]);
        pod.name = format!("{}-tail", "a".repeat(62));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }
}

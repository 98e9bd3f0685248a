//! The `kubelet` section: what the virtual node says of itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{self, Section};

/// What the virtual node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kubelet {
    /// Capacity and allocatable. Default `cpu: 20`, `memory: 100Gi`, `pods: 20`.
    pub(crate) capacity: BTreeMap<String, String>,
    /// Further labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

impl Default for Kubelet {
    fn default() -> Self {
        let capacity = [("cpu", "20"), ("memory", "100Gi"), ("pods", "20")];
        Self {
            capacity: capacity.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            labels: BTreeMap::new(),
        }
    }
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Kubelet {
    let mut kubelet = Kubelet::default();
    kubelet.capacity.extend(section.map("capacity"));
    // The old way to write them wins, as it did.
    for key in ["cpu", "memory", "pods"] {
        if let Some(amount) = section.text(key) {
            kubelet.capacity.insert(key.to_owned(), amount);
        }
    }
    for (name, amount) in &kubelet.capacity {
        if !is_quantity(amount) {
            section.problem(
                &format!("capacity.{name}"),
                format!("{amount:?} is no quantity; write one such as 100, 500m or 100Gi"),
            );
        }
    }
    kubelet.labels = section.map("labels");
    section.finish();
    kubelet
}

fn is_quantity(text: &str) -> bool {
    document::bytes(text.strip_suffix('m').unwrap_or(text)).is_some()
}

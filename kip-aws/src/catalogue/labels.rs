//! Labels by which pods select instance types, named and valued as Karpenter labels its nodes.

use kip_core::model::Labels;

use super::InstanceKind;

/// The labels of an instance type. Sizes are in the units that users of Karpenter know: memory in MiB, local disks in GB.
///
/// Source: "Well-Known Labels" in Karpenter's documentation of scheduling. Left out is what DescribeInstanceTypes is not read for:
/// bandwidths, and encryption in transit.
pub fn labels(kind: &InstanceKind) -> Labels {
    let name = kind.name.as_str();
    let (family, size) = name.split_once('.').unwrap_or((name, ""));
    let mut labels = vec![
        ("category", kind.category().to_owned()),
        ("family", family.to_owned()),
        ("generation", kind.generation().to_string()),
        ("size", size.to_owned()),
        ("cpu", kind.vcpus.to_string()),
        ("memory", (kind.memory.0 >> 20).to_string()),
        ("capability-flex", family.ends_with("-flex").to_string()),
    ];
    let mut known = |name, value: &Option<String>| labels.extend(value.clone().map(|value| (name, value)));
    known("hypervisor", &kind.hypervisor);
    known("cpu-manufacturer", &kind.cpu_maker);
    if kind.local_nvme {
        labels.push(("local-nvme", (kind.local_storage.0 / 1_000_000_000).to_string()));
    }
    if let Some(gpu) = &kind.gpu {
        labels.extend([
            ("gpu-name", hyphened(&gpu.model)),
            ("gpu-manufacturer", hyphened(&gpu.maker)),
            ("gpu-count", gpu.whole.to_string()),
            ("gpu-memory", (gpu.memory.0 >> 20).to_string()),
        ]);
    }
    if let Some(neuron) = &kind.neuron {
        labels.extend([
            ("accelerator-name", hyphened(&neuron.model)),
            ("accelerator-manufacturer", "aws".to_owned()),
            ("accelerator-count", neuron.devices.to_string()),
        ]);
    }
    labels
        .into_iter()
        .map(|(name, value)| (format!("karpenter.k8s.aws/instance-{name}"), value))
        .collect()
}

fn hyphened(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "-")
}

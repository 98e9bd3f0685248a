//! One instance type.

use std::collections::BTreeSet;

use kip_core::ids::InstanceType;
use kip_core::model::{Architecture, Bytes};

/// How EC2 sells an instance type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UsageClass {
    /// By the second.
    OnDemand,
    /// What is left over, cheaper, taken back with two minutes' notice.
    Spot,
}

/// The GPUs of an instance type; all are of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Who makes them, such as `NVIDIA`.
    pub maker: String,
    /// Their model, such as `T4`.
    pub model: String,
    /// How many whole ones there are; 0 when the instance has a part of one.
    pub whole: u64,
    /// How many devices the system shows; a part of a GPU is one device.
    pub devices: u64,
    /// Memory of each device.
    pub memory: Bytes,
}

impl Gpu {
    /// The GPUs of one model.
    pub fn new(
        maker: impl Into<String>,
        model: impl Into<String>,
        whole: u64,
        devices: u64,
        memory: Bytes,
    ) -> Self {
        Self {
            maker: maker.into(),
            model: model.into(),
            whole,
            devices,
            memory,
        }
    }

    /// The extended resource by which pods ask for it, as the device plugins of their makers call it.
    pub fn resource(&self) -> &'static str {
        match self.maker.to_ascii_lowercase().as_str() {
            "amd" => "amd.com/gpu",
            "habana" => "habana.ai/gaudi",
            _ => "nvidia.com/gpu",
        }
    }

    /// Whether the instance has only a part of one.
    pub fn is_part(&self) -> bool {
        self.whole < self.devices
    }
}

/// AWS's own accelerators: Inferentia and Trainium.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neuron {
    /// Their model, such as `Inferentia2`.
    pub model: String,
    /// How many devices there are.
    pub devices: u64,
    /// Cores of each device.
    pub cores: u64,
}

impl Neuron {
    /// Accelerators of one model.
    pub fn new(model: impl Into<String>, devices: u64, cores: u64) -> Self {
        Self {
            model: model.into(),
            devices,
            cores,
        }
    }
}

/// One instance type, as DescribeInstanceTypes tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceKind {
    /// Its name, such as `m5.large`.
    pub name: InstanceType,
    /// Its architecture; types that can run 32-bit x86 too count as amd64.
    pub architecture: Architecture,
    /// vCPUs by default.
    pub vcpus: u64,
    /// Memory as advertised: what the system sees is less.
    pub memory: Bytes,
    /// Whether its CPU is shared and earns credits.
    pub burstable: bool,
    /// Whether there is no hypervisor. Boots for many minutes.
    pub bare_metal: bool,
    /// Whether AWS counts it as current.
    pub current_generation: bool,
    /// `nitro` or `xen`; None on bare metal.
    pub hypervisor: Option<String>,
    /// How it is sold.
    pub usage: BTreeSet<UsageClass>,
    /// Its GPUs.
    pub gpu: Option<Gpu>,
    /// Its Inferentia or Trainium devices.
    pub neuron: Option<Neuron>,
    /// Disks of the instance itself, all together; EC2 counts them in units of 10^9 bytes. Zero when it has none.
    pub local_storage: Bytes,
    /// Whether these disks are NVMe devices; those of types from before Nitro mostly are not.
    pub local_nvme: bool,
    /// Who makes its processors: `intel`, `amd` or `aws`; None while it is not known.
    pub cpu_maker: Option<String>,
}

impl InstanceKind {
    /// A type of this size: current, sold both ways, on Nitro, without anything special.
    pub fn new(name: InstanceType, architecture: Architecture, vcpus: u64, memory: Bytes) -> Self {
        Self {
            name,
            architecture,
            vcpus,
            memory,
            burstable: false,
            bare_metal: false,
            current_generation: true,
            hypervisor: Some("nitro".to_owned()),
            usage: BTreeSet::from([UsageClass::OnDemand, UsageClass::Spot]),
            gpu: None,
            neuron: None,
            local_storage: Bytes(0),
            local_nvme: false,
            cpu_maker: None,
        }
    }

    /// The part of the name before its dot.
    pub fn family(&self) -> &str {
        self.name.as_str().split('.').next().unwrap_or_default()
    }

    /// The letters that its family's name begins with: `c` of `c7i-flex`, `hpc` of `hpc6a`, `u` of `u-6tb1`.
    pub fn category(&self) -> &str {
        self.family()
            .split(|c: char| !c.is_ascii_lowercase())
            .next()
            .unwrap_or_default()
    }

    /// Whether it can be a Dedicated Instance. T1 and T2 cannot; what else EC2 refuses it says at launch, and the pod is placed elsewhere.
    pub fn can_be_dedicated(&self) -> bool {
        !matches!(self.family(), "t1" | "t2")
    }

    /// Whether it is phased out: a previous generation from before Nitro, whose processors, network cards and supply are of ten years
    /// ago. What AWS merely calls previous, such as M5, is not meant.
    pub fn is_legacy(&self) -> bool {
        !self.current_generation && self.hypervisor.as_deref() == Some("xen")
    }

    /// The number in the family's name: 5 of `m5a`, 7 of `c7i-flex`, 1 of `u-6tb1`; 0 without one. Larger is newer.
    pub fn generation(&self) -> u32 {
        let family = self.family();
        // In `u-6tb1` the first number is the memory.
        let after = family.strip_prefix("u-").and_then(|rest| rest.split_once("tb"));
        let digits: String = after
            .map_or(family, |(_, rest)| rest)
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_of_two_generations_is_told_by_its_name() {
        for (name, generation) in [
            ("m5a.large", 5),
            ("c7i-flex.large", 7),
            ("x2iedn.metal", 2),
            ("u-6tb1.metal", 1),
            ("u7i-12tb.224xlarge", 7),
            ("mystery", 0),
        ] {
            let kind = InstanceKind::new(InstanceType::new(name), Architecture::Amd64, 2, Bytes::gib(4));
            assert_eq!(kind.generation(), generation, "{name}");
        }
    }
}

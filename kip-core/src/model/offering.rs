//! What a cloud offers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Bytes, CpuMillis, Labels, Price};
use crate::ids::OfferingId;

/// A processor architecture, by its Kubernetes name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How capacity is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CapacityType {
    /// Paid by the second, not taken back.
    OnDemand,
    /// Cheaper, and may be taken back with short notice.
    Spot,
    /// Paid in advance.
    Reserved,
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing a cloud sells: an instance type in a zone under a capacity type, with its size and price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Offering {
    /// What it is.
    pub id: OfferingId,
    /// CPUs of the instance.
    pub cpu: CpuMillis,
    /// Memory of the instance as the cloud states it, before any reserve.
    pub memory: Bytes,
    /// Architecture of the instance.
    pub architecture: Architecture,
    /// Extended resources, such as `nvidia.com/gpu`.
    pub extended: BTreeMap<String, u64>,
    /// What an hour costs.
    pub price: Price,
    /// Larger is newer; breaks ties.
    pub generation: u32,
    /// CPU that a burstable type may use all the time without extra charge; None for other types.
    pub baseline_cpu: Option<CpuMillis>,
    /// What one CPU-hour above the baseline costs; None is what the sizing policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surplus_cpu_hour: Option<Price>,
    /// Model of its GPUs as the cloud names it, such as `T4`; None without GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// Only for pods that name the type, or a pattern of types: what boots slowly, is phased out or holds a part of a GPU must not come as a
    /// surprise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_name_only: bool,
    /// Whether its instances can be had on hardware that no other customer shares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dedicated: bool,
    /// Labels its instances would have as nodes, beside zone, instance type, architecture, system and capacity type. Pods select by them.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Architecture {
    /// Its Kubernetes name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl CapacityType {
    /// As labels and people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
            Self::Reserved => "reserved",
        }
    }
}

impl Offering {
    /// An offering of the given size and price, without extended resources, GPUs or labels, generation 0, not burstable, not dedicated, for
    /// every pod.
    pub fn new(
        id: OfferingId,
        architecture: Architecture,
        cpu: CpuMillis,
        memory: Bytes,
        price: Price,
    ) -> Self {
        Self {
            id,
            cpu,
            memory,
            architecture,
            extended: BTreeMap::new(),
            price,
            generation: 0,
            baseline_cpu: None,
            surplus_cpu_hour: None,
            gpu_model: None,
            by_name_only: false,
            dedicated: false,
            labels: Labels::default(),
        }
    }

    /// The value of a label its instances would have as nodes; None when they would not have it.
    pub fn label(&self, key: &str) -> Option<&str> {
        match key {
            "node.kubernetes.io/instance-type" | "beta.kubernetes.io/instance-type" => {
                Some(self.id.instance_type.as_str())
            }
            "topology.kubernetes.io/zone" | "failure-domain.beta.kubernetes.io/zone" => {
                Some(self.id.zone.as_str())
            }
            "kubernetes.io/arch" | "beta.kubernetes.io/arch" => Some(self.architecture.as_str()),
            "kubernetes.io/os" | "beta.kubernetes.io/os" => Some("linux"),
            "karpenter.sh/capacity-type" | "kip.elotl.co/capacity-type" => {
                Some(self.id.capacity_type.as_str())
            }
            _ => self.labels.get(key),
        }
    }
}

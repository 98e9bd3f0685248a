//! What a pod needs from an instance.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Architecture, Bytes, CapacityType, CpuMillis, LaunchOptions, Requirement};
use crate::ids::{PodRef, Zone};

/// What a pod needs from an instance: computed from the pod once, by Kubernetes' own rules, before anything is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PodDemand {
    /// Which pod it is.
    pub pod: PodRef,
    /// CPU the containers need together.
    pub cpu: CpuMillis,
    /// Memory the containers need together, without any reserve for the instance itself.
    pub memory: Bytes,
    /// Extended resources such as `nvidia.com/gpu`, by name.
    pub extended: BTreeMap<String, u64>,
    /// Architectures the pod can run on; empty means any.
    pub architectures: BTreeSet<Architecture>,
    /// Zones the pod may run in; empty means any.
    pub zones: BTreeSet<Zone>,
    /// Capacity types the pod accepts; empty means those of the sizing policy, which are on-demand alone by default.
    pub capacity_types: BTreeSet<CapacityType>,
    /// Instance types the pod accepts: exact names, or globs with `*`. Empty means any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub instance_types: BTreeSet<String>,
    /// GPU models the pod accepts, such as `T4` or `nvidia-tesla-t4`; empty means any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gpu_models: BTreeSet<String>,
    /// What the pod requires of the labels the instance would have as a node: all of one of these lists. Empty requires nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requirements: BTreeSet<BTreeSet<Requirement>>,
    /// An instance with at most 15 % less than asked will do where it costs at least 20 % less; see
    /// [`CliffAdvice`](crate::sizing::CliffAdvice). What the containers may use at most is not changed by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elastic: bool,
    /// Higher goes first when launches must wait.
    pub priority: i32,
    /// What the pod asks of its instance beyond size and place.
    #[serde(default, skip_serializing_if = "LaunchOptions::is_empty")]
    pub options: LaunchOptions,
}

impl PodDemand {
    /// A demand for so much CPU and memory, with nothing else asked.
    pub fn new(pod: PodRef, cpu: CpuMillis, memory: Bytes) -> Self {
        Self {
            pod,
            cpu,
            memory,
            extended: BTreeMap::new(),
            architectures: BTreeSet::new(),
            zones: BTreeSet::new(),
            capacity_types: BTreeSet::new(),
            instance_types: BTreeSet::new(),
            gpu_models: BTreeSet::new(),
            requirements: BTreeSet::new(),
            elastic: false,
            priority: 0,
            options: LaunchOptions::default(),
        }
    }
}

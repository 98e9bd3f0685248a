//! Reads from a pod what it needs of an instance, by Kubernetes' own rules; refuses what cannot be had, naming the field and the fix.

mod agreed;
mod annotations;
mod requirements;
mod resources;
mod route;
mod selection;
mod selector;
mod supported;
#[cfg(test)]
mod tests;
mod warnings;

use k8s_openapi::api::core::v1::Pod;

use super::config::PodsConfig;
use crate::ids::{PodRef, PodUid};
use crate::model::{Bytes, CpuMillis, PodDemand};

pub(crate) use resources::is_sidecar;
pub use warnings::warnings;

/// Instance type the virtual node carries as its label; selecting it selects the node, not a size.
pub(crate) const VIRTUAL_INSTANCE_TYPE: &str = "kip";

/// Why a pod can never run here as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// CamelCase reason.
    pub reason: &'static str,
    /// One sentence: which field, and what to do.
    pub message: String,
}

impl Refusal {
    /// The pod uses something Kip does not have.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self {
            reason: "UnsupportedPodSpec",
            message: message.into(),
        }
    }

    /// A value in the pod cannot be read.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            reason: "InvalidPodSpec",
            message: message.into(),
        }
    }
}

/// What the pod needs.
///
/// # Errors
/// A [`Refusal`] when no retry can help: a field is invalid or not supported.
pub fn demand(pod: &Pod, config: &PodsConfig) -> Result<PodDemand, Refusal> {
    supported::check(pod)?;
    let totals = resources::totals(pod, config.basis)?;
    let wishes = annotations::read(pod)?;
    let selected = selection::read(pod)?;

    let mut demand = nothing(pod);
    demand.cpu = CpuMillis(totals.cpu_millis);
    demand.memory = Bytes(totals.memory);
    demand.extended = totals.extended;
    demand.elastic = wishes.elastic;
    demand.options.ephemeral_storage = Bytes(totals.ephemeral_storage);
    demand.options.volume_size = Bytes(wishes.volume_size.unwrap_or(0));
    demand.options.private_address_only = wishes.private_address_only;
    demand.options.security_groups = wishes.security_groups;
    demand.options.identity = wishes.identity;
    demand.options.routes = wishes.routes;
    demand.options.dedicated = wishes.dedicated;
    demand.zones = selected.zones;
    demand.capacity_types = agreed::capacity_types(wishes.capacity_types, selected.capacity_types)?;
    demand.instance_types = agreed::instance_types(wishes.instance_type.as_deref(), selected.instance_types)?;
    // A family was chosen with its architecture.
    let family_is_named = !demand.instance_types.is_empty()
        && demand.instance_types.iter().all(|wanted| names_a_family(wanted));
    demand.architectures = if selected.architectures.is_empty() && !family_is_named {
        config.architectures.clone()
    } else {
        selected.architectures
    };
    demand.gpu_models = selected.gpu_models;
    demand.requirements = requirements::read(pod, wishes.requirements)?;
    demand.priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    Ok(demand)
}

/// Whether a name or pattern is of one family, as `c7g.large` and `c7g.*` are: then its architecture was chosen with it.
fn names_a_family(pattern: &str) -> bool {
    pattern
        .split_once('.')
        .is_some_and(|(family, _)| !family.contains('*'))
}

/// A demand that asks for nothing, for a pod that is refused but has a name.
pub(crate) fn nothing(pod: &Pod) -> PodDemand {
    let mut demand = PodDemand::new(pod_ref(pod), CpuMillis(0), Bytes(0));
    demand.options.labels = pod.metadata.labels.clone().unwrap_or_default();
    demand
}

/// The pod's UID and names.
pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    let metadata = &pod.metadata;
    PodRef {
        uid: PodUid::new(metadata.uid.clone().unwrap_or_default()),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

//! Reads where a pod may run from its node selector and required node affinity.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Pod};

use super::{Refusal, VIRTUAL_INSTANCE_TYPE};
use crate::ids::Zone;
use crate::model::{Architecture, CapacityType};

const ARCH: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
const ZONE: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
const TYPE: [&str; 2] = [
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];
const CAPACITY: [&str; 2] = ["kip.elotl.co/capacity-type", "karpenter.sh/capacity-type"];

/// Labels whose values name a GPU model: of GKE, of Karpenter on EC2, of NVIDIA's feature discovery.
const GPU: [&str; 3] = [
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "nvidia.com/gpu.product",
];
/// A label of the old Kip: the model is its value, or what follows when the value is empty.
const GPU_PREFIX: &str = "node.elotl.co/gpu-";

/// Where a pod may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Architectures; empty is any.
    pub(super) architectures: BTreeSet<Architecture>,
    /// Zones; empty is any.
    pub(super) zones: BTreeSet<Zone>,
    /// Capacity types; empty is on-demand.
    pub(super) capacity_types: BTreeSet<CapacityType>,
    /// The instance type.
    pub(super) instance_type: Option<String>,
    /// GPU models; empty is any.
    pub(super) gpu_models: BTreeSet<String>,
}

/// Reads it.
pub(super) fn read(pod: &Pod) -> Result<Selection, Refusal> {
    let mut selection = Selection::default();
    if let Some(values) = allowed(pod, &OS, Some(&["linux", "windows"]))?
        && !values.contains("linux")
    {
        return Err(Refusal::unsupported(format!(
            "The pod selects the operating system {}; cells run linux.",
            joined(&values)
        )));
    }
    if let Some(values) = allowed(pod, &ARCH, Some(&["amd64", "arm64"]))? {
        for value in &values {
            match value.as_str() {
                "amd64" => selection.architectures.insert(Architecture::Amd64),
                "arm64" => selection.architectures.insert(Architecture::Arm64),
                _ => false,
            };
        }
        if selection.architectures.is_empty() {
            return Err(none_of(ARCH[0], &values, "amd64 or arm64"));
        }
    }
    if let Some(values) = allowed(pod, &ZONE, None)? {
        if values.is_empty() {
            return Err(none_of(ZONE[0], &values, "a zone that all selectors allow"));
        }
        selection.zones = values.into_iter().map(Zone::new).collect();
    }
    if let Some(values) = allowed(pod, &CAPACITY, Some(&["on-demand", "spot", "reserved"]))? {
        for value in &values {
            match value.as_str() {
                "on-demand" => selection.capacity_types.insert(CapacityType::OnDemand),
                "spot" => selection.capacity_types.insert(CapacityType::Spot),
                "reserved" => selection.capacity_types.insert(CapacityType::Reserved),
                _ => false,
            };
        }
        if selection.capacity_types.is_empty() {
            return Err(none_of(CAPACITY[0], &values, "on-demand, spot or reserved"));
        }
    }
    if let Some(mut values) = allowed(pod, &TYPE, None)? {
        let node_itself = values.remove(VIRTUAL_INSTANCE_TYPE);
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(only), None) if !node_itself => selection.instance_type = Some(only),
            (None, _) if node_itself => {}
            (Some(_), _) if node_itself => {}
            _ => {
                return Err(Refusal::unsupported(format!(
                    "The pod allows several instance types through {}; name one, or use the annotation \
                     pod.elotl.co/instance-type with a pattern such as c7g.*.",
                    TYPE[0]
                )));
            }
        }
    }
    selection.gpu_models = gpu_models(pod)?;
    Ok(selection)
}

fn gpu_models(pod: &Pod) -> Result<BTreeSet<String>, Refusal> {
    let mut models = allowed(pod, &GPU, None)?;
    let selector = pod
        .spec
        .iter()
        .filter_map(|spec| spec.node_selector.as_ref())
        .flatten();
    for (key, value) in selector {
        if let Some(suffix) = key.strip_prefix(GPU_PREFIX) {
            let model = if value.is_empty() { suffix } else { value };
            narrow(&mut models, [model.to_owned()].into());
        }
    }
    match models {
        Some(models) if models.is_empty() => Err(Refusal::unsupported(
            "The pod's selectors leave no GPU model; let them name one that all allow, such as \
             karpenter.k8s.aws/instance-gpu-name: t4.",
        )),
        models => Ok(models.unwrap_or_default()),
    }
}

fn none_of(key: &str, values: &BTreeSet<String>, fix: &str) -> Refusal {
    let found = if values.is_empty() {
        "nothing".to_owned()
    } else {
        joined(values)
    };
    Refusal::unsupported(format!(
        "The pod's selectors for {key} leave {found}; allow {fix}."
    ))
}

fn joined(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Values allowed for a label, or None when any is. `universe` are all values there can be, where that is known: without it a
/// negative requirement cannot be turned into a list.
fn allowed(pod: &Pod, keys: &[&str], universe: Option<&[&str]>) -> Result<Option<BTreeSet<String>>, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let mut result: Option<BTreeSet<String>> = None;
    for (key, value) in spec.node_selector.iter().flatten() {
        if keys.contains(&key.as_str()) {
            narrow(&mut result, [value.clone()].into());
        }
    }
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    if let Some(selector) = terms {
        let mut union = BTreeSet::new();
        let mut any = selector.node_selector_terms.is_empty();
        for term in &selector.node_selector_terms {
            let mut of_term: Option<BTreeSet<String>> = None;
            for requirement in term.match_expressions.iter().flatten() {
                if keys.contains(&requirement.key.as_str())
                    && let Some(values) = values_of(requirement, universe)?
                {
                    narrow(&mut of_term, values);
                }
            }
            match of_term {
                Some(values) => union.extend(values),
                None => any = true,
            }
        }
        if !any {
            narrow(&mut result, union);
        }
    }
    Ok(result)
}

fn narrow(set: &mut Option<BTreeSet<String>>, by: BTreeSet<String>) {
    *set = Some(match set.take() {
        Some(known) => known.intersection(&by).cloned().collect(),
        None => by,
    });
}

fn values_of(
    requirement: &NodeSelectorRequirement,
    universe: Option<&[&str]>,
) -> Result<Option<BTreeSet<String>>, Refusal> {
    let values: BTreeSet<String> = requirement.values.iter().flatten().cloned().collect();
    match (requirement.operator.as_str(), universe) {
        ("In", _) => Ok(Some(values)),
        ("Exists", _) => Ok(None),
        ("NotIn", Some(universe)) => Ok(Some(
            universe
                .iter()
                .map(|&value| value.to_owned())
                .filter(|value| !values.contains(value))
                .collect(),
        )),
        (operator, _) => Err(Refusal::unsupported(format!(
            "The pod's node affinity uses {operator} with {}; list the allowed values with In.",
            requirement.key
        ))),
    }
}

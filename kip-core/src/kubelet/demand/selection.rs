//! Reads where a pod may run from its node selector and required node affinity.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Pod};

use super::{Refusal, VIRTUAL_INSTANCE_TYPE};
use crate::ids::Zone;
use crate::model::{Architecture, CapacityType};

pub(super) const ARCH: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
pub(super) const ZONE: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
pub(super) const TYPE: [&str; 2] = [
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];
pub(super) const CAPACITY: [&str; 2] = ["kip.elotl.co/capacity-type", "karpenter.sh/capacity-type"];

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
    /// Instance types; empty is any.
    pub(super) instance_types: BTreeSet<String>,
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
        // Who selects the node itself by its label selects no size.
        let is_node_itself = values.remove(VIRTUAL_INSTANCE_TYPE);
        if values.is_empty() && !is_node_itself {
            return Err(none_of(
                TYPE[0],
                &values,
                "an instance type that all selectors allow",
            ));
        }
        if !is_node_itself {
            selection.instance_types = values;
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

/// Values for people.
pub(super) fn joined<T: ToString>(values: &BTreeSet<T>) -> String {
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
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
    let terms = terms(pod);
    if !terms.is_empty() {
        let mut union = BTreeSet::new();
        let mut any = false;
        for term in terms {
            let mut of_term: Option<BTreeSet<String>> = None;
            for requirement in term {
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

/// The expressions of each term of the required node affinity: a pod may run where all of one term hold.
pub(super) fn terms(pod: &Pod) -> Vec<Vec<&NodeSelectorRequirement>> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let terms = required.iter().flat_map(|required| &required.node_selector_terms);
    terms
        .map(|term| term.match_expressions.iter().flatten().collect())
        .collect()
}

fn narrow(set: &mut Option<BTreeSet<String>>, by: BTreeSet<String>) {
    *set = Some(match set.take() {
        Some(known) => known.intersection(&by).cloned().collect(),
        None => by,
    });
}

/// GPU labels of other clouds: no offering has them, so only lists of models can be read.
fn is_gpu_of_others(key: &str) -> bool {
    GPU.contains(&key) && key != "karpenter.k8s.aws/instance-gpu-name"
}

fn values_of(
    requirement: &NodeSelectorRequirement,
    universe: Option<&[&str]>,
) -> Result<Option<BTreeSet<String>>, Refusal> {
    let values: BTreeSet<String> = requirement.values.iter().flatten().cloned().collect();
    match (requirement.operator.as_str(), universe) {
        ("In", _) => Ok(Some(values)),
        ("Exists", _) => Ok(None),
        // Held against each offering instead.
        ("NotIn" | "DoesNotExist" | "Gt" | "Lt", None) if !is_gpu_of_others(&requirement.key) => Ok(None),
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

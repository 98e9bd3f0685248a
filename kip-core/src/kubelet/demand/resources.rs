//! Adds up what the containers of a pod need: the largest of all that run together at one time.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Refusal;
use crate::kubelet::config::SizingBasis;
use crate::kubelet::quantity;

/// Amounts of one container, one step or one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceTotals {
    /// CPU in thousandths.
    pub(crate) cpu_millis: u64,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Local storage in bytes.
    pub(crate) ephemeral_storage: u64,
    /// Extended resources by name.
    pub(crate) extended: BTreeMap<String, u64>,
}

impl ResourceTotals {
    fn plus(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    fn max(&self, other: &Self) -> Self {
        self.combined(other, u64::max)
    }

    fn combined(&self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        let names: BTreeSet<&String> = self.extended.keys().chain(other.extended.keys()).collect();
        let amount = |of: &Self, name: &String| of.extended.get(name).copied().unwrap_or(0);
        Self {
            cpu_millis: with(self.cpu_millis, other.cpu_millis),
            memory: with(self.memory, other.memory),
            ephemeral_storage: with(self.ephemeral_storage, other.ephemeral_storage),
            extended: names
                .into_iter()
                .map(|name| (name.clone(), with(amount(self, name), amount(other, name))))
                .collect(),
        }
    }
}

/// What the pod needs at its hungriest moment: the containers with all sidecars, or an init container with the sidecars started
/// before it; what the pod sets as a whole in its place; and the runtime class's overhead on top.
pub(super) fn totals(pod: &Pod, basis: SizingBasis) -> Result<ResourceTotals, Refusal> {
    let Some(spec) = &pod.spec else {
        return Ok(ResourceTotals::default());
    };
    let mut sidecars = ResourceTotals::default();
    let mut largest_step = ResourceTotals::default();
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let own = of_container(container, &format!("spec.initContainers[{i}]"), basis)?;
        if is_sidecar(container) {
            sidecars = sidecars.plus(&own);
            largest_step = largest_step.max(&sidecars);
        } else {
            largest_step = largest_step.max(&sidecars.plus(&own));
        }
    }
    let mut together = sidecars;
    for (i, container) in spec.containers.iter().enumerate() {
        together = together.plus(&of_container(container, &format!("spec.containers[{i}]"), basis)?);
    }
    let mut total = together.max(&largest_step);

    if let Some(whole) = &spec.resources {
        let set = read(whole, "spec", basis)?;
        let names = |list: &Option<BTreeMap<String, Quantity>>, name: &str| {
            list.as_ref().is_some_and(|list| list.contains_key(name))
        };
        let is_set = |name| names(&whole.limits, name) || names(&whole.requests, name);
        if is_set("cpu") {
            total.cpu_millis = set.cpu_millis;
        }
        if is_set("memory") {
            total.memory = set.memory;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total = total.plus(&amounts(overhead, "spec.overhead")?);
    }
    Ok(total)
}

/// Whether an init container keeps running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn of_container(container: &Container, path: &str, basis: SizingBasis) -> Result<ResourceTotals, Refusal> {
    match &container.resources {
        Some(resources) => read(resources, path, basis),
        None => Ok(ResourceTotals::default()),
    }
}

/// The number that counts for each resource: with `Limits` the limit where there is one; with `Requests` the request, which is the
/// limit where only that is given.
fn read(resources: &ResourceRequirements, path: &str, basis: SizingBasis) -> Result<ResourceTotals, Refusal> {
    let (first, second) = match basis {
        SizingBasis::Limits => (&resources.limits, &resources.requests),
        SizingBasis::Requests => (&resources.requests, &resources.limits),
    };
    let mut chosen = second.clone().unwrap_or_default();
    chosen.extend(first.clone().unwrap_or_default());
    amounts(&chosen, &format!("{path}.resources"))
}

fn amounts(list: &BTreeMap<String, Quantity>, path: &str) -> Result<ResourceTotals, Refusal> {
    let mut totals = ResourceTotals::default();
    for (name, amount) in list {
        let parsed = |read: fn(&str) -> Result<u64, quantity::QuantityError>| {
            read(&amount.0).map_err(|error| Refusal::invalid(format!("{path}, {name}: {error}.")))
        };
        match name.as_str() {
            "cpu" => totals.cpu_millis = parsed(quantity::millis)?,
            "memory" => totals.memory = parsed(quantity::whole)?,
            "ephemeral-storage" => totals.ephemeral_storage = parsed(quantity::whole)?,
            name if name.starts_with("hugepages-") => {
                if parsed(quantity::whole)? > 0 {
                    return Err(Refusal::unsupported(format!(
                        "{path}, {name}: huge pages are not offered; remove the resource."
                    )));
                }
            }
            _ => {
                let count = parsed(quantity::whole)?;
                if count > 0 {
                    totals.extended.insert(name.clone(), count);
                }
            }
        }
    }
    Ok(totals)
}

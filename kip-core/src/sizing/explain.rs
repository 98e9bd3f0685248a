//! Says in one sentence why nothing fits, in the style of the Kubernetes scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::index::Index;
use super::{Avoid, NoFit, Rejection, SizingPolicy, requirement, rule};
use crate::model::{Bytes, CpuMillis, Offering, PodDemand};

/// How many names are told in a sentence.
const MOST_NAMES: usize = 12;

/// Counts the reasons against all offerings and makes a sentence of them.
pub(super) fn no_fit(
    policy: &SizingPolicy,
    index: &Index,
    demand: &PodDemand,
    avoid: &Avoid,
    now: Timestamp,
) -> NoFit {
    let offerings = index.offerings();
    if offerings.is_empty() {
        return NoFit::new(
            "the provider offers no instance types now; check its region, zones and permissions",
            false,
        );
    }
    if let Some(key) = requirement::unknown(demand, index.labels()) {
        return NoFit::new(unknown_label(key, index.labels()), false);
    }
    let mut tally = Tally::default();
    let mut only_avoided = false;
    let mut retry_at = None;
    for offering in offerings {
        let mut others = false;
        // Never breaks, so it always ends by itself.
        let _ = rule::reasons_against(policy, offering, demand, |reason| {
            others = true;
            tally.add(&reason);
            ControlFlow::Continue(())
        });
        if let Some(opens_at) = avoid.opens_at(&offering.id, now) {
            tally.add(&Rejection::Avoided);
            if !others {
                only_avoided = true;
                retry_at = Some(retry_at.map_or(opens_at, |earliest: Timestamp| earliest.min(opens_at)));
            }
        }
    }
    let wanted: Vec<&str> = rule::Wanted::of(policy, demand).patterns().collect();
    if !wanted.is_empty() && tally.instance_type == offerings.len() {
        let known = like(&wanted, offerings);
        let wanted = either(&wanted);
        return NoFit::new(
            format!("no instance type on offer is called {wanted}{known}"),
            false,
        );
    }
    let reasons = tally.sentence(policy, &either(&wanted), demand);
    let elsewhere = if only_avoided {
        String::new()
    } else {
        zones_that_fit(policy, offerings, demand)
    };
    NoFit::new(
        format!("0 of {} offerings fit: {reasons}{elsewhere}", offerings.len()),
        only_avoided,
    )
    .with_retry_at(retry_at)
}

#[derive(Default)]
struct Tally {
    instance_type: usize,
    requirements: BTreeMap<String, Unmet>,
    not_dedicated: usize,
    by_name_only: usize,
    burstable: usize,
    gpu_model: usize,
    gpu_models: BTreeSet<String>,
    architecture: usize,
    zone: usize,
    capacity_type: usize,
    cpu: Most<CpuMillis>,
    memory: Most<Bytes>,
    extended: BTreeMap<String, Most<u64>>,
    avoided: usize,
}

/// How many do not meet a requirement, and what they have.
#[derive(Default)]
struct Unmet {
    count: usize,
    has: BTreeSet<String>,
}

impl Unmet {
    /// What there is in its place, numbers in their order.
    fn others(&self) -> String {
        let mut has: Vec<&str> = self.has.iter().map(String::as_str).collect();
        has.sort_by_key(|value| (value.parse::<u64>().ok(), *value));
        match has.as_slice() {
            [] => String::new(),
            [first, .., last] if has.len() > MOST_NAMES => format!(" (there are {first} to {last})"),
            all => format!(" (there are {})", all.join(", ")),
        }
    }
}

/// How many have too little, the most any of them has, and the least that would do.
struct Most<T> {
    count: usize,
    largest: T,
    needs: Option<T>,
}

impl<T: Default> Default for Most<T> {
    fn default() -> Self {
        Self {
            count: 0,
            largest: T::default(),
            needs: None,
        }
    }
}

impl<T: Copy + Ord> Most<T> {
    fn add(&mut self, has: T, needs: T) {
        self.count += 1;
        self.largest = self.largest.max(has);
        self.needs = Some(self.needs.map_or(needs, |least| least.min(needs)));
    }
}

impl Tally {
    fn add(&mut self, reason: &Rejection) {
        match reason {
            Rejection::InstanceType => self.instance_type += 1,
            Rejection::Requirement { needs, has } => {
                let unmet = self.requirements.entry(needs.clone()).or_default();
                unmet.count += 1;
                unmet.has.extend(has.clone());
            }
            Rejection::NotDedicated => self.not_dedicated += 1,
            Rejection::ByNameOnly => self.by_name_only += 1,
            Rejection::Burstable => self.burstable += 1,
            Rejection::GpuModel { has } => {
                self.gpu_model += 1;
                self.gpu_models.extend(has.clone());
            }
            Rejection::Architecture => self.architecture += 1,
            Rejection::Zone => self.zone += 1,
            Rejection::CapacityType => self.capacity_type += 1,
            Rejection::Cpu { has, needs } => self.cpu.add(*has, *needs),
            Rejection::Memory { has, needs } => self.memory.add(*has, *needs),
            Rejection::Extended { name, has, needs } => {
                self.extended.entry(name.clone()).or_default().add(*has, *needs);
            }
            Rejection::Avoided => self.avoided += 1,
        }
    }

    fn sentence(&self, policy: &SizingPolicy, wanted: &str, demand: &PodDemand) -> String {
        let mut parts: Vec<(usize, String)> = Vec::new();
        let mut part = |count: usize, text: String| {
            if count > 0 {
                parts.push((count, format!("{count} {text}")));
            }
        };
        part(self.instance_type, format!("are not of instance type {wanted}"));
        part(
            self.by_name_only,
            "are only for pods that name their type".to_owned(),
        );
        part(self.burstable, "are burstable".to_owned());
        part(self.not_dedicated, "cannot be dedicated".to_owned());
        for (needs, unmet) in &self.requirements {
            part(unmet.count, format!("are not {needs}{}", unmet.others()));
        }
        let models = either(&demand.gpu_models);
        let has_models = if self.gpu_models.is_empty() {
            "none has a GPU".to_owned()
        } else {
            format!(
                "others are {}",
                self.gpu_models
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        part(
            self.gpu_model,
            format!("have no GPU of model {models} ({has_models})"),
        );
        part(
            self.architecture,
            format!("are not {}", either(&demand.architectures)),
        );
        part(self.zone, format!("are not in zone {}", either(&demand.zones)));
        let capacity = either(policy.capacity_types_of(demand));
        part(self.capacity_type, format!("are not {capacity}"));
        if let Some(needs) = self.cpu.needs {
            let text = format!("have too few CPUs (largest {}, needs {needs})", self.cpu.largest);
            part(self.cpu.count, text);
        }
        if let Some(needs) = self.memory.needs {
            let largest = rule::human(self.memory.largest, false);
            let needs = rule::human(needs, true);
            let text = format!("have too little memory (largest {largest}, needs {needs} incl. reserve)");
            part(self.memory.count, text);
        }
        for (name, most) in &self.extended {
            if let Some(needs) = most.needs {
                let text = format!("have too little {name} (largest {}, needs {needs})", most.largest);
                part(most.count, text);
            }
        }
        part(
            self.avoided,
            "are avoided for now after a failed launch".to_owned(),
        );
        // The commonest reason first; equal counts keep the order above.
        parts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
        texts.join(", ")
    }
}

/// Names on offer that begin like one that is not, for a misspelled size or a pattern that is too narrow; else the families that begin
/// like its family.
fn like(wanted: &[&str], offerings: &[Offering]) -> String {
    let names: BTreeSet<&str> = offerings
        .iter()
        .map(|offering| offering.id.instance_type.as_str())
        .collect();
    let family_of = |name: &str| name.split(['.', '*']).next().unwrap_or_default().to_owned();
    let families: BTreeSet<String> = wanted.iter().map(|name| family_of(name)).collect();
    let mut shown: Vec<String> = names
        .iter()
        .filter(|name| families.contains(&family_of(name)))
        .map(|name| (*name).to_owned())
        .collect();
    if shown.is_empty() {
        let begins_alike = |family: &str| {
            families
                .iter()
                .any(|wanted| wanted.get(..2).is_some_and(|start| family.starts_with(start)))
        };
        let near: BTreeSet<String> = names.iter().map(|name| family_of(name)).collect();
        shown.extend(
            near.into_iter()
                .filter(|family| begins_alike(family))
                .map(|family| family + ".*"),
        );
    }
    if shown.is_empty() {
        return String::new();
    }
    shown.truncate(MOST_NAMES);
    format!("; there are {}", shown.join(", "))
}

/// The zones in which the pod would fit, when its zones alone are in the way.
fn zones_that_fit(policy: &SizingPolicy, offerings: &[Offering], demand: &PodDemand) -> String {
    if demand.zones.is_empty() {
        return String::new();
    }
    let mut anywhere = demand.clone();
    anywhere.zones.clear();
    let zones: BTreeSet<&str> = offerings
        .iter()
        .filter(|offering| rule::fits(policy, offering, &anywhere))
        .map(|offering| offering.id.zone.as_str())
        .collect();
    if zones.is_empty() {
        return String::new();
    }
    let zones: Vec<&str> = zones.into_iter().collect();
    format!("; it would fit in {}", zones.join(", "))
}

fn unknown_label(key: &str, known: &BTreeSet<String>) -> String {
    if known.is_empty() {
        return format!("the pod selects by {key}, and this cloud's instances have no labels to select by");
    }
    let prefix = key.split_once('/').map_or(key, |(domain, _)| domain);
    let alike: Vec<&str> = known
        .iter()
        .filter(|known| known.starts_with(prefix))
        .map(String::as_str)
        .collect();
    let shown = if alike.is_empty() {
        known.iter().map(String::as_str).collect()
    } else {
        alike
    };
    format!(
        "the pod selects by {key}, which no instance has; there are {}",
        shown.join(", ")
    )
}

fn either<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" or ")
}

//! Says in one sentence why nothing fits, in the style of the Kubernetes scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::{Avoid, NoFit, Rejection, SizingPolicy, rule};
use crate::model::{Bytes, CpuMillis, Offering, PodDemand};

/// How many names are told in a sentence.
const MOST_NAMES: usize = 12;

/// Counts the reasons against all offerings and makes a sentence of them.
pub(super) fn no_fit(
    policy: &SizingPolicy,
    offerings: &[Offering],
    demand: &PodDemand,
    avoid: &Avoid,
    now: Timestamp,
) -> NoFit {
    if offerings.is_empty() {
        return NoFit::new(
            "the provider offers no instance types now; check its region, zones and permissions",
            false,
        );
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
    let wanted = rule::wanted_type(policy, demand);
    if let Some(wanted) = wanted.filter(|_| tally.instance_type == offerings.len()) {
        let known = like(wanted, offerings);
        return NoFit::new(
            format!("no instance type on offer is called {wanted}{known}"),
            false,
        );
    }
    let reasons = tally.sentence(wanted, demand);
    NoFit::new(
        format!("0 of {} offerings fit: {reasons}", offerings.len()),
        only_avoided,
    )
    .with_retry_at(retry_at)
}

#[derive(Default)]
struct Tally {
    instance_type: usize,
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

    fn sentence(&self, wanted_type: Option<&str>, demand: &PodDemand) -> String {
        let mut parts: Vec<(usize, String)> = Vec::new();
        let mut part = |count: usize, text: String| {
            if count > 0 {
                parts.push((count, format!("{count} {text}")));
            }
        };
        let wanted = wanted_type.unwrap_or_default();
        part(self.instance_type, format!("are not of instance type {wanted}"));
        part(
            self.by_name_only,
            "are only for pods that name their type".to_owned(),
        );
        part(self.burstable, "are burstable".to_owned());
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
        let capacity = if demand.capacity_types.is_empty() {
            "on-demand".to_owned()
        } else {
            either(&demand.capacity_types)
        };
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

/// Names on offer that begin like the one that is not, for a misspelled size or a pattern that is too narrow.
fn like(wanted: &str, offerings: &[Offering]) -> String {
    let family = wanted.split(['.', '*']).next().unwrap_or_default();
    let names: BTreeSet<&str> = offerings
        .iter()
        .map(|offering| offering.id.instance_type.as_str())
        .filter(|name| !family.is_empty() && name.split('.').next() == Some(family))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<&str> = names.into_iter().take(MOST_NAMES).collect();
    format!("; there are {}", shown.join(", "))
}

fn either<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" or ")
}

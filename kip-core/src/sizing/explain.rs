//! Says in one sentence why nothing fits, in the style of the Kubernetes scheduler.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::{Avoid, NoFit, Rejection, SizingPolicy, rule};
use crate::model::{Bytes, CpuMillis, Offering, PodDemand};

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
    let reasons = tally.sentence(rule::wanted_type(policy, demand), demand);
    NoFit::new(
        format!("0 of {} offerings fit: {reasons}", offerings.len()),
        only_avoided,
    )
    .with_retry_at(retry_at)
}

#[derive(Default)]
struct Tally {
    instance_type: usize,
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

fn either<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" or ")
}

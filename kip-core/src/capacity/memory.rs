//! The memory itself: outcomes in, what is closed out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::budget::Budget;
use super::closed::{Asker, Closed, Closure, Reading, Standing};
use super::config::CapacityConfig;
use super::outcome::Outcome;
use super::traffic::Traffic;
use crate::ids::{InstanceType, OfferingId, Zone};
use crate::machine::{Backoff, after};
use crate::model::{CapacityType, PodDemand};
use crate::sizing::{Avoid, Choice, InstanceSizer, NoFit};

/// Whether a launch may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Now.
    Go,
    /// Not before an answer of a launch under way, or this time.
    Wait(Timestamp),
    /// Not at all: the offering closed after it was chosen. Choose again.
    Closed,
}

/// What an outcome changed for pods that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Something that was closed is open again.
    pub opened: bool,
    /// Something that was open is closed now.
    pub closed: bool,
}

/// Limits that concern all offerings of one capacity type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Quota {
    /// Instance types that hit a limit since anything of this capacity type was launched.
    types: BTreeSet<InstanceType>,
    failures: u32,
}

/// A zone that had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FullZone {
    failures: u32,
    failed_at: Option<Timestamp>,
}

/// What launches taught about each offering. Pure: time comes in as an argument, and a clock that jumps does no harm beyond a probe too
/// early or too late.
///
/// An offering that answered "no capacity" is *closed* for a while that grows with each such answer in a row and is forgotten with time.
/// When that is over it is *half open*: one launch at a time may find out. A pod that has a choice does so only when launches that worked
/// have paid for it (one in [`CapacityConfig::earn`]); a failure nobody paid for counts against later probes. A pod that has nothing else
/// waits no longer than the offering's own wait. The first launch that works opens it.
///
/// At an open offering only so many launches are under way at once as its last answers justify ([`CapacityConfig::window`]), so a burst
/// finds out with a few calls that it went dry. What waits for that is a launch, not a placement: a healthy burst stays at the cheapest
/// offering, and each answer lets two more begin.
///
/// A zone without room closes as a whole: its dearer types have no more room than the cheapest, so a pod that must be there waits instead of
/// paying more, and the others go to another zone.
#[derive(Clone, Debug)]
pub struct CapacityMemory {
    config: CapacityConfig,
    closed: Arc<Closed>,
    traffic: BTreeMap<OfferingId, Traffic>,
    quotas: BTreeMap<CapacityType, Quota>,
    zones: BTreeMap<Zone, FullZone>,
    budget: Budget,
    /// The latest time that was told.
    settled_at: Option<Timestamp>,
}

impl CapacityMemory {
    /// A memory of nothing.
    pub fn new(config: CapacityConfig) -> Self {
        Self {
            closed: Arc::new(Closed::new(&config)),
            traffic: BTreeMap::new(),
            quotas: BTreeMap::new(),
            zones: BTreeMap::new(),
            budget: Budget::new(&config),
            settled_at: None,
            config,
        }
    }

    /// Chooses an offering for a pod: the sizer's choice of what is open or may be probed now. The choice of something half open is its
    /// probe: nobody else gets it until that was answered ([`ended`](Self::ended)) or [`CapacityConfig::probe_patience`] is over.
    ///
    /// # Errors
    /// The sizer's [`NoFit`]; its `retry_at` is when the first offering opens that fits.
    pub fn place(
        &mut self,
        sizer: &dyn InstanceSizer,
        demand: &PodDemand,
        own: &Avoid,
        now: Timestamp,
    ) -> Result<Choice, NoFit> {
        self.settle(now);
        let mut placed = sizer.size(demand, &self.avoid(own, Asker::Choosing), now);
        if !self.closed.can_pay && placed.as_ref().is_err_and(|no_fit| no_fit.only_avoided) {
            placed = sizer.size(demand, &self.avoid(own, Asker::Stranded), now);
        }
        if let Ok(choice) = &placed {
            self.chosen(&choice.offering.id, now);
        }
        placed
    }

    fn avoid(&self, own: &Avoid, asker: Asker) -> Avoid {
        own.with_closed(Reading {
            closed: Arc::clone(&self.closed),
            asker,
        })
    }

    /// Gives the allowance, and notes whether a probe can be paid for now.
    fn settle(&mut self, now: Timestamp) {
        if self.settled_at.is_some_and(|before| now < before) {
            Arc::make_mut(&mut self.closed).clock_went_back(now);
        }
        self.settled_at = Some(now);
        self.budget.allow(&self.config, now);
        let can_pay = self.budget.can_pay(&self.config);
        if self.closed.can_pay != can_pay {
            Arc::make_mut(&mut self.closed).can_pay = can_pay;
        }
    }

    fn chosen(&mut self, offering: &OfferingId, now: Timestamp) {
        for closure in closures_of(&mut self.closed, offering) {
            closure.probe = Some(now);
            if !closure.paid {
                closure.paid = true;
                self.budget.pay(&self.config);
            }
        }
        self.settle(now);
    }

    /// Whether a launch that was placed may begin now. Ask again after each answer.
    pub fn gate(&self, offering: &OfferingId, now: Timestamp) -> Gate {
        let waits = |closure: &Closure| {
            let standing = closure.standing(now, self.config.probe_patience);
            matches!(standing, Standing::Waits(_))
        };
        if self.closed.closures(offering).any(waits) {
            return Gate::Closed;
        }
        let traffic = self.traffic.get(offering);
        let blocked = traffic.and_then(|traffic| traffic.blocked_until(&self.config, now));
        blocked.map_or(Gate::Go, Gate::Wait)
    }

    /// A launch begins. [`ended`](Self::ended) with the same time must follow when it was answered.
    pub fn began(&mut self, offering: &OfferingId, now: Timestamp) {
        self.traffic.entry(offering.clone()).or_default().begin(now);
        for closure in closures_of(&mut self.closed, offering) {
            // Its patience runs from the call on.
            closure.probe = Some(now);
        }
    }

    /// A launch that began at `began` was answered.
    pub fn ended(
        &mut self,
        offering: &OfferingId,
        began: Timestamp,
        outcome: Outcome,
        now: Timestamp,
    ) -> Change {
        let traffic = self.traffic.entry(offering.clone()).or_default();
        traffic.end(began);
        let mut change = Change::default();
        match outcome {
            Outcome::Launched => {
                self.budget.earned(&self.config);
                if !self.is_outdated(offering, began) {
                    self.traffic
                        .entry(offering.clone())
                        .or_default()
                        .worked(&self.config, now);
                    change.opened = self.open(offering, now);
                }
            }
            Outcome::NoCapacity => {
                let failures = traffic.failed(&self.config, began, now);
                let wait = Backoff::new(self.config.wait, self.config.wait_cap).delay(failures);
                change.closed = self.close(offering, wait, now);
                self.doubt_siblings(offering);
                self.end_quota_probe(offering, now);
            }
            // It says nothing about the offering, nor about the quota.
            Outcome::ZoneFull => {
                self.learned_nothing(offering, now);
                change.closed = self.close_zone(&offering.zone, began, now);
            }
            Outcome::Quota => {
                let failures = traffic.failed(&self.config, began, now);
                let wait = Backoff::new(self.config.quota_wait, self.config.quota_wait_cap).delay(failures);
                change.closed = self.close(offering, wait, now);
                self.hit_quota(offering, now);
            }
            Outcome::Other => self.learned_nothing(offering, now),
        }
        self.settle(now);
        change
    }

    /// An instance is gone: a quota or a zone may have room again.
    pub fn freed(&mut self, now: Timestamp) {
        if self.closed.quotas.is_empty() && self.closed.zones.is_empty() {
            return;
        }
        let soon = after(now, self.config.wait);
        let closed = Arc::make_mut(&mut self.closed);
        for closure in closed.quotas.values_mut().chain(closed.zones.values_mut()) {
            closure.opens_at = closure.opens_at.min(soon);
        }
    }

    /// How many offerings are closed or half open, by themselves.
    pub fn closed_offerings(&self) -> usize {
        self.closed.offerings.len()
    }

    /// Capacity types believed to be at the account's limit.
    pub fn closed_quotas(&self) -> usize {
        self.closed.quotas.len()
    }

    /// Zones believed to have no room.
    pub fn closed_zones(&self) -> usize {
        self.closed.zones.len()
    }

    /// A launch worked: the offering is open, and its siblings are worth a try sooner.
    fn open(&mut self, offering: &OfferingId, now: Timestamp) -> bool {
        self.quotas.remove(&offering.capacity_type);
        self.zones.remove(&offering.zone);
        let was_closed = self.closed.offerings.contains_key(offering);
        let was_limited = self.closed.quotas.contains_key(&offering.capacity_type);
        let was_full = self.closed.zones.contains_key(&offering.zone);
        if !was_closed && !was_limited && !was_full {
            return false;
        }
        let closed = Arc::make_mut(&mut self.closed);
        closed.quotas.remove(&offering.capacity_type);
        closed.zones.remove(&offering.zone);
        if closed
            .offerings
            .remove(offering)
            .is_some_and(|closure| closure.paid)
        {
            self.budget.refund(&self.config);
        }
        let soon = after(now, self.config.wait);
        for (_, sibling) in closed
            .offerings
            .range_mut(first_of_type(offering)..)
            .take_while(|(id, _)| id.instance_type == offering.instance_type)
        {
            sibling.opens_at = sibling.opens_at.min(soon);
        }
        true
    }

    /// Whether a launch that worked began before the offering closed: then it got the last there was.
    fn is_outdated(&self, offering: &OfferingId, began: Timestamp) -> bool {
        let own = self.closed.offerings.get(offering);
        let zone = self.closed.zones.get(&offering.zone);
        own.into_iter()
            .chain(zone)
            .any(|closure| closure.probe.is_none() && began <= closure.since)
    }

    /// Closes an offering, or keeps it closed for longer, at the cost of the launch that failed.
    fn close(&mut self, offering: &OfferingId, wait: Duration, now: Timestamp) -> bool {
        let closed = Arc::make_mut(&mut self.closed);
        let before = closed.offerings.insert(
            offering.clone(),
            Closure {
                since: now,
                opens_at: after(now, wait),
                wait,
                probe: None,
                paid: false,
            },
        );
        if before.is_none_or(|closure| !closure.paid) {
            self.budget.pay(&self.config);
        }
        before.is_none()
    }

    /// Closes a zone. Launches that were under way together are one failure.
    fn close_zone(&mut self, zone: &Zone, began: Timestamp, now: Timestamp) -> bool {
        let full = self.zones.entry(zone.clone()).or_default();
        let is_same = full.failed_at.is_some_and(|at| began <= at && at <= now);
        if !is_same {
            full.failures = full.failures.saturating_add(1);
        }
        full.failed_at = Some(now);
        let wait = Backoff::new(self.config.wait, self.config.wait_cap).delay(full.failures);
        let closure = Closure {
            since: now,
            opens_at: after(now, wait),
            wait,
            probe: None,
            // Whoever asks a full zone pays for nothing but the question.
            paid: true,
        };
        let zones = &mut Arc::make_mut(&mut self.closed).zones;
        zones.insert(zone.clone(), closure).is_none()
    }

    /// The same type elsewhere often goes dry with it: the next launch there goes alone.
    fn doubt_siblings(&mut self, offering: &OfferingId) {
        let from = first_of_type(offering);
        for (id, traffic) in self.traffic.range_mut(from..) {
            if id.instance_type != offering.instance_type {
                break;
            }
            if id != offering {
                traffic.doubt();
            }
        }
    }

    fn hit_quota(&mut self, offering: &OfferingId, now: Timestamp) {
        let quota = self.quotas.entry(offering.capacity_type).or_default();
        quota.types.insert(offering.instance_type.clone());
        let is_probe = self.closed.quotas.contains_key(&offering.capacity_type);
        if !is_probe && quota.types.len() < self.config.quota_types {
            return;
        }
        quota.failures = quota.failures.saturating_add(1);
        let wait = Backoff::new(self.config.quota_wait, self.config.quota_wait_cap).delay(quota.failures);
        // Whatever hits it pays for itself.
        Arc::make_mut(&mut self.closed).quotas.insert(
            offering.capacity_type,
            Closure {
                since: now,
                opens_at: after(now, wait),
                wait,
                probe: None,
                paid: true,
            },
        );
    }

    /// No capacity says nothing about the quota: another may try.
    fn end_quota_probe(&mut self, offering: &OfferingId, now: Timestamp) {
        if self.closed.quotas.contains_key(&offering.capacity_type) {
            let closed = Arc::make_mut(&mut self.closed);
            if let Some(closure) = closed.quotas.get_mut(&offering.capacity_type) {
                closure.probe = None;
                closure.opens_at = closure.opens_at.min(now);
            }
        }
    }

    /// The probe is still to be made, by somebody else, and is paid for already.
    fn learned_nothing(&mut self, offering: &OfferingId, now: Timestamp) {
        for closure in closures_of(&mut self.closed, offering) {
            if closure.probe.take().is_some() {
                closure.opens_at = closure.opens_at.min(now);
            }
        }
    }
}

/// What holds an offering back, to be changed. Copies nothing when nothing does.
fn closures_of<'a>(
    closed: &'a mut Arc<Closed>,
    offering: &'a OfferingId,
) -> impl Iterator<Item = &'a mut Closure> {
    let is_closed = closed.closures(offering).next().is_some();
    let closed = is_closed.then(|| Arc::make_mut(closed));
    closed
        .into_iter()
        .flat_map(move |closed| closed.closures_mut(offering))
}

/// Where the offerings of the same type begin.
fn first_of_type(offering: &OfferingId) -> OfferingId {
    OfferingId {
        instance_type: offering.instance_type.clone(),
        zone: Zone::new(""),
        capacity_type: CapacityType::OnDemand,
    }
}

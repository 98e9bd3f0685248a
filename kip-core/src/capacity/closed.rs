//! What is closed now, in the form in which placement reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::config::CapacityConfig;
use crate::ids::{OfferingId, Zone};
use crate::machine::after;
use crate::model::CapacityType;

/// Something that answered "no": it waits, and then it is half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closure {
    pub(super) since: Timestamp,
    pub(super) opens_at: Timestamp,
    /// How long it waits: what is further away than this comes from a clock that has gone back since.
    pub(super) wait: Duration,
    /// When the probe that is under way was decided on.
    pub(super) probe: Option<Timestamp>,
    /// Whether the next failure is paid for already.
    pub(super) paid: bool,
}

/// How a closure stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody may try.
    Waits(Timestamp),
    /// One tries; the others may at this time, should it not have answered.
    Probed(Timestamp),
    /// One may try.
    HalfOpen,
}

impl Closure {
    pub(super) fn standing(&self, now: Timestamp, patience: Duration) -> Standing {
        if let Some(probe) = self.probe
            && now.duration_since(probe).unsigned_abs() < patience
        {
            return Standing::Probed(after(probe, patience));
        }
        let remains = self.opens_at.duration_since(now);
        // Half a wait more than there can be: a clock may be corrected a little.
        if remains.is_positive() && remains.unsigned_abs() <= self.wait.saturating_mul(3) / 2 {
            return Standing::Waits(self.opens_at);
        }
        Standing::HalfOpen
    }

    /// Forgets times that only a clock could have set which has gone back since: what is open for them now must not close again when they come.
    fn clock_went_back(&mut self, now: Timestamp, patience: Duration) {
        let is_to_come =
            |probe: Timestamp| probe > now && now.duration_since(probe).unsigned_abs() >= patience;
        self.probe = self.probe.filter(|probe| !is_to_come(*probe));
        if self.standing(now, patience) == Standing::HalfOpen {
            self.opens_at = self.opens_at.min(now);
        }
    }
}

/// Who asks whether something is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A pod that has a choice: it may probe only what the budget pays for.
    Choosing,
    /// A pod that has nothing else: the wait alone opens.
    Stranded,
}

/// All that is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(super) offerings: BTreeMap<OfferingId, Closure>,
    pub(super) quotas: BTreeMap<CapacityType, Closure>,
    pub(super) zones: BTreeMap<Zone, Closure>,
    /// Whether the budget pays for a probe.
    pub(super) can_pay: bool,
    patience: Duration,
}

impl Closed {
    pub(super) fn new(config: &CapacityConfig) -> Self {
        Self {
            offerings: BTreeMap::new(),
            quotas: BTreeMap::new(),
            zones: BTreeMap::new(),
            can_pay: false,
            patience: config.probe_patience,
        }
    }

    /// The clock has gone back: see [`Closure::clock_went_back`].
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        let all = self.offerings.values_mut().chain(self.quotas.values_mut());
        for closure in all.chain(self.zones.values_mut()) {
            closure.clock_went_back(now, self.patience);
        }
    }

    /// Whatever closes an offering: itself, its capacity type's quota, its zone.
    pub(super) fn closures(&self, offering: &OfferingId) -> impl Iterator<Item = &Closure> {
        let all = [
            self.offerings.get(offering),
            self.quotas.get(&offering.capacity_type),
            self.zones.get(&offering.zone),
        ];
        all.into_iter().flatten()
    }

    /// The same, to be changed.
    pub(super) fn closures_mut(&mut self, offering: &OfferingId) -> impl Iterator<Item = &mut Closure> {
        let all = [
            self.offerings.get_mut(offering),
            self.quotas.get_mut(&offering.capacity_type),
            self.zones.get_mut(&offering.zone),
        ];
        all.into_iter().flatten()
    }

    /// When an offering that is closed to this asker opens; None when it is open.
    pub(super) fn opens_at(&self, offering: &OfferingId, asker: Asker, now: Timestamp) -> Option<Timestamp> {
        self.closures(offering)
            .filter_map(|closure| match closure.standing(now, self.patience) {
                Standing::Waits(until) | Standing::Probed(until) => Some(until),
                Standing::HalfOpen if asker == Asker::Stranded || self.can_pay || closure.paid => None,
                Standing::HalfOpen => Some(now),
            })
            .max()
    }
}

/// A reading of what is closed, for one placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(super) closed: Arc<Closed>,
    pub(super) asker: Asker,
}

impl Reading {
    /// When an offering that is closed opens; None when it is open.
    pub(crate) fn opens_at(&self, offering: &OfferingId, now: Timestamp) -> Option<Timestamp> {
        self.closed.opens_at(offering, self.asker, now)
    }
}

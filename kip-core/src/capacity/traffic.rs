//! The launches under way at one offering, and how many more may be sent before one has answered.

use std::time::Duration;

use jiff::Timestamp;

use super::config::CapacityConfig;
use crate::machine::after;

/// What goes on at one offering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// When each launch that is under way began.
    begun: Vec<Timestamp>,
    /// How many may be under way; None before the first answer.
    window: Option<u32>,
    answered_at: Option<Timestamp>,
    /// Failures in a row, and when the last was.
    failures: u32,
    failed_at: Option<Timestamp>,
}

impl Traffic {
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.begun.push(now);
    }

    /// Takes a launch that began at this time off; one that is not known changes nothing.
    pub(super) fn end(&mut self, began: Timestamp) {
        if let Some(at) = self.begun.iter().position(|at| *at == began) {
            self.begun.swap_remove(at);
        }
    }

    /// When another launch may begin: None is now.
    pub(super) fn blocked_until(&self, config: &CapacityConfig, now: Timestamp) -> Option<Timestamp> {
        let is_waited_for = |at: &&Timestamp| now.duration_since(**at).unsigned_abs() < config.call_patience;
        let under_way = self.begun.iter().filter(is_waited_for);
        let allowed = usize::try_from(self.allowed(config, now)).unwrap_or(usize::MAX);
        if under_way.clone().count() < allowed {
            return None;
        }
        under_way.min().map(|oldest| after(*oldest, config.call_patience))
    }

    fn allowed(&self, config: &CapacityConfig, now: Timestamp) -> u32 {
        let window = self.window.unwrap_or(config.window);
        let idle = self
            .answered_at
            .map_or(0, |at| halves(at, now, config.window_decay));
        let decayed = window.checked_shr(idle).unwrap_or(0);
        decayed.max(window.min(config.window)).max(1)
    }

    pub(super) fn worked(&mut self, config: &CapacityConfig, now: Timestamp) {
        let allowed = self.allowed(config, now);
        self.window = Some(
            allowed
                .saturating_add(1)
                .max(config.window)
                .min(config.window_cap.max(1)),
        );
        self.answered_at = Some(now);
        self.failures = 0;
        self.failed_at = None;
    }

    /// Counts a failure; answers how many there now were in a row, the older ones half forgotten. Several launches that were under way
    /// together are one failure.
    pub(super) fn failed(&mut self, config: &CapacityConfig, began: Timestamp, now: Timestamp) -> u32 {
        let is_same = self
            .failed_at
            .is_some_and(|before| began <= before && before <= now);
        if let (Some(before), false) = (self.failed_at, is_same) {
            let forgotten = halves(before, now, config.decay);
            self.failures = self
                .failures
                .checked_shr(forgotten)
                .unwrap_or(0)
                .saturating_add(1);
        }
        self.failures = self.failures.max(1);
        self.failed_at = Some(now);
        self.answered_at = Some(now);
        self.window = Some(1);
        self.failures
    }

    /// A sibling went dry: this one may well be next, so it is asked with one launch first.
    pub(super) fn doubt(&mut self) {
        self.window = Some(1);
    }
}

/// How many whole times `period` fits between two moments; none when the clock has gone back.
fn halves(from: Timestamp, to: Timestamp, period: Duration) -> u32 {
    let passed = to.duration_since(from);
    if passed.is_negative() || period.is_zero() {
        return 0;
    }
    u32::try_from(passed.unsigned_abs().as_nanos() / period.as_nanos()).unwrap_or(u32::MAX)
}

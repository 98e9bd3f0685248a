//! What the driver counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::machine::Phase;

/// Upper bounds in seconds of the buckets that durations are counted in; one more bucket takes the rest.
pub const BUCKETS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// Durations, counted in [`BUCKETS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// How many were no longer than each bound, and longer than the one before; the last is the rest.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Their sum in seconds.
    pub sum: f64,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.sum += seconds;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the driver counted since it started, and how things stand.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// `kip_pods{phase}`.
    pub pods: BTreeMap<Phase, u64>,
    /// `kip_transitions_total{from,to}`.
    pub transitions: BTreeMap<(Phase, Phase), u64>,
    /// `kip_provider_request_duration_seconds{op}`.
    pub requests: BTreeMap<&'static str, Durations>,
    /// `kip_provider_errors_total{op,error_kind}`.
    pub errors: BTreeMap<(&'static str, ErrorKind), u64>,
    /// `kip_launch_to_running_seconds`: from the launch call to all containers running.
    pub launch_to_running: Durations,
    /// `kip_orphans`: what the last sweep found left over.
    pub orphans: u64,
    /// `kip_queue_depth`: pods that wait to be worked on, or are.
    pub queue_depth: u64,
    /// `kip_launches_ambiguous_total`: launch calls that ended without a clear answer.
    pub ambiguous_launches: u64,
    /// `kip_cells_adopted_total`: cells taken over from a controller before this one.
    pub adopted: u64,
}

/// The driver's counters.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<DriverMetrics>);

impl Counters {
    fn locked(&self) -> MutexGuard<'_, DriverMetrics> {
        // Counters are valid whatever was being counted when a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn transition(&self, from: Phase, to: Phase) {
        *self.locked().transitions.entry((from, to)).or_default() += 1;
    }

    pub(super) fn request(&self, op: &'static str, took: Duration, error: Option<ErrorKind>) {
        let mut metrics = self.locked();
        metrics.requests.entry(op).or_default().add(took);
        if let Some(kind) = error {
            *metrics.errors.entry((op, kind)).or_default() += 1;
        }
    }

    pub(super) fn ambiguous_launch(&self) {
        self.locked().ambiguous_launches += 1;
    }

    pub(super) fn running_after(&self, took: Duration) {
        self.locked().launch_to_running.add(took);
    }

    pub(super) fn orphans(&self, count: usize) {
        self.locked().orphans = count as u64;
    }

    pub(super) fn adopted(&self, count: usize) {
        self.locked().adopted += count as u64;
    }

    pub(super) fn snapshot(&self) -> DriverMetrics {
        self.locked().clone()
    }
}

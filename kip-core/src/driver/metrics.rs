//! What the driver counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::capacity::Outcome;
use crate::error::{ErrorKind, Result};
use crate::machine::Phase;
use crate::model::NoticeKind;

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
    /// `kip_launch_to_running_seconds`: from the decision to launch to all containers running.
    pub launch_to_running: Durations,
    /// `kip_launches_total{outcome}`: launch calls that were answered, by [`LaunchOutcome`].
    pub launches: BTreeMap<LaunchOutcome, u64>,
    /// `kip_launches_held_back_total{reason}`: launches that waited for their turn and were not sent.
    pub held_back: BTreeMap<HeldBack, u64>,
    /// `kip_launches_wasted_total`: launch calls refused, and instances that ended before they ran their pod.
    pub wasted_launches: u64,
    /// `kip_provider_throttled_total{class}`: calls the provider refused because there were too many.
    pub throttled: BTreeMap<&'static str, u64>,
    /// `kip_governor_rate{class}`: calls per second let through now, for classes that are limited.
    pub governor_rates: BTreeMap<&'static str, f64>,
    /// `kip_launch_queue_length`: launches that wait for their turn.
    pub launch_queue_length: u64,
    /// `kip_launch_queue_oldest_seconds`: how long the oldest of their pods has been waiting.
    pub launch_queue_oldest: Duration,
    /// `kip_launches_under_way`: launch calls that were not answered yet.
    pub launches_under_way: u64,
    /// `kip_offerings_closed`: offerings that no pod is placed on for want of capacity.
    pub offerings_closed: u64,
    /// `kip_quotas_closed`: capacity types believed to be at the account's limit.
    pub quotas_closed: u64,
    /// `kip_zones_closed`: zones believed to have no room for any type.
    pub zones_closed: u64,
    /// `kip_orphans`: what the last sweep found left over.
    pub orphans: u64,
    /// `kip_foreign_instances`: instances with our cluster and node in their tags that are not proved ours. They are never touched.
    pub foreign: u64,
    /// `kip_cells_damaged`: records that were changed by hand or cannot be read. They are never acted on.
    pub damaged: u64,
    /// `kip_queue_depth`: pods that wait to be worked on, or are.
    pub queue_depth: u64,
    /// `kip_launches_ambiguous_total`: launch calls that ended without a clear answer.
    pub ambiguous_launches: u64,
    /// `kip_sizing_advice_total`: pods that would cost at least 20 % less if they asked for at most 15 % less.
    pub advised: u64,
    /// `kip_cells_adopted_total`: cells taken over from a controller before this one.
    pub adopted: u64,
    /// `kip_instance_notices_total{kind}`: what the cloud announced about instances that run a pod, each once whichever way it came.
    pub notices: BTreeMap<NoticeKind, u64>,
}

impl DriverMetrics {
    /// `kip_launches_wasted_per_success`: wasted launches for each that ran its pod; None before the first did.
    pub fn wasted_per_success(&self) -> Option<f64> {
        let ran = self.launch_to_running.count();
        let as_float = |n: u64| u32::try_from(n).map_or(f64::from(u32::MAX), f64::from);
        (ran > 0).then(|| as_float(self.wasted_launches) / as_float(ran))
    }
}

/// How a launch call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LaunchOutcome {
    /// With an instance.
    Launched,
    /// The offering had nothing to sell.
    NoCapacity,
    /// The account's limit was reached.
    Quota,
    /// There were too many calls.
    Throttled,
    /// Without a clear answer: there may be an instance. The same token asks again.
    Ambiguous,
    /// It was refused for another reason.
    Rejected,
}

impl LaunchOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Launched,
        Self::NoCapacity,
        Self::Quota,
        Self::Throttled,
        Self::Ambiguous,
        Self::Rejected,
    ];

    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launched => "launched",
            Self::NoCapacity => "no_capacity",
            Self::Quota => "quota",
            Self::Throttled => "throttled",
            Self::Ambiguous => "ambiguous",
            Self::Rejected => "rejected",
        }
    }

    pub(super) fn of<T>(result: &Result<T>) -> Self {
        let Err(error) = result else {
            return Self::Launched;
        };
        if error.is_ambiguous() {
            return Self::Ambiguous;
        }
        match (error.kind(), Outcome::of_error(error)) {
            (ErrorKind::RateLimited, _) => Self::Throttled,
            (_, Outcome::NoCapacity | Outcome::ZoneFull) => Self::NoCapacity,
            (_, Outcome::Quota) => Self::Quota,
            (_, Outcome::Launched | Outcome::Other) => Self::Rejected,
        }
    }

    const fn is_wasted(self) -> bool {
        match self {
            Self::NoCapacity | Self::Quota | Self::Throttled | Self::Rejected => true,
            Self::Launched | Self::Ambiguous => false,
        }
    }
}

/// Why a launch was not sent although its turn was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HeldBack {
    /// Its offering went dry meanwhile.
    Closed,
    /// Its pod was deleted or its record changed meanwhile.
    Withdrawn,
    /// Its turn did not come in time.
    Late,
    /// The driver ended.
    Stopping,
}

impl HeldBack {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Withdrawn, Self::Late, Self::Stopping];

    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Withdrawn => "withdrawn",
            Self::Late => "late",
            Self::Stopping => "stopping",
        }
    }
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

    pub(super) fn launch(&self, outcome: LaunchOutcome) {
        let mut metrics = self.locked();
        *metrics.launches.entry(outcome).or_default() += 1;
        metrics.ambiguous_launches += u64::from(outcome == LaunchOutcome::Ambiguous);
        metrics.wasted_launches += u64::from(outcome.is_wasted());
    }

    pub(super) fn held_back(&self, why: HeldBack) {
        *self.locked().held_back.entry(why).or_default() += 1;
    }

    pub(super) fn throttled(&self, class: &'static str) {
        *self.locked().throttled.entry(class).or_default() += 1;
    }

    /// An instance ends that never ran its pod.
    pub(super) fn never_ran(&self) {
        self.locked().wasted_launches += 1;
    }

    pub(super) fn running_after(&self, took: Duration) {
        self.locked().launch_to_running.add(took);
    }

    pub(super) fn orphans(&self, count: usize) {
        self.locked().orphans = count as u64;
    }

    pub(super) fn foreign(&self, count: usize) {
        self.locked().foreign = count as u64;
    }

    pub(super) fn damaged(&self, count: usize) {
        self.locked().damaged = count as u64;
    }

    pub(super) fn adopted(&self, count: usize) {
        self.locked().adopted += count as u64;
    }

    pub(super) fn advised(&self) {
        self.locked().advised += 1;
    }

    pub(super) fn notice(&self, kind: NoticeKind) {
        *self.locked().notices.entry(kind).or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> DriverMetrics {
        self.locked().clone()
    }
}

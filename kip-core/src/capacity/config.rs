//! How long what was learned is believed, and what finding out may cost.

use std::time::Duration;

/// How long what launches taught is believed, and how much may be spent on finding out more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityConfig {
    /// How long an offering is left alone after one answer of "no capacity"; doubled by each further one in a row. Default 30 s.
    pub wait: Duration,
    /// The longest such wait. Default 15 minutes.
    pub wait_cap: Duration,
    /// The same after a quota was reached: somebody must end something or raise the limit, which takes longer. Default 1 minute.
    pub quota_wait: Duration,
    /// The longest wait after a quota was reached. Default 30 minutes.
    pub quota_wait_cap: Duration,
    /// So many different instance types must hit a quota, with no launch of the same capacity type between, until the whole capacity
    /// type is believed to be at its limit. Default 3: one alone may have a limit of its own, as GPUs do.
    pub quota_types: usize,
    /// After so long without a failure, half of them are forgotten. Default 30 minutes.
    pub decay: Duration,
    /// So many launches that worked pay for one that does not. Default 28, which keeps wasted calls below 4 in 100.
    pub earn: u32,
    /// Most probes that can be saved up. Default 3.
    pub savings: u32,
    /// Most failures that are held against later probes. Default 10.
    pub debt: u32,
    /// A quiet cluster is given one probe in so long, or it would pay for a dearer offering for hours to save a call. Default 10 minutes,
    /// which keeps what is overpaid at one pod a minute near 2 % (`tests/capacity_waste.rs`).
    pub allowance: Duration,
    /// How long a probe that was decided on may take to answer before another may be sent. Default 60 s.
    pub probe_patience: Duration,
    /// Launches under way at once at an offering that has not answered yet. Default 4.
    pub window: u32,
    /// Most launches under way at once at one offering: what is lost when it goes dry in the middle of a burst. Each launch that works
    /// allows one more, so the number doubles with each answer. Default 96.
    pub window_cap: u32,
    /// After so long without an answer, what was allowed is halved. Default 30 s.
    pub window_decay: Duration,
    /// A launch without an answer for so long holds up nobody any more. Default 20 s.
    pub call_patience: Duration,
}

impl Default for CapacityConfig {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            wait: Duration::from_secs(30),
            wait_cap: MINUTE.saturating_mul(15),
            quota_wait: MINUTE,
            quota_wait_cap: MINUTE.saturating_mul(30),
            quota_types: 3,
            decay: MINUTE.saturating_mul(30),
            earn: 28,
            savings: 3,
            debt: 10,
            allowance: MINUTE.saturating_mul(10),
            probe_patience: MINUTE,
            window: 4,
            window_cap: 96,
            window_decay: Duration::from_secs(30),
            call_patience: Duration::from_secs(20),
        }
    }
}

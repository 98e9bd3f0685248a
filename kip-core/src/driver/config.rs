//! How the driver works, beside what the machine decides.

use std::time::Duration;

use super::governor::RequestLimits;
use crate::capacity::CapacityConfig;
use crate::machine::Backoff;
use crate::plan::Policy;

/// How the driver works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverConfig {
    /// Pods worked on at the same time. Default 64: the work is storing and starting calls, not waiting for them.
    pub workers: usize,
    /// Launch calls under way at the same time, at all offerings together. Default 256.
    pub launches: usize,
    /// How long a launch waits for its turn before its pod hears that it did not come; it then asks again, and keeps its age. Default 10
    /// minutes.
    pub launch_patience: Duration,
    /// How long what launches taught about capacity is believed.
    pub capacity: CapacityConfig,
    /// The most calls to the provider. Default as many as it takes.
    pub request_limits: RequestLimits,
    /// How long a call to the provider or to a host may take, launches excepted: those are never dropped. Default 60 s.
    pub call_timeout: Duration,
    /// Between repeated writes to the record store and the source. Default 100 ms growing to 10 s.
    pub repeat: Backoff,
    /// Between refreshes of the offerings. Default 5 minutes.
    pub offerings_interval: Duration,
    /// Least time between refreshes when pods fit nothing. Default 15 s.
    pub offerings_min_interval: Duration,
    /// Between sweeps for leftovers. Default 30 s.
    pub sweep_interval: Duration,
    /// How careful the sweeps are.
    pub policy: Policy,
    /// How long before a maintenance that ends what runs on an instance its pod is replaced: time to boot another. Default 10 minutes.
    pub maintenance_lead: Duration,
    /// The same for a pod that is not started again elsewhere: it is left alone for as long as may be, as it may end by itself. Default 2
    /// minutes.
    pub maintenance_last: Duration,
    /// How long a shutdown waits for launches under way to be recorded. Default 60 s.
    pub drain_timeout: Duration,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            workers: 64,
            launches: 256,
            launch_patience: Duration::from_secs(600),
            capacity: CapacityConfig::default(),
            request_limits: RequestLimits::default(),
            call_timeout: Duration::from_secs(60),
            repeat: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            offerings_interval: Duration::from_secs(300),
            offerings_min_interval: Duration::from_secs(15),
            sweep_interval: Duration::from_secs(30),
            policy: Policy::default(),
            maintenance_lead: Duration::from_secs(600),
            maintenance_last: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(60),
        }
    }
}

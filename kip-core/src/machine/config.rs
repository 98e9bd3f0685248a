//! The machine's deadlines and intervals, all in one place and all with a reason.

use std::time::Duration;

use super::backoff::Backoff;
use crate::ids::{ClusterUid, NodeName};

/// Who launches: part of every launch token and every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterUid,
    /// The virtual node.
    pub node: NodeName,
}

/// The machine's deadlines and intervals. Every state that waits has one here, with an outcome named beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepConfig {
    /// Who launches.
    pub identity: Identity,
    /// How long the cloud's `list` and `get` may lag `launch`. Before it has passed, absence proves nothing. Default 0: set it from
    /// [`Capabilities::list_lag`](crate::provider::Capabilities::list_lag); the driver does.
    pub consistency: Duration,
    /// How long a launch without a clear answer is repeated with the same token. Then: the cloud is asked for the token, and if it
    /// knows none, a new attempt. Default 5 minutes.
    pub launch_ambiguity: Duration,
    /// Between repeated launches of one attempt. Default 1 s growing to 30 s.
    pub launch_retry: Backoff,
    /// From launch until an address is known. Then: terminated, another attempt elsewhere. Default 5 minutes.
    pub boot_deadline: Duration,
    /// Between questions about a booting instance. Default 50 ms growing to 2 s: dial as soon as there is an address.
    pub observe: Backoff,
    /// From the address until the agent answers. Then: terminated, another attempt elsewhere. Default 5 minutes.
    pub connect_deadline: Duration,
    /// From the agent's first answer until it confirms the pod. Then: terminated, another attempt. Default 5 minutes.
    pub deploy_deadline: Duration,
    /// Between repeated deploys and updates. Default 250 ms growing to 15 s.
    pub deploy_retry: Backoff,
    /// A connection without any report for so long counts as lost and is dialled anew. Agents report at least every 10 s. Default 35 s.
    pub report_timeout: Duration,
    /// Between attempts to dial an agent that was reached before. Default 100 ms growing to 10 s.
    pub redial: Backoff,
    /// How long one attempt to dial an agent again may take. Default 10 s.
    pub redial_patience: Duration,
    /// An agent silent for so long: the provider is asked whether the instance exists. While it does, the workload is kept, and the
    /// question is asked again after the same time. Only when it does not, the cell is lost. Default 30 s.
    pub silent_deadline: Duration,
    /// Added to the grace period of a stop before the instance is terminated without the agent's confirmation. Default 5 s.
    pub stop_margin: Duration,
    /// Grace period of a stop that the pod's own deadline or an interruption causes. Default 30 s.
    pub stop_grace: Duration,
    /// Between repeated stops that failed. Default 500 ms growing to 5 s.
    pub stop_retry: Backoff,
    /// Kept free before the moment an interrupted instance is taken. Default 5 s.
    pub interruption_margin: Duration,
    /// Between repeated terminates until the provider says the instance is gone. Default 250 ms growing to 10 s. Never given up.
    pub terminate_repeat: Backoff,
    /// How long a final status may delay the terminate or the release because it cannot be published. Then: go on without. Default 30 s.
    pub publish_patience: Duration,
    /// How long the release of a deleted pod waits for the provider to accept the terminate. Then: released; the record remains and
    /// the instance is pursued without the pod. Default 30 s.
    pub release_patience: Duration,
    /// Between placements of a pod that nothing fits. New offerings are tried at once. Default 60 s.
    pub no_fit_retry: Duration,
    /// How long an offering whose instance was taken back is avoided by the same pod. Default 3 minutes.
    pub avoid_interrupted: Duration,
    /// How long an offering whose instance did not boot is avoided by the same pod. Default 10 minutes.
    pub avoid_boot_failure: Duration,
    /// Between attempts after the infrastructure failed. Default 5 s growing to 5 minutes.
    pub retry: Backoff,
    /// How old an attempt whose pod runs must be before the setbacks ahead of it no longer count: a pod that is lost or taken back over
    /// and over soon after its start is launched less and less often, whatever its agent says. Default 5 minutes.
    pub settled_after: Duration,
    /// After so many cells in a row that cost money and never ran the pod, the pod fails. Default 5.
    pub boot_attempts: u32,
    /// How long a pod whose last cell is gone waits for the source to say what it wants, after a restart. Then: forgotten; should the
    /// source speak later, it begins anew. Default 10 minutes.
    pub source_patience: Duration,
    /// How often a state that is only waiting for someone else's word looks again. Default 30 s.
    pub idle_wake: Duration,
}

impl StepConfig {
    /// The defaults, for an identity.
    pub fn new(identity: Identity) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            identity,
            consistency: Duration::ZERO,
            launch_ambiguity: MINUTE.saturating_mul(5),
            launch_retry: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            boot_deadline: MINUTE.saturating_mul(5),
            observe: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            connect_deadline: MINUTE.saturating_mul(5),
            deploy_deadline: MINUTE.saturating_mul(5),
            deploy_retry: Backoff::new(Duration::from_millis(250), Duration::from_secs(15)),
            report_timeout: Duration::from_secs(35),
            redial: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            redial_patience: Duration::from_secs(10),
            silent_deadline: Duration::from_secs(30),
            stop_margin: Duration::from_secs(5),
            stop_grace: Duration::from_secs(30),
            stop_retry: Backoff::new(Duration::from_millis(500), Duration::from_secs(5)),
            interruption_margin: Duration::from_secs(5),
            terminate_repeat: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            publish_patience: Duration::from_secs(30),
            release_patience: Duration::from_secs(30),
            no_fit_retry: MINUTE,
            avoid_interrupted: MINUTE.saturating_mul(3),
            avoid_boot_failure: MINUTE.saturating_mul(10),
            retry: Backoff::new(Duration::from_secs(5), MINUTE.saturating_mul(5)),
            settled_after: MINUTE.saturating_mul(5),
            boot_attempts: 5,
            source_patience: MINUTE.saturating_mul(10),
            idle_wake: Duration::from_secs(30),
        }
    }
}

//! What is decided about an election: whose it is, and its three times.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::NodeName;
use crate::kubelet::cells::label_value;

/// How an election is held. All replicas of a controller must have the same but for the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaderConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease; [`LeaderConfig::lease_name`] makes the one Kip uses for a node.
    pub name: String,
    /// Who this replica is: unique for each run of each process, or a restarted one would take itself for the one before.
    pub identity: String,
    /// How long others wait after the last renewal they saw before they take over. Whole seconds; 10 by default.
    pub lease_duration: Duration,
    /// How long the leader acts without a successful renewal. 7 seconds by default.
    pub renew_deadline: Duration,
    /// How often the leader renews, and how often others look. 2 seconds by default.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// Default of [`LeaderConfig::lease_duration`].
    pub const LEASE_DURATION: Duration = Duration::from_secs(10);
    /// Default of [`LeaderConfig::renew_deadline`].
    pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
    /// Default of [`LeaderConfig::retry_period`].
    pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

    /// An election over this Lease. With the default times another replica leads at most 12 seconds after the leader was killed: the
    /// duration, and the time until its last renewal was seen.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Self::LEASE_DURATION,
            renew_deadline: Self::RENEW_DEADLINE,
            retry_period: Self::RETRY_PERIOD,
        }
    }

    /// The Lease of the controllers of a node: `kip-<node name>`, made shorter and unique where that is too long.
    pub fn lease_name(node: &NodeName) -> String {
        format!("kip-{}", label_value(node))
    }

    /// With these times.
    #[must_use]
    pub const fn with_times(
        mut self,
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Self {
        self.lease_duration = lease_duration;
        self.renew_deadline = renew_deadline;
        self.retry_period = retry_period;
        self
    }

    /// Every wrong field with what is wrong and its fix. The fields are called as the flags of Kubernetes components are, without
    /// their `--leader-elect-`.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if lease.subsec_nanos() != 0 || lease.is_zero() {
            problems.push((
                "lease-duration",
                format!("{lease:?} is not 1s or more in whole seconds, as a Lease keeps it"),
            ));
        }
        if lease <= renew {
            problems.push((
                "lease-duration",
                format!(
                    "{lease:?} is not longer than the renew deadline, {renew:?}: two would act at the same time"
                ),
            ));
        }
        if renew <= retry {
            problems.push((
                "renew-deadline",
                format!(
                    "{renew:?} is not longer than the retry period, {retry:?}: no renewal would be in time"
                ),
            ));
        }
        if retry.is_zero() {
            problems.push(("retry-period", "0s is no period; give 2s".to_owned()));
        }
        if self.namespace.is_empty() {
            problems.push(("resource-namespace", "give one".to_owned()));
        }
        if self.name.is_empty() {
            problems.push(("resource-name", "give one".to_owned()));
        }
        if self.identity.is_empty() {
            problems.push(("identity", "give one that is unique".to_owned()));
        }
        problems
    }

    /// Checks all fields.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn validate(&self) -> Result<()> {
        let problems: Vec<String> = self
            .problems()
            .into_iter()
            .map(|(field, what)| format!("{field}: {what}"))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ConfigInvalid,
            "configure leader election",
            problems.join("; "),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lease: u64, renew: u64, retry: u64) -> Vec<&'static str> {
        LeaderConfig::new("kip", "kip-n", "me")
            .with_times(
                Duration::from_millis(lease),
                Duration::from_millis(renew),
                Duration::from_millis(retry),
            )
            .problems()
            .into_iter()
            .map(|(field, _)| field)
            .collect()
    }

    #[test]
    fn times_under_which_two_would_lead_or_nobody_could_are_refused_by_name() {
        assert!(LeaderConfig::new("kip", "kip-n", "me").problems().is_empty());
        assert!(fields(10_000, 7_000, 2_000).is_empty());
        assert_eq!(fields(7_000, 7_000, 2_000), ["lease-duration"]);
        assert_eq!(fields(10_000, 2_000, 2_000), ["renew-deadline"]);
        assert_eq!(fields(10_500, 7_000, 2_000), ["lease-duration"]);
        assert_eq!(fields(10_000, 7_000, 0), ["retry-period"]);
        assert_eq!(
            fields(0, 0, 0),
            [
                "lease-duration",
                "lease-duration",
                "renew-deadline",
                "retry-period"
            ]
        );
        let error = LeaderConfig::new("", "kip-n", "")
            .validate()
            .expect_err("two are missing");
        assert!(
            error.to_string().contains("resource-namespace") && error.to_string().contains("identity"),
            "{error}"
        );
    }

    #[test]
    fn the_lease_of_a_node_with_a_long_name_can_be_made_too() {
        assert_eq!(LeaderConfig::lease_name(&NodeName::new("kip-0")), "kip-kip-0");
        assert!(LeaderConfig::lease_name(&NodeName::new("n".repeat(253))).len() < 253);
    }
}

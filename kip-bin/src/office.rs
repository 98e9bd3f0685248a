//! Whether this process acts: as the elected leader, or because it is told that it is the only one.

use std::hash::{BuildHasher as _, RandomState};

use anyhow::{Context as _, bail};
use kip_core::ids::NodeName;
use kip_core::kubelet::{Leader, LeaderConfig, LeaderElection};
use kip_core::{Error, ErrorKind};
use kube::Client;

use crate::args::LeaderArgs;

/// The right to act for a node.
#[derive(Debug)]
pub(crate) struct Office(Option<Leader>);

impl Office {
    /// Waits until this process may act.
    ///
    /// # Errors
    /// When the lease cannot be had at all: the message says what to do.
    pub(crate) async fn take(client: &Client, election: Option<LeaderConfig>) -> anyhow::Result<Self> {
        let Some(config) = election else {
            tracing::warn!(
                "leader election is off: no other controller may run for this node at the same time"
            );
            return Ok(Self(None));
        };
        let namespace = config.namespace.clone();
        let lead = LeaderElection::new(client.clone(), config)?.lead();
        let leader = lead.await.map_err(|error| advise(error, &namespace))?;
        Ok(Self(Some(leader)))
    }

    /// Waits until this process must not act any more, and tells why. For ever where there is no election. Cancel-safe.
    pub(crate) async fn lost(&mut self) -> Error {
        match &mut self.0 {
            Some(leader) => leader.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Lets another act, now that nothing here does any more.
    pub(crate) async fn resign(self) {
        let Some(leader) = self.0 else { return };
        if let Err(error) = leader.release().await {
            tracing::warn!(error = %error.chain(), "the lease could not be released; it runs out by itself");
        }
    }
}

fn advise(error: Error, namespace: &str) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "this identity may not use Leases in the namespace {namespace}: allow it get, create and update there \
             (kustomize/base/rbac.yaml does), or run one controller only, with --leader-elect=false"
        ),
        ErrorKind::NotFound => format!(
            "the namespace {namespace} is not there: create it, or name another by --leader-elect-resource-namespace"
        ),
        _ => "cannot hold an election of the controller that acts; check the cluster's address".to_owned(),
    };
    anyhow::Error::new(error).context(advice)
}

/// The election the flags ask for. None: there is none.
///
/// # Errors
/// When flags contradict each other: each is named with what is wrong.
pub(crate) fn election(
    flags: &LeaderArgs,
    kip_namespace: &str,
    node: &str,
    identity: &str,
) -> anyhow::Result<Option<LeaderConfig>> {
    if !flags.leader_elect {
        return Ok(None);
    }
    let namespace = flags
        .leader_elect_resource_namespace
        .as_deref()
        .unwrap_or(kip_namespace);
    let config = LeaderConfig::new(
        namespace,
        LeaderConfig::lease_name(&NodeName::new(node)),
        identity,
    )
    .with_times(
        flags.leader_elect_lease_duration,
        flags.leader_elect_renew_deadline,
        flags.leader_elect_retry_period,
    );
    let problems: Vec<String> = config
        .problems()
        .into_iter()
        .map(|(field, what)| format!("--leader-elect-{field}: {what}"))
        .collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(Some(config))
}

/// A name for this run of this process, which no other has: the machine's, and something random.
///
/// # Errors
/// When the machine's name cannot be read.
pub(crate) fn identity() -> anyhow::Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read this machine's name from /proc/sys/kernel/hostname")?;
    let random = RandomState::new().hash_one(std::process::id());
    Ok(format!("{}_{random:016x}", host.trim()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        leader: LeaderArgs,
    }

    fn of(flags: &[&str]) -> anyhow::Result<Option<LeaderConfig>> {
        let line = Line::try_parse_from([&["kip"], flags].concat()).expect("known flags");
        election(&line.leader, "kip", "kip-0", "me")
    }

    #[test]
    fn two_replicas_are_safe_unless_told_otherwise() {
        let config = of(&[]).expect("good").expect("an election");
        assert_eq!(
            (config.namespace.as_str(), config.name.as_str()),
            ("kip", "kip-kip-0")
        );
        assert_eq!(config.lease_duration, Duration::from_secs(10));
        assert_eq!(config.renew_deadline, Duration::from_secs(7));
        assert_eq!(config.retry_period, Duration::from_secs(2));
        assert_eq!(of(&["--leader-elect=false"]).expect("good"), None);
        let elsewhere = of(&["--leader-elect", "--leader-elect-resource-namespace", "other"]);
        assert_eq!(elsewhere.expect("good").expect("an election").namespace, "other");
    }

    #[test]
    fn times_that_cannot_work_are_refused_by_the_names_of_their_flags() {
        let error = of(&[
            "--leader-elect-lease-duration=5s",
            "--leader-elect-retry-period=7s",
        ])
        .expect_err("two contradict")
        .to_string();
        assert!(error.contains("--leader-elect-lease-duration"), "{error}");
        assert!(error.contains("--leader-elect-renew-deadline"), "{error}");
        assert!(Line::try_parse_from(["kip", "--leader-elect-retry-period=soon"]).is_err());
    }

    #[test]
    fn no_two_runs_are_taken_for_one_another() {
        let (one, other) = (identity().expect("a name"), identity().expect("a name"));
        assert_ne!(one, other);
    }
}

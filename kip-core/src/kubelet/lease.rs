//! Renews the Node's lease, by which the control plane knows that the node is alive.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use super::config::KubeletConfig;
use super::errors::{api_error, is_conflict, is_missing};
use super::node::NodeUid;
use crate::error::Result;

/// Where the control plane looks for node leases.
const NAMESPACE: &str = "kube-node-lease";
/// Writes in one round before the next interval is awaited.
const TRIES: u32 = 5;
/// First wait after a failed write; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Keeps the lease.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    api: Api<Lease>,
    config: Arc<KubeletConfig>,
    node_uid: NodeUid,
    last: Option<Lease>,
}

impl LeaseKeeper {
    /// A keeper of the lease of the configured node.
    pub(crate) fn new(client: kube::Client, config: Arc<KubeletConfig>, node_uid: NodeUid) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            config,
            node_uid,
            last: None,
        }
    }

    /// Renews the lease four times per its duration, and at once when the Node got another UID, until `shutdown`. The lease stays.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.config.lease_duration / 4);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut node_uid = self.node_uid.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                changed = node_uid.changed() => if changed.is_err() { return },
            }
            let Some(uid) = node_uid.borrow_and_update().clone() else {
                continue;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.renew_with_retries(&uid) => {}
            }
        }
    }

    async fn renew_with_retries(&mut self, uid: &str) {
        let mut wait = FIRST_RETRY;
        for attempt in 1..=TRIES {
            match self.renew(uid).await {
                Ok(()) => return,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(error = %error.chain(), "the node's lease could not be renewed; the node turns NotReady if this lasts");
                }
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "renewing the node's lease failed; trying again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
            }
        }
    }

    /// One write: create it, or replace the last seen version.
    async fn renew(&mut self, uid: &str) -> Result<()> {
        let name = self.config.name.as_str();
        let failed = |error| api_error("renew lease", error);
        if self.last.is_none() {
            self.last = self.api.get_opt(name).await.map_err(failed)?;
        }
        let wanted = desired(&self.config, self.last.as_ref(), uid, Timestamp::now());
        let written = if self.last.is_some() {
            self.api.replace(name, &PostParams::default(), &wanted).await
        } else {
            self.api.create(&PostParams::default(), &wanted).await
        };
        match written {
            Ok(lease) => {
                self.last = Some(lease);
                Ok(())
            }
            Err(error) => {
                if is_conflict(&error) || is_missing(&error) {
                    self.last = None;
                }
                Err(failed(error))
            }
        }
    }
}

/// The lease to write. `renewTime` strictly grows, and the one owner is the live Node: an owner that no longer exists would have
/// the lease collected as garbage.
fn desired(config: &KubeletConfig, last: Option<&Lease>, uid: &str, now: Timestamp) -> Lease {
    let name = config.name.as_str();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let previous = last
        .and_then(|lease| lease.spec.as_ref())
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let tick = jiff::SignedDuration::from_micros(1);
    let renewed = match previous {
        Some(previous) if previous >= now => previous.checked_add(tick).unwrap_or(now),
        _ => now,
    };
    let seconds = i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..last.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone())
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeName;

    #[test]
    fn the_lease_follows_the_node_and_its_time_only_grows() {
        let config = KubeletConfig::new(NodeName::new("kip"), "10.0.0.1".parse().expect("an address"));
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
        let mut first = desired(&config, None, "uid-1", now);
        first.metadata.resource_version = Some("7".to_owned());
        // The clock stood still and the Node was made anew.
        let second = desired(&config, Some(&first), "uid-2", now);
        let owners = second.metadata.owner_references.expect("an owner");
        assert_eq!(owners.len(), 1);
        assert_eq!(
            (owners[0].uid.as_str(), owners[0].kind.as_str()),
            ("uid-2", "Node")
        );
        assert_eq!(second.metadata.resource_version.as_deref(), Some("7"));
        let spec = second.spec.expect("a spec");
        assert_eq!(spec.lease_duration_seconds, Some(40));
        assert_eq!(spec.holder_identity.as_deref(), Some("kip"));
        assert!(spec.renew_time.expect("a time").0 > now);
    }
}

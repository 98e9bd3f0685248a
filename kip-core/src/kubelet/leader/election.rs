//! Decides about a Lease: whether it may be taken, must be renewed, or is lost. No I/O and no clock.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::config::LeaderConfig;

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Move {
    /// Create the Lease, held by this replica.
    Create(Lease),
    /// Replace the Lease, if nobody changed it since it was seen.
    Replace(Lease),
    /// Another holds it: look again then.
    Wait(Instant),
    /// Another holds what this replica held: stop acting.
    Taken(String),
    /// The renew deadline has passed: stop acting.
    Overdue,
}

/// The lease as it was last seen.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    /// When it was first seen with this claim, on this replica's monotonic clock.
    since: Instant,
}

/// One replica's view of an election.
#[derive(Clone, Debug)]
pub(super) struct Election {
    config: LeaderConfig,
    seen: Option<Seen>,
    /// When the request of the last successful renewal was sent; `Some` means that this replica leads.
    renewed: Option<Instant>,
}

impl Election {
    /// Has seen nothing yet.
    pub(super) const fn new(config: LeaderConfig) -> Self {
        Self {
            config,
            seen: None,
            renewed: None,
        }
    }

    /// The rules of this election.
    pub(super) const fn config(&self) -> &LeaderConfig {
        &self.config
    }

    /// Who holds the lease, as last seen. None: nobody.
    pub(super) fn holder(&self) -> Option<&str> {
        self.seen.as_ref().and_then(|seen| holder(&seen.lease))
    }

    /// When the leader stops acting unless it renews. None: it does not lead.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|sent| sent + self.config.renew_deadline)
    }

    /// The Lease was read; None: there is none.
    pub(super) fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        self.seen = lease.map(|lease| {
            let same = self.seen.take().filter(|seen| seen.lease.spec == lease.spec);
            Seen {
                since: same.map_or(now, |seen| seen.since),
                lease,
            }
        });
    }

    /// This replica's claim was written by a request sent at `sent`; it leads.
    pub(super) fn claimed(&mut self, written: Lease, sent: Instant) {
        self.seen = Some(Seen {
            lease: written,
            since: sent,
        });
        self.renewed = Some(sent);
    }

    /// What to do at `now`; `wall` is what a claim is dated by, for people to read.
    pub(super) fn next(&self, now: Instant, wall: Timestamp) -> Move {
        if let Some(deadline) = self.deadline() {
            return if now >= deadline {
                Move::Overdue
            } else {
                self.keep(wall)
            };
        }
        let Some(seen) = &self.seen else {
            return Move::Create(self.fresh(wall));
        };
        let ends = seen.since + duration(&seen.lease).unwrap_or(self.config.lease_duration);
        match holder(&seen.lease) {
            // Its own: an answer that said so was lost.
            Some(holder) if holder != self.config.identity && now < ends => {
                Move::Wait(ends.min(now + self.config.retry_period))
            }
            _ => Move::Replace(self.claim(&seen.lease, wall)),
        }
    }

    fn keep(&self, wall: Timestamp) -> Move {
        match &self.seen {
            // Somebody deleted it.
            None => Move::Create(self.fresh(wall)),
            Some(seen) => match holder(&seen.lease) {
                Some(holder) if holder != self.config.identity => Move::Taken(holder.to_owned()),
                _ => Move::Replace(self.claim(&seen.lease, wall)),
            },
        }
    }

    /// The Lease that gives up the claim, so that others need not wait. None: there is none of this replica's.
    pub(super) fn release(&self, wall: Timestamp) -> Option<Lease> {
        let seen = self.seen.as_ref()?;
        if holder(&seen.lease) != Some(&self.config.identity) {
            return None;
        }
        let mut lease = self.claim(&seen.lease, wall);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        Some(lease)
    }

    fn fresh(&self, wall: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                lease_transitions: Some(0),
                ..self.spec(wall, wall)
            }),
        }
    }

    /// The same Lease, held by this replica. Whatever else it carries stays.
    fn claim(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let before = lease.spec.clone().unwrap_or_default();
        let ours = holder(lease) == Some(&self.config.identity);
        // Others see that it is renewed by its change, so it must change, whatever the wall clock does.
        let last = before.renew_time.as_ref().map(|time| time.0);
        let tick = jiff::SignedDuration::from_micros(1);
        let wall = match last {
            Some(last) if last == wall => wall.checked_add(tick).unwrap_or(wall),
            _ => wall,
        };
        let acquired = match before.acquire_time {
            Some(time) if ours => time.0,
            _ => wall,
        };
        let transitions = before.lease_transitions.unwrap_or(0);
        Lease {
            metadata: lease.metadata.clone(),
            spec: Some(LeaseSpec {
                lease_transitions: Some(if ours {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..self.spec(acquired, wall)
            }),
        }
    }

    fn spec(&self, acquired: Timestamp, renewed: Timestamp) -> LeaseSpec {
        let seconds = i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

/// How long its holder asked others to wait.
fn duration(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;

//! Choices across pods, as a pure function: what is left over in the cloud or in the records, and what to do about it.
//!
//! One pod's machine cannot see what nobody remembers: an instance whose record is gone, a record whose pod is gone. The driver
//! collects a [`World`] now and then, [`plan`] compares its parts, and the driver carries out the [`Plan`] without further judgement.
//!
//! Rules:
//! - **Ours only.** An instance is looked at only if its tags name our cluster *and* our node.
//! - **Absence must be heard twice.** Something is acted on after [`Policy::sweeps`] sweeps in a row found it, at least
//!   [`Policy::confirm_after`] apart, so a list that lags a launch or a cache that is half filled costs nothing.
//! - **A failed listing is no listing, and an empty one is doubtful.** What is concluded from a listing that failed is nothing; what is
//!   concluded from one that is wholly empty must be heard [`Policy::sweeps_when_empty`] times.
//! - **Young things are left alone** for [`Policy::grace`].
//! - **The last word is the provider's.** A record whose instance is not listed is only asked about; the machine forgets it when
//!   the provider says `NotFound`.

mod policy;
mod suspects;
mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

pub use policy::Policy;
pub use suspects::{Suspect, Suspects};
pub use world::World;

use crate::ids::{CellName, InstanceId, LaunchToken, PodUid};
use crate::model::{CellRecord, Instance, InstancePhase};
use crate::provider::tags;

/// What to do now, and what to remember until the next sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// To be carried out, in this order. Each is safe to repeat.
    pub actions: Vec<PlanAction>,
    /// What would be in `actions` if [`Policy::dry_run`] were off: for a log line.
    pub withheld: Vec<PlanAction>,
    /// What looks left over: pass it back in the next [`World`]. Its size is the number of orphans worth a metric.
    pub suspects: Suspects,
}

/// One thing to do about something left over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PlanAction {
    /// An instance of ours that no record claims: terminate it, and repeat until the provider says `NotFound`.
    TerminateInstance {
        /// The instance.
        instance: InstanceId,
        /// The pod named in its tags, for the log.
        pod: Option<PodUid>,
    },
    /// A record whose pod does not exist: tell its machine that the pod is gone, so it terminates the instance and then forgets.
    RetireRecord {
        /// The record.
        cell: CellName,
        /// Its pod.
        pod: PodUid,
    },
    /// A record whose instance was not listed: ask the provider about that one instance and tell the machine the answer.
    VerifyInstance {
        /// The record.
        cell: CellName,
        /// Its pod.
        pod: PodUid,
        /// The instance to ask about.
        instance: InstanceId,
    },
}

impl fmt::Display for PlanAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TerminateInstance { instance, .. } => {
                write!(f, "terminate instance {instance}: no record claims it")
            }
            Self::RetireRecord { cell, pod } => write!(f, "retire {cell}: its pod {pod} does not exist"),
            Self::VerifyInstance { cell, instance, .. } => {
                write!(f, "ask about instance {instance} of {cell}: it was not listed")
            }
        }
    }
}

/// Compares instances, records and pods, and answers what to do about what is left over.
///
/// Total and pure: no clock, no I/O, no panic. Calling it again with the returned suspects is one more sweep.
#[must_use]
pub fn plan(world: &World, policy: &Policy, now: Timestamp) -> Plan {
    if !world.synced {
        // Nothing seen so far counts: the next synced sweep starts over.
        return Plan::default();
    }
    let mut sweep = Sweep {
        world,
        policy,
        now,
        next: Suspects::default(),
        confirmed: Vec::new(),
    };
    sweep.unclaimed_instances();
    sweep.records_without_pod();
    sweep.records_without_instance();

    let Sweep {
        next, mut confirmed, ..
    } = sweep;
    confirmed.sort();
    let (actions, withheld) = if policy.dry_run {
        (Vec::new(), confirmed)
    } else {
        (confirmed, Vec::new())
    };
    Plan {
        actions,
        withheld,
        suspects: next,
    }
}

struct Sweep<'a> {
    world: &'a World,
    policy: &'a Policy,
    now: Timestamp,
    next: Suspects,
    confirmed: Vec<PlanAction>,
}

impl Sweep<'_> {
    fn unclaimed_instances(&mut self) {
        let (Some(instances), Some(cells)) = (&self.world.instances, &self.world.cells) else {
            self.keep(|suspect| matches!(suspect, Suspect::Instance(_)));
            return;
        };
        let by_token: BTreeMap<&LaunchToken, &CellRecord> =
            cells.iter().map(|cell| (&cell.token, cell)).collect();
        let by_id: BTreeSet<&InstanceId> = cells.iter().filter_map(|cell| cell.instance.as_ref()).collect();
        for instance in instances {
            if !self.is_ours(instance) || is_leaving(instance) || self.is_young(instance.launched_at) {
                continue;
            }
            // A record that already knows another instance does not claim a second one of the same token.
            let claimed = by_id.contains(&instance.id)
                || token_of(instance)
                    .and_then(|token| by_token.get(&token).copied())
                    .is_some_and(|cell| cell.instance.is_none());
            if !claimed {
                let action = PlanAction::TerminateInstance {
                    instance: instance.id.clone(),
                    pod: instance.tags.get(tags::POD_UID).map(PodUid::new),
                };
                self.suspect(Suspect::Instance(instance.id.clone()), cells.is_empty(), action);
            }
        }
    }

    fn records_without_pod(&mut self) {
        let (Some(cells), Some(pods)) = (&self.world.cells, &self.world.pods) else {
            self.keep(|suspect| matches!(suspect, Suspect::RecordWithoutPod(_)));
            return;
        };
        for cell in cells {
            if self.is_own_record(cell) && !self.is_young(cell.issued_at) && !pods.contains(&cell.pod.uid) {
                let action = PlanAction::RetireRecord {
                    cell: cell.name.clone(),
                    pod: cell.pod.uid.clone(),
                };
                self.suspect(
                    Suspect::RecordWithoutPod(cell.name.clone()),
                    pods.is_empty(),
                    action,
                );
            }
        }
    }

    fn records_without_instance(&mut self) {
        let (Some(cells), Some(instances)) = (&self.world.cells, &self.world.instances) else {
            self.keep(|suspect| matches!(suspect, Suspect::RecordWithoutInstance(_)));
            return;
        };
        let listed: BTreeSet<&InstanceId> = instances.iter().map(|instance| &instance.id).collect();
        for cell in cells {
            let Some(instance) = &cell.instance else {
                continue; // Whether it exists is the machine's own question while it launches.
            };
            if self.is_own_record(cell) && !self.is_young(cell.issued_at) && !listed.contains(instance) {
                let action = PlanAction::VerifyInstance {
                    cell: cell.name.clone(),
                    pod: cell.pod.uid.clone(),
                    instance: instance.clone(),
                };
                // Only a question, so an empty listing needs no more doubt than another.
                self.suspect(Suspect::RecordWithoutInstance(cell.name.clone()), false, action);
            }
        }
    }

    /// Counts one more sweep for a suspect, and confirms it when it was heard often and long enough.
    fn suspect(&mut self, suspect: Suspect, from_empty_listing: bool, action: PlanAction) {
        let sighting = self.world.suspects.seen_again(&suspect, self.now);
        let needed = if from_empty_listing {
            self.policy.sweeps_when_empty.max(self.policy.sweeps)
        } else {
            self.policy.sweeps
        };
        if sighting.sweeps >= needed && elapsed(sighting.first, self.now) >= self.policy.confirm_after {
            self.confirmed.push(action);
        }
        self.next.insert(suspect, sighting);
    }

    /// A listing failed: this sweep has no opinion, so earlier sightings neither grow nor are forgotten.
    fn keep(&mut self, which: impl Fn(&Suspect) -> bool) {
        self.next.extend_from(&self.world.suspects, which);
    }

    fn is_ours(&self, instance: &Instance) -> bool {
        let tag = |key: &str| instance.tags.get(key).map(String::as_str);
        tag(tags::CLUSTER) == Some(self.world.cluster.as_str())
            && tag(tags::NODE) == Some(self.world.node.as_str())
    }

    fn is_own_record(&self, cell: &CellRecord) -> bool {
        cell.cluster == self.world.cluster && cell.node == self.world.node
    }

    fn is_young(&self, born: Timestamp) -> bool {
        elapsed(born, self.now) < self.policy.grace
    }
}

fn is_leaving(instance: &Instance) -> bool {
    matches!(
        instance.phase,
        InstancePhase::Terminating | InstancePhase::Terminated
    )
}

fn token_of(instance: &Instance) -> Option<LaunchToken> {
    instance
        .token
        .clone()
        .or_else(|| instance.tags.get(tags::TOKEN).map(LaunchToken::from_stored))
}

/// Time from one moment to another; zero when clocks disagree about the order.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

//! Choices across pods, as a pure function: what is left over in the cloud or in the records, and what to do about it.
//!
//! One pod's machine cannot see what nobody remembers: an instance whose record is gone, a record whose pod is gone, a record that
//! somebody changed behind its back. The driver collects a [`World`] now and then, [`plan`] compares its parts, and the driver carries
//! out the [`Plan`] without further judgement.
//!
//! Rules:
//! - **Proved ours only.** An instance is acted on only if its token is derived from its own tags ([`ownership()`]). What merely carries our
//!   cluster and node is foreign: reported, never touched.
//! - **Either word claims.** What the store names *or* a machine in memory names is claimed; a damaged record claims what it names and
//!   everything tagged with its pod.
//! - **Absence must be heard twice.** Something is acted on after [`Policy::sweeps`] sweeps in a row found it, at least
//!   [`Policy::confirm_after`] apart, so a list that lags a launch or a cache that is half filled costs nothing.
//! - **A failed listing is no listing, and an empty one is doubtful.** What is concluded from a listing that failed is nothing; what is
//!   concluded from one that is wholly empty must be heard [`Policy::sweeps_when_empty`] times.
//! - **Young things are left alone** for [`Policy::grace`].
//! - **The last word is the authority's.** A record whose instance is not listed is only asked about; the machine forgets it when
//!   the provider says `NotFound`. A record whose pod is unknown is retired only when the pods' own API knows none, and one that differs
//!   from memory is read again before it is followed or restored.

mod claims;
mod ownership;
mod policy;
mod suspects;
mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

#[cfg(feature = "driver")]
pub(crate) use ownership::token_of;
pub use ownership::{Ownership, Proof, ownership};
pub use policy::Policy;
pub use suspects::{Suspect, Suspects};
pub use world::{KnownCell, World};

use crate::ids::{CellName, InstanceId, PodRef, PodUid};
use crate::machine::elapsed;
use crate::model::{CellPhase, CellRecord, DamagedCell, Instance, InstancePhase, StoredCell};
use claims::Claims;

/// What to do now, and what to remember until the next sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// To be carried out, in this order. Each is safe to repeat.
    pub actions: Vec<PlanAction>,
    /// What would be in `actions` if [`Policy::dry_run`] were off: for a log line.
    pub withheld: Vec<PlanAction>,
    /// Instances that carry our cluster and node and are not proved ours: to be reported, never acted on.
    pub foreign: Vec<ForeignInstance>,
    /// Records that were changed by hand and that no machine in memory can restore: to be reported, never acted on.
    pub damaged: Vec<DamagedCell>,
    /// What looks left over: pass it back in the next [`World`]. Its size is the number of orphans worth a metric.
    pub suspects: Suspects,
}

/// An instance with our cluster and node in its tags that no launch of ours made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignInstance {
    /// The instance.
    pub instance: InstanceId,
    /// Why it is not taken for ours.
    pub why: &'static str,
}

/// One thing to do about something left over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PlanAction {
    /// An instance that is proved ours and that no record claims: terminate it, and repeat until the provider says `NotFound`.
    TerminateInstance {
        /// The instance.
        instance: InstanceId,
        /// The pod it was launched for, for the log.
        pod: PodUid,
    },
    /// A record whose pod is not known: if the pod's own API does not know it either, tell its machine that the pod is gone, so it
    /// terminates the instance and then forgets.
    RetireRecord {
        /// The record.
        cell: CellName,
        /// Its pod.
        pod: PodRef,
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
    /// A machine holds a record that the store lost, or that was changed there by hand: read it again, and write it as it was.
    RestoreRecord {
        /// The record.
        cell: CellName,
        /// Its pod.
        pod: PodUid,
    },
    /// The store holds a newer record than the machine: read it again, and follow it.
    Resync {
        /// The record.
        cell: CellName,
        /// Its pod.
        pod: PodUid,
    },
}

impl fmt::Display for PlanAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TerminateInstance { instance, pod } => {
                write!(
                    f,
                    "terminate instance {instance}, launched for pod {pod}: no record claims it"
                )
            }
            Self::RetireRecord { cell, pod } => {
                write!(f, "retire {cell}: its pod {pod} ({}) is not known", pod.uid)
            }
            Self::VerifyInstance { cell, instance, .. } => {
                write!(f, "ask about instance {instance} of {cell}: it was not listed")
            }
            Self::RestoreRecord { cell, pod } => {
                write!(
                    f,
                    "restore {cell} of pod {pod}: it was removed or changed by hand"
                )
            }
            Self::Resync { cell, pod } => {
                write!(f, "read {cell} of pod {pod} again: somebody else has written it")
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
        foreign: Vec::new(),
    };
    sweep.instances();
    sweep.records_without_pod();
    sweep.records_without_instance();
    let damaged = sweep.records_unlike_memory();

    let Sweep {
        next,
        mut confirmed,
        foreign,
        ..
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
        foreign,
        damaged,
        suspects: next,
    }
}

struct Sweep<'a> {
    world: &'a World,
    policy: &'a Policy,
    now: Timestamp,
    next: Suspects,
    confirmed: Vec<PlanAction>,
    foreign: Vec<ForeignInstance>,
}

impl<'a> Sweep<'a> {
    fn instances(&mut self) {
        let world = self.world;
        let claims = world.stored.as_ref().map(|stored| (stored, Claims::of(world)));
        if world.instances.is_none() || claims.is_none() {
            self.keep(|suspect| matches!(suspect, Suspect::Instance(_)));
        }
        for instance in world.instances.iter().flatten() {
            if is_leaving(instance) {
                continue;
            }
            let proof = match ownership(instance, &world.cluster, &world.node) {
                Ownership::Elsewhere => continue,
                Ownership::Foreign(why) => {
                    let instance = instance.id.clone();
                    self.foreign.push(ForeignInstance { instance, why });
                    continue;
                }
                Ownership::Proved(proof) => proof,
            };
            let Some((stored, claims)) = &claims else {
                continue;
            };
            if !self.is_young(instance.launched_at) && !claims.cover(instance, &proof) {
                let action = PlanAction::TerminateInstance {
                    instance: instance.id.clone(),
                    pod: proof.pod,
                };
                self.suspect(Suspect::Instance(instance.id.clone()), stored.is_empty(), action);
            }
        }
    }

    /// Each sound record of ours once: as memory has it, where it does, since that is what its machine can be told about.
    fn records(&self, stored: &'a [StoredCell]) -> BTreeMap<&'a CellName, &'a CellRecord> {
        let sound = stored.iter().filter_map(|stored| match stored {
            StoredCell::Sound(record) => Some(record),
            StoredCell::Damaged(_) => None,
        });
        let known = self
            .world
            .known
            .iter()
            .filter_map(|known| known.record.as_deref());
        let is_own =
            |record: &&CellRecord| record.cluster == self.world.cluster && record.node == self.world.node;
        sound
            .filter(is_own)
            .chain(known)
            .map(|record| (&record.name, record))
            .collect()
    }

    fn records_without_pod(&mut self) {
        let (Some(stored), Some(pods)) = (&self.world.stored, &self.world.pods) else {
            self.keep(|suspect| matches!(suspect, Suspect::RecordWithoutPod(_)));
            return;
        };
        for (name, record) in self.records(stored) {
            if !self.is_young(record.issued_at) && !pods.contains(&record.pod.uid) {
                let action = PlanAction::RetireRecord {
                    cell: name.clone(),
                    pod: record.pod.clone(),
                };
                self.suspect(Suspect::RecordWithoutPod(name.clone()), pods.is_empty(), action);
            }
        }
    }

    fn records_without_instance(&mut self) {
        let (Some(stored), Some(instances)) = (&self.world.stored, &self.world.instances) else {
            self.keep(|suspect| matches!(suspect, Suspect::RecordWithoutInstance(_)));
            return;
        };
        let listed: BTreeSet<&InstanceId> = instances.iter().map(|instance| &instance.id).collect();
        for (name, record) in self.records(stored) {
            // Whether it exists is the machine's own question while it launches, and while it terminates.
            let Some(instance) = &record.instance else {
                continue;
            };
            if record.phase == CellPhase::Terminating {
                continue;
            }
            if !self.is_young(record.issued_at) && !listed.contains(instance) {
                let action = PlanAction::VerifyInstance {
                    cell: name.clone(),
                    pod: record.pod.uid.clone(),
                    instance: instance.clone(),
                };
                // Only a question, so an empty listing needs no more doubt than another.
                self.suspect(Suspect::RecordWithoutInstance(name.clone()), false, action);
            }
        }
    }

    /// Compares what machines stored with what the store lists. Answers the damaged records that no machine can restore.
    fn records_unlike_memory(&mut self) -> Vec<DamagedCell> {
        let Some(stored) = &self.world.stored else {
            self.keep(|suspect| matches!(suspect, Suspect::RecordMissing(_) | Suspect::RecordUnlike(_)));
            return Vec::new();
        };
        let mut by_name: BTreeMap<&CellName, &StoredCell> =
            stored.iter().map(|stored| (stored.name(), stored)).collect();
        for known in &self.world.known {
            let name = CellName::of_pod(&known.pod);
            let was_stored = !known.version.is_empty();
            let (cell, pod) = (name.clone(), known.pod.clone());
            // The driver reads the record again before it acts on either, so an empty listing needs no more doubt than another.
            match by_name.get(&name) {
                None | Some(StoredCell::Damaged(_)) if was_stored => {
                    by_name.remove(&name);
                    let action = PlanAction::RestoreRecord { cell, pod };
                    self.suspect(Suspect::RecordMissing(name), false, action);
                }
                Some(StoredCell::Sound(record)) if record.version != known.version => {
                    let action = PlanAction::Resync { cell, pod };
                    self.suspect(Suspect::RecordUnlike(name), false, action);
                }
                None | Some(_) => {}
            }
        }
        let damaged = by_name.into_values().filter_map(|stored| match stored {
            StoredCell::Damaged(damaged) => Some(damaged.clone()),
            StoredCell::Sound(_) => None,
        });
        damaged.collect()
    }

    /// Counts one more sweep for a suspect, and confirms it when it was heard often and long enough.
    fn suspect(&mut self, suspect: Suspect, from_empty_listing: bool, action: PlanAction) {
        let sighting = self.world.suspects.seen_again(&suspect, self.now);
        let needed = if from_empty_listing {
            self.policy.sweeps_when_empty.max(self.policy.sweeps)
        } else {
            self.policy.sweeps
        };
        let is_confirmed =
            sighting.sweeps >= needed && elapsed(sighting.first, self.now) >= self.policy.confirm_after;
        #[cfg(kip_mutants)]
        let is_confirmed = is_confirmed || crate::mutants::is(crate::mutants::Mutant::OneSweep);
        if is_confirmed {
            self.confirmed.push(action);
        }
        self.next.insert(suspect, sighting);
    }

    /// A listing failed: this sweep has no opinion, so earlier sightings neither grow nor are forgotten.
    fn keep(&mut self, which: impl Fn(&Suspect) -> bool) {
        self.next.extend_from(&self.world.suspects, which);
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

//! What earlier sweeps found: the planner's memory, carried by its caller.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::{CellName, InstanceId};

/// Something that looks left over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Suspect {
    /// An instance that no record claims.
    Instance(InstanceId),
    /// A record whose pod does not exist.
    RecordWithoutPod(CellName),
    /// A record whose instance was not listed.
    RecordWithoutInstance(CellName),
    /// A record that a machine stored and the store does not list, or lists as damaged.
    RecordMissing(CellName),
    /// A record that the store lists in another version than the machine stored.
    RecordUnlike(CellName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) sweeps: u32,
    pub(super) first: Timestamp,
}

/// What earlier sweeps found. Start with the default, then pass on what each [`Plan`](super::Plan) returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects(BTreeMap<Suspect, Sighting>);

impl Suspects {
    /// How many things look left over.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing looks left over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What looks left over.
    pub fn iter(&self) -> impl Iterator<Item = &Suspect> {
        self.0.keys()
    }

    pub(super) fn seen_again(&self, suspect: &Suspect, now: Timestamp) -> Sighting {
        match self.0.get(suspect) {
            Some(before) => Sighting {
                sweeps: before.sweeps.saturating_add(1),
                first: before.first,
            },
            None => Sighting {
                sweeps: 1,
                first: now,
            },
        }
    }

    pub(super) fn insert(&mut self, suspect: Suspect, sighting: Sighting) {
        self.0.insert(suspect, sighting);
    }

    pub(super) fn extend_from(&mut self, earlier: &Self, which: impl Fn(&Suspect) -> bool) {
        for (suspect, sighting) in earlier.0.iter().filter(|(suspect, _)| which(suspect)) {
            self.0.insert(suspect.clone(), *sighting);
        }
    }
}

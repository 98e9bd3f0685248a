//! Which instances somebody stands up for.

use std::collections::BTreeSet;

use super::World;
use super::ownership::{Proof, token_of};
use crate::ids::{InstanceId, LaunchToken};
use crate::model::{CellRecord, DamagedCell, Instance, StoredCell};

/// What is claimed by the store *or* by memory. Either may be behind: a controller that was away must not take what a newer one
/// launched for left over, nor the other way round.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    ids: BTreeSet<&'a InstanceId>,
    /// Tokens of launches whose instance is not known yet.
    launching: BTreeSet<&'a LaunchToken>,
    damaged: Vec<&'a DamagedCell>,
}

impl<'a> Claims<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let mut claims = Self::default();
        for stored in world.stored.iter().flatten() {
            match stored {
                StoredCell::Sound(record) => claims.add(record),
                StoredCell::Damaged(damaged) => {
                    claims.ids.extend(&damaged.instance);
                    claims.damaged.push(damaged);
                }
            }
        }
        for known in &world.known {
            if let Some(record) = &known.record {
                claims.add(record);
            }
        }
        claims
    }

    fn add(&mut self, record: &'a CellRecord) {
        match &record.instance {
            Some(instance) => self.ids.insert(instance),
            None => self.launching.insert(&record.token),
        };
        if let Some(replaced) = &record.replaces {
            self.ids.insert(&replaced.instance);
        }
    }

    /// Whether a record names the instance, or waits for one with its token, or was damaged and may have named it. A record that
    /// knows another instance already does not claim a second one of the same token.
    pub(super) fn cover(&self, instance: &Instance, proof: &Proof) -> bool {
        self.ids.contains(&instance.id)
            || token_of(instance).is_some_and(|token| self.launching.contains(&token))
            || self.damaged.iter().any(|damaged| damaged.is_for(&proof.pod))
    }
}

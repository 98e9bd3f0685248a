//! Whether what was decided still stands, asked before what cannot be taken back: an end that is told, an instance that is bought.
//!
//! A controller may have been away without knowing: its process was stopped, its calls hung. Meanwhile another one may have led the pod
//! to its end. A write to the store finds that out by itself; what is done beside the store asks first.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::within;
use super::core::{Core, Key};
use super::persist::{Found, gone, is_same};
use super::source::Presence;
use crate::error::Result;
use crate::ids::CellName;
use crate::machine::elapsed;
use crate::model::{CellPhase, CellRecord};

/// So young a word of the source or of the store is taken for true without asking: no round trip for a pod that has just come.
const FRESH: Duration = Duration::from_secs(5);

/// How the stored record stands to the one our decisions were made upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the same.
    Same,
    /// Another decision was stored.
    Other,
    /// It was removed or changed by hand: nobody decided anything.
    Spoilt,
}

impl Core {
    /// Whether the record in the store is the one our decisions were made upon. If another decision stands there it is read again, and
    /// followed, before the pod's next step.
    pub(super) async fn standing(self: &Arc<Self>, key: &Key) -> Result<Standing> {
        let found = self.read_record(&CellName::of_pod(key)).await?;
        let ours = self.slots().get(key).and_then(|slot| slot.stored.clone());
        let standing = match (found, ours) {
            (Found::Sound(theirs), Some(ours)) if is_same(&theirs, &ours) => Standing::Same,
            (Found::Sound(_), _) => Standing::Other,
            (Found::Missing | Found::Damaged(_) | Found::Elsewhere(_), _) => Standing::Spoilt,
        };
        if standing == Standing::Other {
            self.doubt(key);
        }
        Ok(standing)
    }

    /// Whether what a launch was decided upon still stands, so that it may be sent. A record that the store has just taken vouches for itself; later,
    /// as when the launch had to wait for its turn or is repeated, record and pod are read.
    pub(super) async fn still_stands(self: &Arc<Self>, key: &Key, record: &CellRecord) -> Result<bool> {
        let confirmed_at = self.slots().get(key).and_then(|slot| slot.confirmed_at);
        if self.is_fresh(confirmed_at) {
            return Ok(true);
        }
        let asked_at = self.clock.now();
        let standing = self.standing(key).await?;
        if standing == Standing::Other {
            return Ok(false);
        }
        match self.presence(record).await? {
            Presence::Wanted if standing == Standing::Same => {
                self.confirmed(key, asked_at);
                Ok(true)
            }
            // First the record must stand again.
            Presence::Wanted => {
                self.doubt(key);
                Ok(false)
            }
            // The source's to tell: it waits to be released.
            Presence::Deleting => Ok(false),
            Presence::Gone | Presence::Ended => {
                tracing::warn!(cell = %record.name, pod = %record.pod, "the pod is not to run any more; nothing is launched");
                self.deliver(key, gone());
                Ok(false)
            }
        }
    }

    /// How a pod stands that a first record is about to be made for, if it is not to run any more. Nobody else's record stands in the way of
    /// one that is made by a controller that was away, so what the source said a while ago is not taken for true: the pod is read.
    pub(super) async fn outdates(
        &self,
        key: &Key,
        record: &CellRecord,
        basis: Option<&CellRecord>,
    ) -> Result<Option<Presence>> {
        let heard_at = self.slots().get(key).and_then(|slot| slot.heard_at);
        if self.is_fresh(heard_at) || basis.is_some() || record.phase != CellPhase::Launching {
            return Ok(None);
        }
        let presence = self.presence(record).await?;
        Ok((presence != Presence::Wanted).then_some(presence))
    }

    pub(super) async fn presence(&self, record: &CellRecord) -> Result<Presence> {
        let presence = self.source.presence(&record.pod);
        within(self.config.call_timeout, "read pod", presence).await
    }

    /// The store was asked at this time, and showed that our record stands.
    pub(super) fn confirmed(&self, key: &Key, asked_at: Timestamp) {
        if let Some(slot) = self.slots().get_mut(key) {
            slot.confirmed_at = Some(asked_at);
        }
    }

    fn is_fresh(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| elapsed(at, self.clock.now()) < FRESH)
    }
}

//! Stores records before what follows from them is done.

use std::sync::Arc;

use super::clock::Repeat;
use super::core::{Core, Key, Slot};
use super::store::StoredCell;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CellName;
use crate::machine::{Event, recover};
use crate::model::{CellPhase, CellRecord};

/// What became of one attempt to store a record.
enum Saved {
    /// Stored, in this version.
    Stored(String),
    /// Another writer went further than we did: its word counts.
    Fenced(Box<CellRecord>),
}

impl Core {
    /// Stores a record, for as long as it takes. False if the actions after it must not be done.
    pub(super) async fn save(self: &Arc<Self>, key: &Key, record: &CellRecord) -> bool {
        let Some(mut version) = self.slots().get(key).map(|slot| slot.version.clone()) else {
            return false;
        };
        let mut repeat = Repeat::new(self.config.repeat);
        loop {
            match self.try_save(record, &mut version).await {
                Ok(Saved::Stored(version)) => {
                    if let Some(slot) = self.slots().get_mut(key) {
                        slot.version = version;
                    }
                    return true;
                }
                Ok(Saved::Fenced(theirs)) => {
                    tracing::warn!(cell = %record.name, theirs = ?theirs.phase, ours = ?record.phase,
                        "another controller decided otherwise; following it");
                    self.follow_record(key, *theirs);
                    return false;
                }
                Err(error) => repeat.failed(&*self.clock, "store cell record", &error).await,
            }
        }
    }

    async fn try_save(&self, record: &CellRecord, version: &mut String) -> Result<Saved> {
        let versioned = CellRecord {
            version: version.clone(),
            ..record.clone()
        };
        let result = if version.is_empty() {
            self.store.create(&versioned).await
        } else {
            self.store.update(&versioned).await
        };
        let error = match result {
            Ok(stored) => return Ok(Saved::Stored(stored.version)),
            Err(error) => error,
        };
        match error.kind() {
            // Somebody removed it by hand; the instance it stands for may still exist.
            ErrorKind::NotFound => version.clear(),
            // An earlier try of ours whose answer was lost, or another writer.
            ErrorKind::AlreadyExists | ErrorKind::Conflict => {
                let stored = self.store.get(&record.name).await?;
                match stored.and_then(StoredCell::sound) {
                    None => version.clear(),
                    Some(theirs) if theirs.token != record.token => {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            "store cell record",
                            "a record of this name has another token",
                        )
                        .with_context("cell", &record.name));
                    }
                    Some(theirs)
                        if theirs.phase == CellPhase::Terminating
                            && record.phase != CellPhase::Terminating =>
                    {
                        return Ok(Saved::Fenced(Box::new(theirs)));
                    }
                    Some(theirs) => version.clone_from(&theirs.version),
                }
            }
            _ => {}
        }
        Err(error)
    }

    /// Goes on from what another controller stored, keeping only what the source wants.
    fn follow_record(&self, key: &Key, theirs: CellRecord) {
        let version = theirs.version.clone();
        let mut state = recover(&self.step, theirs, None, self.clock.now());
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key) else { return };
            state.pod.wanted = slot.state.pod.wanted.clone();
            state.pod.revision = slot.state.pod.revision;
            state.pod.published = slot.state.pod.published;
            let mut new = Slot::new(state, version);
            new.inbox = std::mem::take(&mut slot.inbox);
            new.watches = std::mem::take(&mut slot.watches);
            new.is_publishing = slot.is_publishing;
            *slot = new;
        }
        self.deliver(key, Event::Woke);
    }

    /// Removes a record, for as long as it takes. False if the actions after it must not be done.
    pub(super) async fn remove(self: &Arc<Self>, key: &Key, cell: &CellName) -> bool {
        let mut repeat = Repeat::new(self.config.repeat);
        loop {
            match self.store.remove(cell).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => repeat.failed(&*self.clock, "remove cell record", &error).await,
            }
        }
        if let Some(slot) = self.slots().get_mut(key) {
            slot.version.clear();
        }
        true
    }
}

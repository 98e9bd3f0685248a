//! Stores records before what follows from them is done, each write a compare-and-swap.
//!
//! The store's word counts. Whoever finds another decision there than the one its own was made upon gives its own up and goes on from
//! the store's: so of two controllers that decide at the same time one follows the other, whichever was away for how long.

use std::sync::Arc;

use super::clock::{Repeat, within};
use super::core::{Core, Key, Slot};
use super::follow::changed;
use super::source::{PodNotice, Presence};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::ids::{CellName, PodUid};
use crate::machine::{Event, Wanted};
use crate::model::{CellPhase, CellRecord, DamagedCell, StoredCell};

/// What became of one attempt to store a record.
pub(super) enum Saved {
    /// Stored, by this attempt or by an earlier one whose answer was lost.
    Stored(Box<CellRecord>),
    /// Nobody decided anything since: only the version has moved on.
    Touched(String),
    /// Another writer decided otherwise.
    Fenced(Box<CellRecord>),
    /// Somebody changed it by hand, and what it was is known.
    Damaged(DamagedCell),
    /// What stands there is not ours to write over: the instance it names may run the pod, or it is another cluster's or node's.
    Held(DamagedCell),
    /// Somebody removed it.
    Missing,
}

/// How a record was found to be when it was read again.
pub(super) enum Found {
    Missing,
    Sound(Box<CellRecord>),
    Damaged(DamagedCell),
    /// Sound, and of another cluster or node.
    Elsewhere(DamagedCell),
}

/// One record being stored, for as long as it takes.
struct Saving {
    /// What is stored as far as we know: what this decision was made upon.
    basis: Option<Arc<CellRecord>>,
    version: String,
    repeat: Repeat,
    /// How the record was found changed or removed by hand, to be told once it is restored.
    found: Option<String>,
    /// Whether the user was told that it cannot be stored.
    is_told: bool,
}

impl Core {
    /// Stores a record, for as long as it takes. False if the actions after it must not be done.
    pub(super) async fn save(self: &Arc<Self>, key: &Key, record: &Arc<CellRecord>) -> bool {
        let Some(basis) = self.slots().get(key).map(|slot| slot.stored.clone()) else {
            return false;
        };
        let mut saving = Saving {
            version: version_of(basis.as_deref()),
            basis,
            repeat: Repeat::new(self.config.repeat),
            found: None,
            is_told: false,
        };
        loop {
            let asked_at = self.clock.now();
            match self.outdates(key, record, saving.basis.as_deref()).await {
                Ok(None) => {}
                Ok(Some(presence)) => {
                    tracing::warn!(cell = %record.name, pod = %record.pod, ?presence, "the pod is not to run any more; nothing is launched");
                    self.put_back(key);
                    // That it is being deleted is the source's to tell: it waits to be released.
                    if presence != Presence::Deleting {
                        self.deliver(key, gone());
                    }
                    return false;
                }
                Err(error) => {
                    saving.repeat.failed(&*self.clock, "read pod", &error).await;
                    continue;
                }
            }
            let error = match self
                .try_save(record, &saving.version, saving.basis.as_deref())
                .await
            {
                Ok(Saved::Stored(stored)) => {
                    self.stored(key, *stored);
                    self.confirmed(key, asked_at);
                    if let Some(found) = saving.found {
                        self.restored(key, record, &found).await;
                    }
                    return true;
                }
                Ok(Saved::Touched(version)) => {
                    saving.version = version;
                    continue;
                }
                Ok(Saved::Fenced(theirs)) => {
                    self.follow_record(key, *theirs);
                    return false;
                }
                Ok(Saved::Damaged(damaged)) => {
                    saving.version.clone_from(&damaged.version);
                    saving.found = Some(changed(&damaged, saving.basis.as_deref().unwrap_or(record)));
                    continue;
                }
                Ok(Saved::Held(damaged)) => refusal(&damaged),
                Ok(Saved::Missing) => match self.pod_exists(record).await {
                    Ok(true) => {
                        saving.version.clear();
                        saving.found = Some("it was removed by hand".into());
                        continue;
                    }
                    Ok(false) => return self.go_on_without(key, record),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if is_refusal(&error) {
                if !saving.is_told {
                    saving.is_told = true;
                    tracing::error!(cell = %record.name, pod = %record.pod, error = %error.chain(),
                        "a cell's record cannot be stored; nothing is done for the pod until it can");
                    let message = format!(
                        "The record of this pod's cell, {}, cannot be stored, so nothing more is done for the pod: {error}",
                        record.name
                    );
                    let notice = PodNotice::warning("CellNotStored", message);
                    self.tell(&record.pod.uid, notice).await;
                }
                if self.give_up_intent(key, record) {
                    return false;
                }
            }
            saving
                .repeat
                .failed(&*self.clock, "store cell record", &error)
                .await;
        }
    }

    pub(super) async fn try_save(
        &self,
        record: &CellRecord,
        version: &str,
        basis: Option<&CellRecord>,
    ) -> Result<Saved> {
        let versioned = CellRecord {
            version: version.to_owned(),
            ..record.clone()
        };
        let error = match self.write_record(&versioned).await {
            Ok(stored) => return Ok(Saved::Stored(Box::new(stored))),
            Err(error) => error,
        };
        let is_answer = match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::Conflict => true,
            ErrorKind::NotFound => !version.is_empty(),
            _ => false,
        };
        if !is_answer {
            return Err(error);
        }
        Ok(match self.read_record(&record.name).await? {
            // It was there a moment ago.
            Found::Missing if version.is_empty() => return Err(error),
            Found::Missing => Saved::Missing,
            // What memory knows is put in its place. Of what it knows nothing about, only what names no instance is written over.
            Found::Damaged(damaged) if basis.is_some() || damaged.instance.is_none() => {
                Saved::Damaged(damaged)
            }
            Found::Elsewhere(damaged) if basis.is_some() => Saved::Damaged(damaged),
            Found::Damaged(damaged) | Found::Elsewhere(damaged) => Saved::Held(damaged),
            Found::Sound(theirs) if is_same(&theirs, record) => Saved::Stored(theirs),
            Found::Sound(theirs)
                if theirs.version != version && basis.is_some_and(|basis| is_same(&theirs, basis)) =>
            {
                Saved::Touched(theirs.version)
            }
            Found::Sound(theirs) if theirs.version == version => return Err(error),
            #[cfg(kip_mutants)]
            Found::Sound(theirs) if crate::mutants::is(crate::mutants::Mutant::OverwriteOnConflict) => {
                Saved::Touched(theirs.version)
            }
            Found::Sound(theirs) => Saved::Fenced(theirs),
        })
    }

    /// Creates a record that has no version, updates one that has, within the time a call may take.
    pub(super) async fn write_record(&self, record: &CellRecord) -> Result<CellRecord> {
        let limit = self.config.call_timeout;
        if record.version.is_empty() {
            within(limit, "create cell", self.store.create(record)).await
        } else {
            within(limit, "update cell", self.store.update(record)).await
        }
    }

    pub(super) async fn list_records(&self) -> Result<Vec<StoredCell>> {
        within(self.config.call_timeout, "list cells", self.store.list()).await
    }

    pub(super) async fn read_record(&self, name: &CellName) -> Result<Found> {
        let read = within(self.config.call_timeout, "read cell", self.store.get(name));
        Ok(match read.await? {
            None => Found::Missing,
            Some(StoredCell::Damaged(damaged)) => Found::Damaged(damaged),
            Some(StoredCell::Sound(record)) if !self.is_own(&record) => Found::Elsewhere(DamagedCell::of(
                &record,
                format!("it is of node {} in cluster {}", record.node, record.cluster),
            )),
            Some(StoredCell::Sound(record)) => Found::Sound(Box::new(record)),
        })
    }

    /// Whether a record is of this node in this cluster.
    pub(super) fn is_own(&self, record: &CellRecord) -> bool {
        let identity = &self.step.identity;
        record.cluster == identity.cluster && record.node == identity.node
    }

    pub(super) async fn pod_exists(&self, record: &CellRecord) -> Result<bool> {
        let presence = self.presence(record).await?;
        Ok(matches!(presence, Presence::Wanted | Presence::Deleting))
    }

    pub(super) fn stored(&self, key: &Key, stored: CellRecord) {
        if let Some(slot) = self.slots().get_mut(key) {
            slot.stored = Some(Arc::new(stored));
        }
    }

    /// Tells a user something, and does not wait for ever.
    pub(super) async fn tell(&self, pod: &PodUid, notice: PodNotice) {
        let told = async {
            self.source.notify(pod, notice).await;
            Ok(())
        };
        if let Err(error) = within(self.config.call_timeout, "notify", told).await {
            tracing::warn!(%pod, error = %error.chain(), "the user could not be told");
        }
    }

    /// Gives an intent up that cannot be stored, once its pod is to go: nothing was launched for it, so nothing keeps the pod.
    fn give_up_intent(&self, key: &Key, record: &CellRecord) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(key) else {
            return true;
        };
        let is_intent = record.phase == CellPhase::Launching && record.instance.is_none();
        if !is_intent || !slot.inbox.iter().any(|(_, event)| is_end(event)) {
            return false;
        }
        slot.put_back()
    }

    fn put_back(&self, key: &Key) {
        if let Some(slot) = self.slots().get_mut(key) {
            slot.put_back();
        }
    }

    /// Removes a record, for as long as it takes. False if the actions after it must not be done.
    pub(super) async fn remove(self: &Arc<Self>, key: &Key, cell: &CellName) -> bool {
        let stored = self.slots().get(key).and_then(|slot| slot.stored.clone());
        let Some(stored) = stored else {
            return true; // It was never stored, or somebody removed it.
        };
        let mut version = stored.version.clone();
        let mut repeat = Repeat::new(self.config.repeat);
        loop {
            let remove = self.store.remove(cell, &version);
            let mut error = match within(self.config.call_timeout, "remove cell", remove).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Conflict {
                match self.read_record(cell).await {
                    Ok(Found::Missing) => break,
                    Ok(Found::Sound(theirs)) if is_same(&theirs, &stored) => version = theirs.version,
                    Ok(Found::Sound(theirs)) => {
                        self.follow_record(key, *theirs);
                        return false;
                    }
                    // Memory knows better: what it stood for is gone.
                    Ok(Found::Damaged(damaged) | Found::Elsewhere(damaged)) => {
                        tracing::warn!(%cell, problem = damaged.problem, "a record that was changed by hand is removed: its pod is over");
                        version = damaged.version;
                    }
                    Err(unread) => error = unread,
                }
            }
            repeat.failed(&*self.clock, "remove cell record", &error).await;
        }
        if let Some(slot) = self.slots().get_mut(key) {
            slot.stored = None;
        }
        true
    }
}

impl Slot {
    /// Puts the state back in which the step that is being carried out found it. False when that is not known.
    fn put_back(&mut self) -> bool {
        let Some(mut before) = self.before.take() else {
            return false;
        };
        before.pod.revision = self.state.pod.revision;
        before.pod.published = self.state.pod.published;
        self.state = before;
        true
    }
}

/// The event that a pod is gone.
pub(super) fn gone() -> Event {
    Event::Wanted {
        wanted: Wanted::Gone,
        refresh: false,
        started_before: false,
    }
}

fn is_end(event: &Event) -> bool {
    event.is_deletion()
        || matches!(
            event,
            Event::Wanted {
                wanted: Wanted::Gone,
                ..
            }
        )
}

fn version_of(record: Option<&CellRecord>) -> String {
    record.map_or_else(String::new, |record| record.version.clone())
}

/// Whether two records say the same: marks and words for people decide nothing.
pub(super) fn is_same(one: &CellRecord, other: &CellRecord) -> bool {
    one.token == other.token && one.issued_at == other.issued_at && one.seal() == other.seal()
}

/// Whether the store refused a record for what it is or who we are, so that repeating it helps only once somebody has acted.
fn is_refusal(error: &Error) -> bool {
    !error.is_ambiguous()
        && error.retry() == Retry::Never
        && !matches!(
            error.kind(),
            ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::NotFound
        )
}

/// A record that is not ours to write over: as long as it stands, nothing may be launched for its pod.
fn refusal(damaged: &DamagedCell) -> Error {
    let remedy = match &damaged.instance {
        Some(instance) => format!("remove it once instance {instance}, which it names, is gone"),
        None => "remove it if nothing needs it".into(),
    };
    let message = format!("a record of this name stands: {}; {remedy}", damaged.problem);
    Error::new(ErrorKind::InvalidRequest, "store cell record", message).with_context("cell", &damaged.name)
}

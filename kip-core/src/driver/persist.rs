//! Stores records before what follows from them is done, each write a compare-and-swap.
//!
//! The store's word counts. Whoever finds another decision there than the one its own was made upon gives its own up and goes on from
//! the store's: so of two controllers that decide at the same time one follows the other, whichever was away for how long.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Repeat, within};
use super::core::{Core, Key, Slot};
use super::source::{PodNotice, Presence};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::ids::{CellName, PodUid};
use crate::machine::{Event, Release, Stage, Wanted, recover};
use crate::model::{CellPhase, CellRecord, DamagedCell, StoredCell};

/// What became of one attempt to store a record.
enum Saved {
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

    async fn try_save(
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

    /// Says that a record was put right again.
    pub(super) async fn restored(&self, key: &Key, record: &CellRecord, found: &str) {
        tracing::warn!(cell = %record.name, pod = %record.pod, found, "a cell's record was changed by hand and is restored");
        let message = format!(
            "Restored the record of this pod's cell, {}: {found}.",
            record.name
        );
        self.tell(key, PodNotice::warning("CellRestored", message)).await;
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

    /// Goes on from what another controller stored, keeping only what the source wants and what is no decision.
    pub(super) fn follow_record(self: &Arc<Self>, key: &Key, theirs: CellRecord) {
        tracing::warn!(cell = %theirs.name, pod = %theirs.pod, attempt = theirs.attempt, phase = ?theirs.phase,
            "another controller decided otherwise; following it");
        let stored = Arc::new(theirs.clone());
        self.begin_again(key, theirs, Some(stored));
    }

    /// Puts the state in place that follows from a record alone.
    fn begin_again(self: &Arc<Self>, key: &Key, record: CellRecord, stored: Option<Arc<CellRecord>>) {
        let token = record.token.clone();
        let mut state = recover(&self.step, record, None, self.clock.now());
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key) else { return };
            let ours = &slot.state.pod;
            let pod = &mut state.pod;
            pod.wanted = ours.wanted.clone();
            pod.revision = ours.revision;
            pod.published = ours.published;
            // What the step that was given up had asked for was not done.
            pod.release = match ours.release {
                Release::Asked => Release::No,
                release @ (Release::No | Release::Done) => release,
            };
            pod.final_since = ours.final_since;
            pod.refresh = ours.refresh;
            pod.avoid = ours.avoid.clone();
            pod.failures = ours.failures;
            pod.failed_boots = ours.failed_boots;
            pod.seen_at = ours.seen_at.min(pod.seen_at);
            // What the same host said, and what followed from it, holds whoever heard it.
            // Nor does a pod begin again whose end the source has been told.
            let is_over = matches!(slot.state.stage, Stage::Finished(_)) && ours.published >= ours.revision;
            if is_over || slot.state.record().is_some_and(|record| record.token == token) {
                pod.report.clone_from(&ours.report);
                pod.boot_id.clone_from(&ours.boot_id);
                pod.told_events = ours.told_events;
                pod.verdict = pod.verdict.take().or_else(|| ours.verdict.clone());
            }
            slot.end_watches();
            slot.state = state;
            slot.stored = stored;
            slot.before = None;
        }
        self.publish_anew(key);
        self.deliver(key, Event::Woke);
    }

    /// Has the pod's report published once more: it was held back, or what it says has changed without a step.
    fn publish_anew(self: &Arc<Self>, key: &Key) {
        if let Some(slot) = self.slots().get_mut(key)
            && !matches!(slot.state.pod.wanted, Wanted::Unknown | Wanted::Gone)
        {
            // A new revision, so that a publication just under way does not take it for done.
            slot.state.pod.revision += 1;
        }
        self.publish(key);
    }

    /// The record was removed, and so was the pod: there is nobody to store for. What remains to be done is to see the instance off;
    /// should this controller die meanwhile, its tags tell the next one that nobody claims it.
    fn go_on_without(self: &Arc<Self>, key: &Key, record: &Arc<CellRecord>) -> bool {
        tracing::warn!(cell = %record.name, pod = %record.pod, "the record was removed and its pod is gone; its instance goes too");
        if record.phase == CellPhase::Terminating {
            if let Some(slot) = self.slots().get_mut(key) {
                slot.stored = None;
            }
            // Or the machine would go on to another attempt.
            self.deliver(key, gone());
            return true;
        }
        self.begin_again(key, CellRecord::clone(record), None);
        self.deliver(key, gone());
        false
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

    /// Reads a record again that a sweep found to differ from memory, and restores or follows it.
    pub(super) async fn check(self: &Arc<Self>, key: &Key) {
        let Some(ours) = self.slots().get(key).map(|slot| slot.stored.clone()) else {
            return;
        };
        let name = CellName::of_pod(key);
        let found = match self.read_record(&name).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(cell = %name, error = %error.chain(), "the record could not be read again; the next sweep asks again");
                return;
            }
        };
        match (found, ours) {
            (Found::Sound(theirs), Some(ours)) if is_same(&theirs, &ours) => {
                self.stored(key, *theirs);
                // An end may have been held back until this was known.
                self.publish_anew(key);
            }
            (Found::Sound(theirs), _) => self.follow_record(key, *theirs),
            (Found::Missing, Some(ours)) => match self.pod_exists(&ours).await {
                Ok(true) => self.restore(key, &ours, "", "it was removed by hand").await,
                Ok(false) => {
                    if let Some(slot) = self.slots().get_mut(key) {
                        slot.stored = None;
                    }
                    self.deliver(key, gone());
                }
                Err(error) => {
                    tracing::warn!(pod = %ours.pod, error = %error.chain(), "the pod could not be read; the next sweep asks again");
                }
            },
            (Found::Damaged(damaged) | Found::Elsewhere(damaged), Some(ours)) => {
                let found = changed(&damaged, &ours);
                self.restore(key, &ours, &damaged.version, &found).await;
            }
            (Found::Missing | Found::Damaged(_) | Found::Elsewhere(_), None) => {}
        }
    }

    async fn restore(&self, key: &Key, ours: &CellRecord, version: &str, found: &str) {
        match self.try_save(ours, version, None).await {
            Ok(Saved::Stored(stored)) => {
                self.stored(key, *stored);
                self.restored(key, ours, found).await;
            }
            // It changed once more: the next sweep looks again.
            Ok(_) => {}
            Err(error) => {
                tracing::error!(cell = %ours.name, found, error = %error.chain(), "a record that was changed by hand cannot be restored");
                let message = format!(
                    "The record of this pod's cell, {}, cannot be restored: {found}; {error}",
                    ours.name
                );
                self.tell(key, PodNotice::warning("CellNotStored", message)).await;
            }
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

    /// Stops following all agents.
    fn end_watches(&mut self) {
        for watch in std::mem::take(&mut self.watches).into_values() {
            watch.abort();
        }
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

/// What a hand changed, in words.
fn changed(damaged: &DamagedCell, ours: &CellRecord) -> String {
    let problem = &damaged.problem;
    match (&damaged.instance, &ours.instance) {
        (theirs, ours) if theirs == ours => format!("it was changed by hand: {problem}"),
        (Some(theirs), Some(ours)) => {
            format!("it was changed by hand to name instance {theirs} instead of {ours}: {problem}")
        }
        (Some(theirs), None) => format!("it was changed by hand to name instance {theirs}: {problem}"),
        (None, _) => format!("it was changed by hand to name no instance: {problem}"),
    }
}

/// How long a pod's work may hold one of the workers; then it goes on beside them.
pub(super) const HOLD: Duration = Duration::from_secs(1);

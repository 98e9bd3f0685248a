//! Goes on from what is found in the store: another controller's decision is followed, what a hand spoilt is put right.

use std::sync::Arc;

use super::core::{Core, Key, Slot};
use super::persist::{Found, Saved, gone, is_same};
use super::source::PodNotice;
use crate::ids::CellName;
use crate::machine::{Event, Release, Stage, Wanted, recover};
use crate::model::{CellPhase, CellRecord, DamagedCell};

impl Core {
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
    pub(super) fn go_on_without(self: &Arc<Self>, key: &Key, record: &Arc<CellRecord>) -> bool {
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

    /// Says that a record was put right again.
    pub(super) async fn restored(&self, key: &Key, record: &CellRecord, found: &str) {
        tracing::warn!(cell = %record.name, pod = %record.pod, found, "a cell's record was changed by hand and is restored");
        let message = format!(
            "Restored the record of this pod's cell, {}: {found}.",
            record.name
        );
        self.tell(key, PodNotice::warning("CellRestored", message)).await;
    }
}

impl Slot {
    /// Stops following all agents.
    fn end_watches(&mut self) {
        for watch in std::mem::take(&mut self.watches).into_values() {
            watch.abort();
        }
    }
}

/// What a hand changed, in words.
pub(super) fn changed(damaged: &DamagedCell, ours: &CellRecord) -> String {
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

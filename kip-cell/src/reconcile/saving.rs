//! Keeps the state on disk: at once what is promised to the controller, beside the loop what only saves work after a restart.

use tokio::time::Instant;

use super::{RETRY_PAUSE, Reconciler};
use crate::store::Record;

/// What is known of the state on disk.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// What is on disk for certain; nothing when the last write failed, and may or may not have had an effect.
    record: Option<Record>,
    /// Version of the newest record that was handed to the store.
    version: u64,
    /// The write beside the loop.
    under_way: Option<Record>,
    /// When to write again after a failure.
    again_at: Option<Instant>,
}

impl Saved {
    /// The state as it was loaded.
    pub(super) fn loaded(record: Record) -> Self {
        Self {
            record: Some(record),
            ..Self::default()
        }
    }

    /// When to write again after a failure.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    fn failed(&mut self) {
        self.record = None;
        self.again_at = Some(Instant::now() + RETRY_PAUSE);
    }
}

impl Reconciler {
    fn record(&self) -> Record {
        let stop = self.held.as_ref().and_then(|held| held.stop.as_ref());
        Record {
            pod: self.held.as_ref().map(|held| (*held.pod).clone()),
            stop_deadline_ms: stop.map(|stop| stop.deadline.as_millisecond()),
            stop_reason: stop.map(|stop| stop.reason.clone()).unwrap_or_default(),
            started: self.mem.started.iter().cloned().collect(),
            ready: self.mem.ready.iter().cloned().collect(),
            marks: self.publisher.marks(),
            refused: self.refused.iter().cloned().collect(),
            start_errors: self.mem.start_errors.iter().cloned().collect(),
        }
    }

    /// Stores the state, unless it is stored already, and waits for it: what was promised to the controller must survive
    /// a crash.
    pub(super) async fn ensure_saved(&mut self) -> Result<(), String> {
        let record = self.record();
        if self.saved.record.as_ref() == Some(&record) {
            return Ok(());
        }
        self.saved.version += 1;
        let (store, version, copy) = (self.store.clone(), self.saved.version, record.clone());
        let written = match tokio::task::spawn_blocking(move || store.save(version, &copy)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(crate::error_chain(&error)),
            Err(error) => Err(format!("the agent failed inside: {error}")),
        };
        match &written {
            Ok(()) => {
                self.saved.record = Some(record);
                self.saved.again_at = None;
            }
            Err(_) => self.saved.failed(),
        }
        written
    }

    /// Stores probe results and marks beside the loop when they changed, and again what could not be stored.
    pub(super) fn save_in_background(&mut self) {
        let paused = self.saved.again_at.is_some_and(|at| at > Instant::now());
        if self.saved.under_way.is_some() || self.held.is_none() || paused {
            return;
        }
        let record = self.record();
        if self.saved.record.as_ref() == Some(&record) {
            return;
        }
        self.saved.version += 1;
        self.saved.under_way = Some(record.clone());
        let (store, version, messages) = (self.store.clone(), self.saved.version, self.messages.clone());
        tokio::task::spawn_blocking(move || {
            let result = store
                .save(version, &record)
                .map_err(|error| crate::error_chain(&error));
            let saved = super::Message::Saved { version, result };
            if messages.blocking_send(saved).is_err() {
                tracing::debug!("the reconciler ended before its state was stored");
            }
        });
    }

    /// The write beside the loop is done.
    pub(super) fn saved(&mut self, version: u64, result: Result<(), String>) {
        let record = self.saved.under_way.take();
        match result {
            // A newer one was handed to the store meanwhile: what became of that one counts.
            _ if version < self.saved.version => {}
            Ok(()) => {
                self.saved.record = record;
                self.saved.again_at = None;
            }
            Err(error) => {
                tracing::error!(error, "the state could not be stored; it is tried again");
                self.saved.failed();
            }
        }
    }
}

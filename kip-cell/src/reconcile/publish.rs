//! Publishes the status: the first change at once, what follows within a moment together with it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::{StartMarks, StatusSnapshot};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Reconciler, View};
use crate::pod::project::{self, proto_time};

/// Changes within this time of a published status are published together.
const COALESCE: Duration = Duration::from_millis(20);

/// The outgoing side.
#[derive(Debug)]
pub(super) struct Publisher {
    status: watch::Sender<Arc<StatusSnapshot>>,
    view: watch::Sender<Arc<View>>,
    marks: StartMarks,
    boot_id: String,
    published_at: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(
        boot_id: &str,
        pod_uid: Option<&str>,
        started_at: Timestamp,
        stored: Option<StartMarks>,
    ) -> (
        Self,
        watch::Receiver<Arc<StatusSnapshot>>,
        watch::Receiver<Arc<View>>,
    ) {
        let marks = stored.unwrap_or(StartMarks {
            agent_started_at: Some(proto_time(started_at)),
            ..Default::default()
        });
        let first = StatusSnapshot {
            boot_id: boot_id.into(),
            marks: Some(marks),
            pod_uid: pod_uid.unwrap_or_default().into(),
            ..Default::default()
        };
        let (status, status_receiver) = watch::channel(Arc::new(first));
        let (view, view_receiver) = watch::channel(Arc::default());
        let this = Self {
            status,
            view,
            marks,
            boot_id: boot_id.into(),
            published_at: None,
        };
        (this, status_receiver, view_receiver)
    }

    pub(super) fn deployed(&mut self, now: Timestamp) {
        self.marks.deployed_at.get_or_insert(proto_time(now));
    }

    pub(super) fn sandbox_ready(&mut self, now: Timestamp) {
        self.marks.sandbox_ready_at.get_or_insert(proto_time(now));
    }

    /// The last image counts, until the pod runs.
    pub(super) fn images_ready(&mut self, now: Timestamp) {
        if self.marks.running_at.is_none() {
            self.marks.images_ready_at = Some(proto_time(now));
        }
    }

    pub(super) fn running(&mut self, now: Timestamp) {
        self.marks.running_at.get_or_insert(proto_time(now));
    }

    pub(super) fn marks(&self) -> Option<StartMarks> {
        Some(self.marks)
    }
}

impl Reconciler {
    /// Publishes if something changed; answers when to come back if it is too soon.
    pub(super) fn publish(&mut self, now: Timestamp) -> Option<Instant> {
        // Before the first listing a restarted agent knows nothing: it says nothing rather than something wrong.
        if self.held.is_some() && !self.listed && self.runtime_down.is_none() {
            return None;
        }
        let due = self
            .publisher
            .published_at
            .map(|at| at + COALESCE)
            .filter(|due| *due > Instant::now());
        let last = self.publisher.status.borrow().clone();
        let mut next = self.snapshot(now);
        next.sequence = last.sequence;
        if next == *last {
            return None;
        }
        if due.is_some() {
            return due;
        }
        next.sequence += 1;
        let view = View {
            pod: self.held.as_ref().map(|held| held.pod.clone()),
            seen: self.seen.clone(),
        };
        self.publisher.view.send_replace(Arc::new(view));
        self.publisher.status.send_replace(Arc::new(next));
        self.publisher.published_at = Some(Instant::now());
        None
    }

    fn snapshot(&self, now: Timestamp) -> StatusSnapshot {
        let mut snapshot = StatusSnapshot {
            boot_id: self.publisher.boot_id.clone(),
            marks: self.publisher.marks(),
            events: self.events.list(),
            sandbox_error: self.sandbox_error(),
            notices: self.notices.clone(),
            ..Default::default()
        };
        let Some(held) = &self.held else { return snapshot };
        if !self.listed {
            // What the containers do is not known yet: generation 0 says so.
            snapshot.pod_uid.clone_from(&held.pod.uid);
            return snapshot;
        }
        let stopping = held.stop.is_some();
        let view = project::View {
            pod: &held.pod,
            seen: &self.seen,
            mem: &self.mem,
            stopping,
            now,
        };
        let sandbox = self.seen.sandbox();
        let newest = self.seen.sandboxes.values().max_by_key(|sandbox| sandbox.attempt);
        snapshot.pod_uid.clone_from(&held.pod.uid);
        snapshot.observed_generation = held.pod.generation;
        snapshot.sandbox_ready = sandbox.is_some();
        // The addresses of a pod that ended stay in its status.
        snapshot.pod_ips = sandbox
            .or(newest)
            .map(|sandbox| sandbox.ips.clone())
            .unwrap_or_default();
        snapshot.sandbox_started_at = sandbox.or(newest).map(|sandbox| proto_time(sandbox.created_at));
        snapshot.init_containers = project::init_statuses(view);
        snapshot.containers = project::main_statuses(view);
        snapshot.stopping = stopping;
        snapshot.stop_reason = held
            .stop
            .as_ref()
            .map(|stop| stop.reason.clone())
            .unwrap_or_default();
        snapshot.finished = self.finished;
        snapshot
    }

    fn sandbox_error(&self) -> String {
        match (&self.runtime_down, &self.mem.sandbox_failure) {
            (Some(reason), _) => reason.clone(),
            (_, Some(failure)) if self.seen.sandbox().is_none() => failure.message.clone(),
            _ => String::new(),
        }
    }
}

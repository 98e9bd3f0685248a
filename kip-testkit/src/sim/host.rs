//! One simulated host: what it was told, and what its agent reports at a given time. Plain data; time is an argument.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{InstanceId, PodUid};
use kip_core::model::{ContainerReport, ContainerState, PodManifest, RuntimeReport, StartMarks, Termination};
use kip_core::{Error, ErrorKind, Result};

use super::scenario::Work;

/// What a host was told, and what its agent does.
#[derive(Debug, Default)]
pub(super) struct Host {
    held: Option<Held>,
    /// Every pod it was ever told to run.
    pub(super) told: BTreeSet<PodUid>,
    /// Every pod it was ever told to stop.
    pub(super) stopped: BTreeSet<PodUid>,
    /// Its agent cannot be reached until then.
    pub(super) silent_until: Option<u64>,
    boots: u32,
}

#[derive(Clone, Debug)]
struct Held {
    uid: PodUid,
    generation: u64,
    work: Work,
    since: Timestamp,
    stop: Option<(Timestamp, Duration)>,
    /// Why it was first told to.
    stop_reason: String,
}

impl Host {
    pub(super) fn is_silent(&self, ms: u64) -> bool {
        self.silent_until.is_some_and(|until| ms < until)
    }

    pub(super) fn holds(&self, pod: &PodUid) -> bool {
        self.held.as_ref().is_some_and(|held| held.uid == *pod)
    }

    /// The pod it holds.
    pub(super) fn pod(&self) -> Option<&PodUid> {
        self.held.as_ref().map(|held| &held.uid)
    }

    /// Whether its pod has ended by itself or was ended.
    pub(super) fn has_finished(&self, id: &InstanceId, now: Timestamp) -> bool {
        self.held.is_some() && self.report(id, now).0.finished
    }

    /// Whether its pod was told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.stop.is_some())
    }

    /// Answers whether the pod was new to it.
    pub(super) fn deploy(&mut self, manifest: &PodManifest, work: &Work, now: Timestamp) -> Result<bool> {
        match &self.held {
            // As the agent does: a stop may overtake the deploy it is meant for.
            None if self.stopped.contains(&manifest.pod.uid) => Err(Error::new(
                ErrorKind::Conflict,
                "deploy",
                "the pod was told to stop here, and is never started here again",
            )),
            None => {
                self.held = Some(Held {
                    uid: manifest.pod.uid.clone(),
                    generation: manifest.generation,
                    work: work.clone(),
                    since: now,
                    stop: None,
                    stop_reason: String::new(),
                });
                Ok(true)
            }
            Some(held) if held.uid == manifest.pod.uid => Ok(false),
            Some(_) => Err(Error::new(
                ErrorKind::Conflict,
                "deploy",
                "the host holds another pod",
            )),
        }
    }

    pub(super) fn refresh(&mut self, manifest: &PodManifest) -> Result<()> {
        match &mut self.held {
            Some(held) if held.uid == manifest.pod.uid => {
                held.generation = held.generation.max(manifest.generation);
                Ok(())
            }
            Some(_) | None => Err(not_held("update")),
        }
    }

    pub(super) fn stop(&mut self, pod: &PodUid, grace: Duration, reason: &str, now: Timestamp) -> Result<()> {
        self.stopped.insert(pod.clone());
        let Some(held) = self.held.as_mut().filter(|held| held.uid == *pod) else {
            return Err(not_held("stop"));
        };
        if held.stop.is_none() {
            reason.clone_into(&mut held.stop_reason);
        }
        held.stop = Some(match held.stop {
            None => (now, grace),
            Some((since, before)) => (since, before.min(grace)),
        });
        Ok(())
    }

    /// The host starts anew and remembers nothing.
    pub(super) fn lose_pod(&mut self) {
        self.held = None;
        self.boots += 1;
    }

    /// What its agent reports now, and how long until that changes by itself.
    pub(super) fn report(&self, id: &InstanceId, now: Timestamp) -> (RuntimeReport, Option<Duration>) {
        let mut report = RuntimeReport {
            boot_id: format!("{id}-{}", self.boots),
            ..RuntimeReport::default()
        };
        let Some(held) = &self.held else {
            return (report, None);
        };
        let add = |at: Timestamp, by: Duration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        let work = &held.work;
        let stops_after = Duration::from_millis(work.stops_ms);
        let running_at = add(held.since, Duration::from_millis(work.starts_ms));
        let ends_itself = work
            .runs_ms
            .map(|runs| add(running_at, Duration::from_millis(runs)));
        let stopped = held.stop.map(|(at, grace)| add(at, stops_after.min(grace)));
        let was_killed = held.stop.is_some_and(|(_, grace)| stops_after > grace);
        let ended_itself =
            ends_itself.filter(|at| now >= *at && stopped.is_none_or(|stopped| *at <= stopped));
        let (state, next) = if let (Some(at), None) = (ended_itself, &work.waits_as) {
            (ended(at, work.exit_code), None)
        } else if let Some(at) = stopped.filter(|at| now >= *at) {
            (ended(at, if was_killed { 137 } else { 0 }), None)
        } else if let Some(reason) = &work.waits_as {
            let state = ContainerState::Waiting {
                reason: reason.clone(),
                message: "the image cannot be pulled".into(),
            };
            (state, stopped)
        } else if now < running_at {
            let state = ContainerState::Waiting {
                reason: "ContainerCreating".into(),
                message: String::new(),
            };
            (state, Some(stopped.map_or(running_at, |at| at.min(running_at))))
        } else {
            let next = [ends_itself, stopped].into_iter().flatten().min();
            let state = ContainerState::Running {
                started_at: running_at,
            };
            (state, next)
        };
        report.pod_uid = held.uid.as_str().into();
        report.observed_generation = held.generation;
        report.sandbox_ready = true;
        report.stopping = held.stop.is_some();
        report.stop_reason.clone_from(&held.stop_reason);
        report.marks = StartMarks {
            deployed_at: Some(held.since),
            sandbox_ready_at: Some(held.since),
            ..StartMarks::default()
        };
        if now >= running_at && work.waits_as.is_none() {
            report.marks.images_ready_at = Some(held.since);
            report.marks.running_at = Some(running_at);
        }
        report.finished = matches!(state, ContainerState::Terminated(_));
        let is_running = matches!(state, ContainerState::Running { .. });
        report.containers = vec![ContainerReport {
            name: "main".into(),
            image: "image".into(),
            image_id: String::new(),
            container_id: format!("sim://{id}"),
            restart_count: 0,
            state,
            last_state: None,
            ready: is_running,
            started: is_running,
        }];
        let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        (report, wait)
    }
}

fn not_held(operation: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "the host does not hold this pod")
}

fn ended(at: Timestamp, exit_code: i32) -> ContainerState {
    ContainerState::Terminated(Termination {
        exit_code,
        signal: 0,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        started_at: None,
        finished_at: Some(at),
        container_id: String::new(),
    })
}

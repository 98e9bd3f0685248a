//! One fake host: what it holds, and what its agent would report at a given time. Plain data; time is an argument.

use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{InstanceId, PodUid};
use kip_core::model::{
    ContainerReport, ContainerState, InstanceNotice, PodManifest, RuntimeReport, StartMarks, Termination,
};
use kip_core::{Error, ErrorKind, Result};

/// What a pod does once a host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodScript {
    /// From deploy until its container runs.
    pub starts_after: Duration,
    /// How long it runs; None is for ever.
    pub runs_for: Option<Duration>,
    /// The exit code it ends with by itself.
    pub exit_code: i32,
    /// How long it takes to end when asked to; killed with 137 when that is longer than the grace period.
    pub stops_after: Duration,
    /// Its image cannot be pulled: it waits, with this reason, for ever.
    pub waits_as: Option<String>,
}

impl Default for PodScript {
    fn default() -> Self {
        Self {
            starts_after: Duration::from_millis(100),
            runs_for: None,
            exit_code: 0,
            stops_after: Duration::from_millis(50),
            waits_as: None,
        }
    }
}

impl PodScript {
    /// Runs for so long, then ends with this code.
    pub fn ends(after: Duration, exit_code: i32) -> Self {
        Self {
            runs_for: Some(after),
            exit_code,
            ..Self::default()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) is_silent: bool,
    pub(super) starts: u32,
    pub(super) updates: u32,
    pub(super) grace: Option<Duration>,
    /// What the cloud tells on the instance itself.
    pub(super) notices: Vec<InstanceNotice>,
    held: Option<(PodManifest, Timestamp)>,
    stop_at: Option<Timestamp>,
    stop_reason: String,
}

impl Host {
    pub(super) fn pod(&self) -> Option<PodUid> {
        self.held.as_ref().map(|(manifest, _)| manifest.pod.uid.clone())
    }

    pub(super) fn holds(&self, pod: &PodUid) -> bool {
        self.held
            .as_ref()
            .is_some_and(|(manifest, _)| manifest.pod.uid == *pod)
    }

    pub(super) fn deploy(&mut self, manifest: &PodManifest, now: Timestamp) -> Result<()> {
        match &self.held {
            None => {
                self.held = Some((manifest.clone(), now));
                self.starts += 1;
                Ok(())
            }
            Some((held, _)) if held.pod.uid == manifest.pod.uid => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Conflict,
                "deploy",
                "the host holds another pod",
            )),
        }
    }

    pub(super) fn update(&mut self, manifest: &PodManifest) -> Result<()> {
        match &mut self.held {
            Some((held, _)) if held.pod.uid == manifest.pod.uid => {
                *held = manifest.clone();
                self.updates += 1;
                Ok(())
            }
            Some(_) | None => Err(Error::new(
                ErrorKind::NotFound,
                "update",
                "the host does not hold this pod",
            )),
        }
    }

    pub(super) fn stop(&mut self, pod: &PodUid, grace: Duration, reason: &str, now: Timestamp) -> Result<()> {
        if !self.holds(pod) {
            return Err(Error::new(
                ErrorKind::NotFound,
                "stop",
                "the host does not hold this pod",
            ));
        }
        if self.stop_at.is_none() {
            self.stop_at = Some(now);
            reason.clone_into(&mut self.stop_reason);
        }
        self.grace = Some(self.grace.map_or(grace, |before| before.min(grace)));
        Ok(())
    }

    /// The report now, and how long until it changes by itself.
    pub(super) fn report(
        &self,
        id: &InstanceId,
        script: &PodScript,
        now: Timestamp,
    ) -> (RuntimeReport, Option<Duration>) {
        let mut report = RuntimeReport {
            boot_id: format!("boot-{id}"),
            notices: self.notices.clone(),
            ..RuntimeReport::default()
        };
        let Some((manifest, deployed)) = &self.held else {
            return (report, None);
        };
        let add = |at: Timestamp, by: Duration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        report.pod_uid = manifest.pod.uid.as_str().into();
        report.observed_generation = manifest.generation;
        report.sandbox_ready = true;
        report.stopping = self.stop_at.is_some();
        report.stop_reason.clone_from(&self.stop_reason);
        report.marks = StartMarks {
            deployed_at: Some(*deployed),
            sandbox_ready_at: Some(*deployed),
            ..StartMarks::default()
        };
        let running_at = add(*deployed, script.starts_after);
        let ends_itself = script.runs_for.map(|runs_for| add(running_at, runs_for));
        let stopped = self.stop_at.map(|stop_at| {
            let grace = self.grace.unwrap_or_default();
            add(stop_at, script.stops_after.min(grace))
        });
        let was_killed = self.grace.is_some_and(|grace| script.stops_after > grace);
        let (state, next) = if let Some(at) = stopped.filter(|at| now >= *at) {
            (ended(at, if was_killed { 137 } else { 0 }), None)
        } else if let Some(reason) = &script.waits_as {
            let state = ContainerState::Waiting {
                reason: reason.clone(),
                message: "the script says so".into(),
            };
            (state, stopped)
        } else if now < running_at {
            let state = ContainerState::Waiting {
                reason: "ContainerCreating".into(),
                message: String::new(),
            };
            (state, Some(stopped.map_or(running_at, |at| at.min(running_at))))
        } else if let Some(at) = ends_itself.filter(|at| now >= *at) {
            (ended(at, script.exit_code), None)
        } else {
            let next = [ends_itself, stopped].into_iter().flatten().min();
            (
                ContainerState::Running {
                    started_at: running_at,
                },
                next,
            )
        };
        if now >= running_at && script.waits_as.is_none() {
            report.marks.images_ready_at = Some(*deployed);
            report.marks.running_at = Some(running_at);
        }
        report.finished = matches!(state, ContainerState::Terminated(_));
        let is_running = matches!(state, ContainerState::Running { .. });
        report.containers = vec![ContainerReport {
            name: "main".into(),
            image: "image".into(),
            image_id: String::new(),
            container_id: format!("fake://{id}"),
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

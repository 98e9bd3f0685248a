//! Takes in how a piece of work ended, and when to try again what failed.

use std::time::Duration;

use jiff::Timestamp;

use super::Reconciler;
use super::message::Done;
use crate::pod::decide::kill_grace;
use crate::pod::model::{Failure, Image, ImageState, Op, Phase, find};
use crate::pod::restart;

impl Reconciler {
    pub(super) fn done(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Volumes(Ok(remarks)) => {
                self.mem.volumes_ready = true;
                self.mem.volumes_failure = None;
                for remark in remarks {
                    self.events.warning(now, "", "VolumeRemark", remark);
                }
            }
            Done::Volumes(Err(message)) => {
                self.events.warning(now, "", "FailedMount", message.clone());
                let failure = next_failure(
                    self.mem.volumes_failure.as_ref(),
                    "FailedMount",
                    message,
                    now,
                    SANDBOX_CURVE,
                );
                self.mem.volumes_failure = Some(failure);
            }
            Done::Sandbox(Ok(sandbox)) => {
                self.touched.insert(sandbox.id.clone(), self.count);
                self.mem.sandbox_failure = None;
                self.publisher.sandbox_ready(now);
                self.seen.sandboxes.insert(sandbox.id.clone(), sandbox);
            }
            Done::Sandbox(Err(message)) => {
                self.events
                    .warning(now, "", "FailedCreatePodSandBox", message.clone());
                let failure = next_failure(
                    self.mem.sandbox_failure.as_ref(),
                    "FailedCreatePodSandBox",
                    message,
                    now,
                    SANDBOX_CURVE,
                );
                self.mem.sandbox_failure = Some(failure);
                self.relist();
            }
            Done::Image {
                container,
                image,
                result,
            } => self.image_done(container, &image, result, now),
            Done::Started { container, result } => self.started(&container, result, now),
            Done::Stopped { id, result } => {
                self.deadlines.remove(&id);
                match result {
                    Ok(Some(run)) => self.see(*run, now),
                    Ok(None) => self.relist(),
                    Err(message) => {
                        self.events.warning(
                            now,
                            "",
                            "FailedKillPod",
                            format!("error killing container: {message}"),
                        );
                        self.relist_at = tokio::time::Instant::now() + super::RETRY_PAUSE;
                    }
                }
            }
            Done::SandboxStopped { id, result: Ok(()) } => {
                self.mem.stopped_sandboxes.insert(id.clone());
                self.touched.insert(id.clone(), self.count);
                if let Some(sandbox) = self.seen.sandboxes.get_mut(&id) {
                    sandbox.ready = false;
                }
            }
            Done::ContainerRemoved { id, result: Ok(()) } => {
                self.touched.insert(id.clone(), self.count);
                self.mem.start_errors.remove(&id);
                self.seen.runs.remove(&id);
            }
            Done::SandboxRemoved { id, result: Ok(()) } => {
                self.touched.insert(id.clone(), self.count);
                self.seen.sandboxes.remove(&id);
            }
            Done::SandboxStopped {
                result: Err(message), ..
            } => {
                self.events.warning(
                    now,
                    "",
                    "FailedKillPod",
                    format!("error killing pod sandbox: {message}"),
                );
            }
            Done::ContainerRemoved {
                result: Err(message), ..
            }
            | Done::SandboxRemoved {
                result: Err(message), ..
            } => {
                tracing::warn!(message, "what is left of an earlier run could not be removed");
            }
        }
    }

    fn image_done(
        &mut self,
        container: String,
        image: &str,
        result: Result<(Image, Option<Duration>), (String, String)>,
        now: Timestamp,
    ) {
        let wanted = self
            .held
            .as_ref()
            .and_then(|held| find(&held.pod, &container))
            .map(|(_, c)| c.image.clone());
        if wanted.as_deref() != Some(image) {
            // Asked for before an update changed the image.
            return;
        }
        match result {
            Ok((found, pulled)) => {
                let message = match pulled {
                    Some(took) => format!("Successfully pulled image \"{image}\" in {} ms", took.as_millis()),
                    None => format!("Container image \"{image}\" already present on machine"),
                };
                self.events.normal(now, &container, "Pulled", message);
                self.mem.images.insert(container, ImageState::Ready(found));
                self.publisher.images_ready(now);
            }
            Err((reason, message)) => {
                let text = match reason.as_str() {
                    "ErrImagePull" => format!("Failed to pull image \"{image}\": {message}"),
                    _ => message.clone(),
                };
                self.events.warning(now, &container, "Failed", text);
                let before = match self.mem.images.get(&container) {
                    Some(ImageState::Failed(failure)) => Some(failure),
                    Some(ImageState::Ready(_)) | None => None,
                };
                let failure = next_failure(before, &reason, message, now, IMAGE_CURVE);
                self.mem.images.insert(container, ImageState::Failed(failure));
            }
        }
    }

    fn started(
        &mut self,
        container: &str,
        result: Result<(String, Result<(), String>), (String, String)>,
        now: Timestamp,
    ) {
        if !self.mem.busy.iter().any(|op| matches!(op, Op::Start(_))) {
            self.early.clear();
        }
        match result {
            Ok((id, hook)) => {
                self.mem.failures.remove(container);
                self.mem.replaced.remove(container);
                if let Err(error) = hook {
                    self.events.warning(
                        now,
                        container,
                        "FailedPostStartHook",
                        format!("PostStartHook failed: {error}"),
                    );
                    if let Some(held) = &self.held {
                        self.mem.condemned.insert(id.clone(), kill_grace(&held.pod, None));
                    }
                }
                self.mark_started();
                if self.all_running() {
                    self.publisher.running(now);
                }
            }
            Err((reason, message)) => {
                self.events
                    .warning(now, container, "Failed", format!("Error: {message}"));
                let failure = next_failure(
                    self.mem.failures.get(container),
                    &reason,
                    message,
                    now,
                    IMAGE_CURVE,
                );
                self.mem.failures.insert(container.to_owned(), failure);
                self.relist();
            }
        }
    }

    fn all_running(&self) -> bool {
        let Some(held) = &self.held else { return false };
        held.pod
            .containers
            .iter()
            .all(|container| self.seen.newest(&container.name).is_some())
    }

    /// A run without a startup probe has started once its start is done; without a readiness probe it is ready then.
    pub(super) fn mark_started(&mut self) {
        let Some(held) = &self.held else { return };
        for run in self.seen.runs.values() {
            let Some((_, container)) = find(&held.pod, &run.name) else {
                continue;
            };
            let starting = self.mem.busy.contains(&Op::Start(run.name.clone()));
            if !matches!(run.phase, Phase::Running { .. })
                || starting
                || self.mem.condemned.contains_key(&run.id)
            {
                continue;
            }
            if container.startup.is_none() {
                self.mem.started.insert(run.id.clone());
            }
            if container.readiness.is_none() && self.mem.started.contains(&run.id) {
                self.mem.ready.insert(run.id.clone());
            }
        }
    }
}

/// First and longest wait of the curves: images and containers as the kubelet, sandbox and volumes sooner.
type Curve = (Duration, Duration);
const IMAGE_CURVE: Curve = (restart::FIRST, restart::LONGEST);
const SANDBOX_CURVE: Curve = (Duration::from_secs(1), Duration::from_secs(60));

fn next_failure(
    before: Option<&Failure>,
    reason: &str,
    message: String,
    now: Timestamp,
    curve: Curve,
) -> Failure {
    let backoff = before.map_or(curve.0, |failure| failure.backoff.saturating_mul(2).min(curve.1));
    Failure {
        reason: reason.into(),
        message,
        at: now,
        backoff,
    }
}

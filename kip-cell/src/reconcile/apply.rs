//! Takes each message into the state.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::Pod;

use super::message::{Done, Message, Refusal};
use super::{Held, Reconciler, ops};
use crate::cri::{CallError, RuntimeEvent};
use crate::pod::decide::kill_grace;
use crate::pod::model::{Failure, ImageState, Observed, Op, Phase, Run, Stop, containers, find};
use crate::pod::restart;
use crate::pod::spec;
use crate::probes::{Kind, Report, Verdict};
use crate::store::Record;
use crate::volumes::Folders;

impl Reconciler {
    /// Takes one message in.
    pub(super) async fn hear(&mut self, message: Message) {
        self.count += 1;
        let now = Timestamp::now();
        match message {
            Message::Deploy(pod, reply) => answer(reply, self.deploy(*pod, now).await),
            Message::Update(pod, reply) => answer(reply, self.update(*pod, now).await),
            Message::Stop {
                pod_uid,
                deadline,
                reason,
                reply,
            } => {
                answer(reply, self.stop(&pod_uid, deadline, reason).await);
            }
            Message::Runtime(event) => self.runtime_event(event, now),
            Message::Relist => self.relist(),
            Message::Listed { began, result } => self.listed(began, result),
            Message::Seen(run) => self.see(*run, now),
            Message::Pulling { container, image } => {
                self.events
                    .normal(now, &container, "Pulling", format!("Pulling image \"{image}\""));
            }
            Message::Created { container } => {
                self.events.normal(
                    now,
                    &container,
                    "Created",
                    format!("Created container: {container}"),
                );
            }
            Message::HookFailed { container, error } => {
                self.events.warning(
                    now,
                    &container,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {error}"),
                );
            }
            Message::Done(op, done) => {
                self.work.remove(&op);
                self.mem.busy.remove(&op);
                self.done(done, now);
            }
            Message::Probe(report) => self.probed(report, now),
            Message::Saved(result) => {
                self.saving = false;
                if let Err(error) = result {
                    tracing::error!(error, "the state could not be stored");
                }
            }
        }
        self.save_in_background();
    }

    async fn deploy(&mut self, pod: Pod, now: Timestamp) -> Result<(), Refusal> {
        match &self.held {
            None => {}
            Some(held) if held.pod.uid != pod.uid => {
                return Err(Refusal::OtherPod {
                    held: held.pod.uid.clone(),
                    asked: pod.uid,
                });
            }
            Some(held) if held.pod.generation >= pod.generation => return Ok(()),
            Some(_) => return self.update(pod, now).await,
        }
        self.publisher.deployed(now);
        let folders = Folders::new(&self.setup.state_dir, &pod);
        self.held = Some(Held {
            pod: Arc::new(pod),
            folders,
            stop: None,
        });
        if let Err(error) = self.save_now().await {
            self.held = None;
            return Err(Refusal::Store(error));
        }
        // Nothing of a pod this agent was never given can be in the runtime, unless its state folder was lost.
        self.listed = false;
        self.relist();
        Ok(())
    }

    async fn update(&mut self, pod: Pod, now: Timestamp) -> Result<(), Refusal> {
        let held = self.held.as_ref().ok_or(Refusal::NoPod)?;
        if held.pod.uid != pod.uid {
            return Err(Refusal::OtherPod {
                held: held.pod.uid.clone(),
                asked: pod.uid,
            });
        }
        if held.pod.generation >= pod.generation {
            return Ok(());
        }
        let names = |pod: &Pod| {
            containers(pod)
                .map(|(kind, c)| (kind, c.name.clone()))
                .collect::<Vec<_>>()
        };
        if names(&held.pod) != names(&pod) {
            return Err(Refusal::Immutable(
                "containers: may not be added, removed or renamed".into(),
            ));
        }
        for (_, container) in containers(&pod) {
            let before = find(&held.pod, &container.name).map(|(_, before)| before.image.clone());
            if before.as_ref() != Some(&container.image) {
                self.mem.images.remove(&container.name);
                let op = Op::Image(container.name.clone());
                if let Some(task) = self.work.remove(&op) {
                    task.abort();
                }
                self.mem.busy.remove(&op);
            }
        }
        let (folders, stop) = (held.folders.clone(), held.stop.clone());
        self.held = Some(Held {
            pod: Arc::new(pod),
            folders,
            stop,
        });
        self.mem.failures.clear();
        self.mem.volumes_failure = None;
        self.mem.volumes_ready = false;
        self.abandon(&Op::Volumes);
        self.replace_changed(now);
        self.save_now().await.map_err(Refusal::Store)
    }

    /// A running container whose image changed is killed and started anew, whatever the restart policy.
    fn replace_changed(&mut self, now: Timestamp) {
        let Some(held) = &self.held else { return };
        for run in self.seen.runs.values().filter(|run| run.is_alive()) {
            let Some((_, container)) = find(&held.pod, &run.name) else {
                continue;
            };
            if container.image != run.wanted_image && !run.wanted_image.is_empty() {
                let message = format!("Container {} definition changed, will be restarted", run.name);
                self.events.normal(now, &run.name, "Killing", message);
                self.mem
                    .condemned
                    .insert(run.id.clone(), kill_grace(&held.pod, None));
                self.mem.replaced.insert(run.name.clone());
            }
        }
    }

    async fn stop(&mut self, uid: &str, deadline: Timestamp, reason: String) -> Result<(), Refusal> {
        let held = self.held.as_mut().ok_or(Refusal::NoPod)?;
        if held.pod.uid != uid {
            return Err(Refusal::OtherPod {
                held: held.pod.uid.clone(),
                asked: uid.into(),
            });
        }
        match &mut held.stop {
            Some(stop) if stop.deadline <= deadline => return Ok(()),
            Some(stop) => stop.deadline = deadline,
            None => held.stop = Some(Stop { deadline, reason }),
        }
        for running in self.deadlines.values() {
            running.send_if_modified(|current| {
                let sooner = deadline < *current;
                if sooner {
                    *current = deadline;
                }
                sooner
            });
        }
        let pulls: Vec<Op> = self
            .work
            .keys()
            .filter(|op| matches!(op, Op::Image(_) | Op::Volumes))
            .cloned()
            .collect();
        pulls.iter().for_each(|op| self.abandon(op));
        // A container that runs already and is only kept by its post-start hook can be stopped.
        let hooks: Vec<Op> = self
            .seen
            .runs
            .values()
            .filter(|run| run.is_alive())
            .map(|run| Op::Start(run.name.clone()))
            .collect();
        hooks.iter().for_each(|op| self.abandon(op));
        self.save_now().await.map_err(Refusal::Store)
    }

    fn runtime_event(&mut self, event: RuntimeEvent, now: Timestamp) {
        match event {
            RuntimeEvent::Up { name, version } => {
                tracing::info!(name, version, "the container runtime answers");
                self.runtime_down = None;
                self.runtime_was_up = true;
                self.relist();
            }
            RuntimeEvent::Down(reason) => {
                if self.runtime_down.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the container runtime does not answer");
                    // On a cell that boots it is no news to anyone that the runtime is not up yet.
                    if self.held.is_some() && self.runtime_was_up {
                        self.events.warning(now, "", "RuntimeNotReady", reason.clone());
                    }
                }
                self.runtime_down = Some(reason);
            }
            RuntimeEvent::Missed => self.relist(),
            RuntimeEvent::Changed(id) => self.changed(id),
        }
    }

    fn changed(&mut self, id: String) {
        if self.seen.sandboxes.contains_key(&id) {
            self.relist();
        } else if self.seen.runs.contains_key(&id) {
            self.refresh(id);
        } else if self.mem.busy.iter().any(|op| matches!(op, Op::Start(_))) {
            // It may be the container being started, whose id is not known yet.
            self.early.insert(id);
        }
    }

    fn refresh(&self, id: String) {
        if let Some(context) = self.context() {
            tokio::spawn(ops::refresh(context, id));
        }
    }

    fn context(&self) -> Option<ops::Context> {
        let held = self.held.as_ref()?;
        let cell = spec::Cell {
            cgroup_parent: self.setup.cgroup_parent.clone(),
            memory_bytes: self.setup.host.memory_bytes,
        };
        Some(ops::Context {
            runtime: self.setup.runtime.clone(),
            cell,
            folders: held.folders.clone(),
            pod: held.pod.clone(),
            messages: self.messages.clone(),
        })
    }

    fn listed(&mut self, began: u64, result: Result<Observed, CallError>) {
        self.listing = false;
        let listed = match result {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "the container runtime's state could not be listed");
                self.relist_at = tokio::time::Instant::now() + super::RETRY_PAUSE;
                return;
            }
        };
        self.listed = true;
        let newer = |id: &String| self.touched.get(id).is_some_and(|at| *at > began);
        let mut next = listed;
        // What was learnt after the listing began counts more than the listing.
        next.runs.retain(|id, _| !newer(id));
        next.sandboxes.retain(|id, _| !newer(id));
        let known = |held: &Held, name: &str| find(&held.pod, name).is_some();
        if let Some(held) = &self.held {
            next.runs.retain(|_, run| known(held, &run.name));
        }
        for (id, run) in &self.seen.runs {
            if newer(id) {
                next.runs.insert(id.clone(), run.clone());
            }
        }
        for (id, sandbox) in &self.seen.sandboxes {
            match next.sandboxes.get_mut(id) {
                // The address of a pod in the host's network is the agent's finding, not the runtime's.
                Some(found) if found.ips.is_empty() => found.ips.clone_from(&sandbox.ips),
                Some(_) => {}
                None if newer(id) => {
                    next.sandboxes.insert(id.clone(), sandbox.clone());
                }
                None => {}
            }
        }
        if self.held.as_ref().is_some_and(|held| held.pod.host_network) {
            for sandbox in next
                .sandboxes
                .values_mut()
                .filter(|sandbox| sandbox.ips.is_empty())
            {
                sandbox.ips.extend(crate::host::primary_address());
            }
        }
        self.seen = next;
        self.touched.clear();
        self.mark_started();
    }

    /// Takes a container in as just read.
    fn see(&mut self, run: Run, now: Timestamp) {
        self.touched.insert(run.id.clone(), self.count);
        let known = self.seen.runs.get(&run.id);
        if known.is_none() {
            match &run.phase {
                Phase::Exited(exit) if exit.reason == restart::START_ERROR => {
                    self.events
                        .warning(now, &run.name, "Failed", format!("Error: {}", exit.message));
                }
                Phase::Running { .. } | Phase::Exited(_) => {
                    self.events.normal(
                        now,
                        &run.name,
                        "Started",
                        format!("Started container {}", run.name),
                    );
                }
                Phase::Created | Phase::Unknown => {}
            }
        }
        if known.and_then(Run::exit).is_some() {
            // An end is final: a reading that was under way when it came is older.
            return;
        }
        if self.early.remove(&run.id) && run.is_alive() {
            self.refresh(run.id.clone());
        }
        if run.exit().is_some() {
            self.ended(&run, now);
        }
        let stopping = self.held.as_ref().is_some_and(|held| held.stop.is_some());
        let op = Op::Start(run.name.clone());
        let running = run.is_alive();
        self.seen.runs.insert(run.id.clone(), run);
        if stopping && running {
            // Only its post-start hook is left of the start.
            self.abandon(&op);
        }
    }

    fn ended(&mut self, run: &Run, now: Timestamp) {
        self.mem.started.remove(&run.id);
        self.mem.ready.remove(&run.id);
        self.mem.condemned.remove(&run.id);
        self.deadlines.remove(&run.id);
        let Some(held) = self.held.as_ref().filter(|held| held.stop.is_none()) else {
            return;
        };
        let (Some((kind, _)), Some(exit)) = (find(&held.pod, &run.name), run.exit()) else {
            return;
        };
        let again = restart::restarts(&held.pod.restart_policy, kind, exit.code);
        if again && restart::due_at(run).is_some_and(|due| due > now) {
            let pod = &held.pod;
            let message = format!(
                "Back-off restarting failed container {} in pod {}_{}({})",
                run.name, pod.name, pod.namespace, pod.uid
            );
            self.events.warning(now, &run.name, "BackOff", message);
        }
    }

    fn done(&mut self, done: Done, now: Timestamp) {
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
        result: Result<(crate::pod::model::Image, Option<Duration>), (String, String)>,
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
    fn mark_started(&mut self) {
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

    fn probed(&mut self, report: Report, now: Timestamp) {
        let Some(run) = self
            .seen
            .runs
            .get(&report.run_id)
            .filter(|run| run.is_alive())
            .cloned()
        else {
            return;
        };
        let Some(held) = &self.held else { return };
        let Some((_, container)) = find(&held.pod, &run.name) else {
            return;
        };
        let probe = match report.kind {
            Kind::Liveness => container.liveness.as_ref(),
            Kind::Readiness => container.readiness.as_ref(),
            Kind::Startup => container.startup.as_ref(),
        };
        match (report.verdict, report.kind) {
            (Verdict::Missed(text), kind) => {
                self.events.warning(
                    now,
                    &run.name,
                    "Unhealthy",
                    format!("{} probe failed: {text}", kind.word()),
                );
            }
            (Verdict::Passes, Kind::Startup) => {
                self.mem.started.insert(run.id);
                self.mark_started();
            }
            (Verdict::Passes, Kind::Readiness) => {
                self.mem.ready.insert(run.id);
            }
            (Verdict::Passes, Kind::Liveness) => {}
            (Verdict::Fails, Kind::Readiness) => {
                self.mem.ready.remove(&run.id);
            }
            (Verdict::Fails, kind @ (Kind::Liveness | Kind::Startup)) => {
                let grace = kill_grace(&held.pod, probe.and_then(|probe| probe.termination_grace_seconds));
                let word = kind.word().to_lowercase();
                let message = format!("Container {} failed {word} probe, will be restarted", run.name);
                self.events.normal(now, &run.name, "Killing", message);
                self.mem.condemned.insert(run.id, grace);
            }
        }
    }

    fn record(&self) -> Record {
        let alive = |ids: &std::collections::BTreeSet<String>| ids.iter().cloned().collect();
        Record {
            pod: self.held.as_ref().map(|held| (*held.pod).clone()),
            stop_deadline_ms: self
                .held
                .as_ref()
                .and_then(|held| held.stop.as_ref())
                .map(|s| s.deadline.as_millisecond()),
            stop_reason: self
                .held
                .as_ref()
                .and_then(|held| held.stop.as_ref())
                .map(|stop| stop.reason.clone())
                .unwrap_or_default(),
            started: alive(&self.mem.started),
            ready: alive(&self.mem.ready),
            marks: self.publisher.marks(),
        }
    }

    /// Stores the state and waits for it: what was promised to the controller must survive a crash.
    async fn save_now(&mut self) -> Result<(), String> {
        let record = self.record();
        self.version += 1;
        let (store, version, copy) = (self.store.clone(), self.version, record.clone());
        let saved = tokio::task::spawn_blocking(move || store.save(version, &copy)).await;
        match saved {
            Ok(Ok(())) => {
                self.saved = record;
                Ok(())
            }
            Ok(Err(error)) => Err(crate::error_chain(&error)),
            Err(error) => Err(format!("the agent failed inside: {error}")),
        }
    }

    /// Stores probe results and marks beside the loop when they changed.
    fn save_in_background(&mut self) {
        if self.saving || self.held.is_none() {
            return;
        }
        let record = self.record();
        if record == self.saved {
            return;
        }
        self.saving = true;
        self.version += 1;
        self.saved = record.clone();
        let (store, version, messages) = (self.store.clone(), self.version, self.messages.clone());
        tokio::task::spawn_blocking(move || {
            let result = store
                .save(version, &record)
                .map_err(|error| crate::error_chain(&error));
            if messages.blocking_send(Message::Saved(result)).is_err() {
                tracing::debug!("the reconciler ended before its state was stored");
            }
        });
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

fn answer(reply: super::message::Reply, result: Result<(), Refusal>) {
    // A caller that hung up does not want the answer.
    drop(reply.send(result));
}

//! The decision: what is wanted + what was seen + what is remembered -> what to do next and when to look again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::{Container, Pod};

use super::model::{Action, ImageState, Kind, Memory, Observed, Op, Phase, Run, Stop, containers, find};
use super::restart;

/// What follows from one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Steps to start now; none of them is under way already.
    pub(crate) actions: Vec<Action>,
    /// When to look again even if nothing happens.
    pub(crate) wake_at: Option<Timestamp>,
    /// Every container has ended, none will be started again, and the sandbox is gone.
    pub(crate) finished: bool,
}

/// Dead runs kept of each container: the newest and the one before it, for `previous` logs and the last state.
const KEPT_RUNS: usize = 2;

/// Decides. Total and without effects: the same arguments give the same plan.
pub(crate) fn decide(pod: &Pod, stop: Option<&Stop>, seen: &Observed, mem: &Memory, now: Timestamp) -> Plan {
    let mut plan = Planner {
        pod,
        seen,
        mem,
        now,
        plan: Plan::default(),
    };
    match stop {
        Some(stop) => plan.wind_down(stop.deadline),
        None if is_over(pod, seen, mem) => {
            let grace = SignedDuration::from_secs(i64::from(pod.termination_grace_seconds));
            plan.wind_down(now.saturating_add(grace).unwrap_or(now));
        }
        None => {
            plan.keep_up();
            plan.tidy();
        }
    }
    plan.plan
}

/// The pod ended by itself: no container will be started again.
pub(crate) fn is_over(pod: &Pod, seen: &Observed, mem: &Memory) -> bool {
    let ended_for_good = |kind: Kind, container: &Container| {
        let exit = seen.newest(&container.name).and_then(Run::exit);
        let again = |code| {
            restart::restarts(&pod.restart_policy, kind, code) || mem.replaced.contains(&container.name)
        };
        exit.map(|exit| (exit.code, again(exit.code)))
    };
    let init_failed = pod
        .init_containers
        .iter()
        .filter(|container| !container.sidecar)
        .any(|container| matches!(ended_for_good(Kind::Init, container), Some((code, false)) if code != 0));
    let all_ended = pod
        .containers
        .iter()
        .all(|container| matches!(ended_for_good(Kind::Main, container), Some((_, false))));
    // A pod that must not be restarted and lost its sandbox (the cell was rebooted) is not begun a second time.
    let lost = pod.restart_policy == "Never"
        && seen.sandbox().is_none()
        && !seen.runs.is_empty()
        && seen.runs.values().all(|run| !run.is_alive())
        && mem.replaced.is_empty();
    init_failed || all_ended || lost
}

struct Planner<'a> {
    pod: &'a Pod,
    seen: &'a Observed,
    mem: &'a Memory,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn act(&mut self, action: Action) {
        let planned = self.plan.actions.iter().any(|other| other.op() == action.op());
        if !planned && !self.mem.busy.contains(&action.op()) {
            self.plan.actions.push(action);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn busy(&self, op: &Op) -> bool {
        self.mem.busy.contains(op)
    }

    /// Ends what runs: everything but sidecars at once, then sidecars last to first, then the sandbox.
    fn wind_down(&mut self, deadline: Timestamp) {
        let starting = self
            .mem
            .busy
            .iter()
            .any(|op| matches!(op, Op::Start(_) | Op::Sandbox));
        let is_sidecar = |run: &Run| find(self.pod, &run.name).is_some_and(|(kind, _)| kind == Kind::Sidecar);
        let alive: Vec<&Run> = self.seen.runs.values().filter(|run| run.is_alive()).collect();
        let (sidecars, others): (Vec<&Run>, Vec<&Run>) = alive.iter().partition(|run| is_sidecar(run));
        if !others.is_empty() {
            for run in others {
                self.act(Action::Stop {
                    id: run.id.clone(),
                    deadline,
                });
            }
            return;
        }
        if starting {
            return;
        }
        let position = |run: &&Run| self.pod.init_containers.iter().position(|c| c.name == run.name);
        if let Some(last) = sidecars.into_iter().max_by_key(position) {
            self.act(Action::Stop {
                id: last.id.clone(),
                deadline,
            });
            return;
        }
        let ready: Vec<String> = self
            .seen
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.ready)
            .map(|sandbox| sandbox.id.clone())
            .collect();
        self.plan.finished = ready.is_empty();
        for id in ready {
            self.act(Action::StopSandbox { id });
        }
    }

    /// Brings the pod nearer to what is wanted.
    fn keep_up(&mut self) {
        if !self.mem.volumes_ready && self.past(self.mem.volumes_failure.as_ref()) {
            self.act(Action::PrepareVolumes);
        }
        let Some(sandbox_id) = self.sandbox() else {
            self.fetch_first_images();
            return;
        };
        for run in self.seen.runs.values().filter(|run| run.is_alive()) {
            self.stop_condemned(run);
        }
        self.fetch_first_images();
        let begun = self
            .pod
            .containers
            .iter()
            .any(|c| self.seen.run_in(&sandbox_id, &c.name).is_some());
        if begun {
            for container in self
                .pod
                .init_containers
                .iter()
                .filter(|container| container.sidecar)
            {
                self.ensure_running(&sandbox_id, Kind::Sidecar, container);
            }
        } else if !self.initialize(&sandbox_id) {
            return;
        }
        for container in &self.pod.containers {
            // Containers start in the order of the spec, each after the one before it has started (post-start hook
            // included); one that cannot start does not hold up the others.
            if self.ensure_running(&sandbox_id, Kind::Main, container) == Progress::Underway {
                return;
            }
        }
    }

    /// The id of the ready sandbox; starts one when there is none.
    fn sandbox(&mut self) -> Option<String> {
        if let Some(sandbox) = self.seen.sandbox() {
            return Some(sandbox.id.clone());
        }
        // Containers of a lost sandbox must be seen dead before their names are used again.
        let alive = self.seen.runs.values().any(Run::is_alive);
        if !alive && self.past(self.mem.sandbox_failure.as_ref()) {
            let attempt = self
                .seen
                .sandboxes
                .values()
                .map(|sandbox| sandbox.attempt + 1)
                .max()
                .unwrap_or(0);
            self.act(Action::RunSandbox { attempt });
        }
        None
    }

    /// Images of containers that have not run yet are looked at together, beside the sandbox's start.
    fn fetch_first_images(&mut self) {
        for (_, container) in containers(self.pod) {
            let starting = self.busy(&Op::Start(container.name.clone()));
            if self.seen.newest(&container.name).is_none() && !starting {
                self.image(container);
            }
        }
    }

    /// Runs init containers in order; true when main containers may start.
    fn initialize(&mut self, sandbox_id: &str) -> bool {
        for container in &self.pod.init_containers {
            let kind = if container.sidecar {
                Kind::Sidecar
            } else {
                Kind::Init
            };
            let run = self.seen.run_in(sandbox_id, &container.name);
            let done = match kind {
                Kind::Sidecar => run.is_some_and(|run| run.is_alive() && self.mem.started.contains(&run.id)),
                Kind::Init | Kind::Main => run.and_then(Run::exit).is_some_and(|exit| exit.code == 0),
            };
            if !done {
                self.ensure_running(sandbox_id, kind, container);
                return false;
            }
        }
        true
    }

    fn ensure_running(&mut self, sandbox_id: &str, kind: Kind, container: &Container) -> Progress {
        let name = &container.name;
        if self.busy(&Op::Start(name.clone())) {
            return Progress::Underway;
        }
        let newest = self.seen.newest(name);
        if let Some(run) = newest.filter(|run| run.sandbox_id == sandbox_id) {
            match &run.phase {
                Phase::Running { .. } | Phase::Unknown => return Progress::Settled,
                Phase::Created => {
                    // Left by an agent that died between creating and starting; made anew.
                    self.act(Action::RemoveContainer { id: run.id.clone() });
                    return Progress::Underway;
                }
                Phase::Exited(exit) => {
                    let replaced = self.mem.replaced.contains(name);
                    if !replaced && !restart::restarts(&self.pod.restart_policy, kind, exit.code) {
                        return Progress::Settled;
                    }
                    if let Some(due) = restart::due_at(run).filter(|due| !replaced && *due > self.now) {
                        self.wake(due);
                        return Progress::Settled;
                    }
                }
            }
        } else if let Some(exit) = newest.and_then(Run::exit) {
            // It ended in an earlier sandbox: what succeeded under OnFailure is not repeated.
            if kind == Kind::Main && !restart::restarts(&self.pod.restart_policy, kind, exit.code) {
                return Progress::Settled;
            }
        }
        self.start(sandbox_id, container, newest)
    }

    fn start(&mut self, sandbox_id: &str, container: &Container, newest: Option<&Run>) -> Progress {
        let name = &container.name;
        if !container.config_error.is_empty() {
            return Progress::Settled;
        }
        if !self.past(self.mem.failures.get(name)) {
            return Progress::Settled;
        }
        match self.image(container) {
            Fetch::Ready => {}
            Fetch::Underway => return Progress::Underway,
            Fetch::Failed => return Progress::Settled,
        }
        if !self.mem.volumes_ready {
            return Progress::Underway;
        }
        self.act(Action::Start {
            container: name.clone(),
            attempt: newest.map_or(0, |run| run.attempt + 1),
            backoff: restart::next_backoff(newest),
            sandbox_id: sandbox_id.into(),
        });
        Progress::Underway
    }

    /// Sees to the image of a container that is to start.
    fn image(&mut self, container: &Container) -> Fetch {
        let name = &container.name;
        if self.busy(&Op::Image(name.clone())) {
            return Fetch::Underway;
        }
        match self.mem.images.get(name) {
            Some(ImageState::Ready(_)) => return Fetch::Ready,
            Some(ImageState::Failed(failure)) if failure.retry_at() > self.now => {
                self.wake(failure.retry_at());
                // The status says first what went wrong, then that it waits: look again when that changes.
                let shown = super::project::error_shown_until(failure);
                if shown > self.now {
                    self.wake(shown);
                }
                return Fetch::Failed;
            }
            Some(ImageState::Failed(_)) | None => {}
        }
        self.act(Action::EnsureImage {
            container: name.clone(),
        });
        Fetch::Underway
    }

    /// True when there was no failure or its wait is over.
    fn past(&mut self, failure: Option<&super::model::Failure>) -> bool {
        match failure {
            Some(failure) if failure.retry_at() > self.now => {
                self.wake(failure.retry_at());
                false
            }
            Some(_) | None => true,
        }
    }

    fn stop_condemned(&mut self, run: &Run) {
        if let Some(grace) = self.mem.condemned.get(&run.id) {
            let grace = SignedDuration::try_from(*grace).unwrap_or(SignedDuration::ZERO);
            let deadline = self.now.saturating_add(grace).unwrap_or(self.now);
            self.act(Action::Stop {
                id: run.id.clone(),
                deadline,
            });
        }
    }

    /// Removes dead runs beyond the newest two, and sandboxes that are neither ready nor hold anything.
    fn tidy(&mut self) {
        for (_, container) in containers(self.pod) {
            let mut runs: Vec<&Run> = self.seen.of(&container.name).collect();
            runs.sort_by_key(|run| std::cmp::Reverse(run.attempt));
            for run in runs
                .into_iter()
                .skip(KEPT_RUNS)
                .filter(|run| run.exit().is_some())
            {
                self.act(Action::RemoveContainer { id: run.id.clone() });
            }
        }
        let current = self.seen.sandbox().map(|sandbox| sandbox.id.clone());
        for sandbox in self
            .seen
            .sandboxes
            .values()
            .filter(|sandbox| Some(&sandbox.id) != current.as_ref())
        {
            if !self.mem.stopped_sandboxes.contains(&sandbox.id) {
                self.act(Action::StopSandbox {
                    id: sandbox.id.clone(),
                });
            } else if !self.seen.runs.values().any(|run| run.sandbox_id == sandbox.id) && current.is_some() {
                self.act(Action::RemoveSandbox {
                    id: sandbox.id.clone(),
                });
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Being started: what comes after it in the spec waits.
    Underway,
    /// Runs, waits for its time, or is done.
    Settled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Ready,
    Underway,
    Failed,
}

/// The grace period of a run killed by a probe or a changed image.
pub(crate) fn kill_grace(pod: &Pod, probe_grace: Option<u32>) -> Duration {
    Duration::from_secs(u64::from(probe_grace.unwrap_or(pod.termination_grace_seconds)))
}

#[cfg(test)]
mod tests;

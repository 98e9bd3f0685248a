//! Takes in what the container runtime shows: that it is up or down, a listing, one container as just read.

use jiff::Timestamp;

use super::{Held, Reconciler, ops};
use crate::cri::{CallError, RuntimeEvent};
use crate::pod::model::{Exit, Observed, Op, Phase, Run, find};
use crate::pod::restart;

impl Reconciler {
    pub(super) fn runtime_event(&mut self, event: RuntimeEvent, now: Timestamp) {
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

    pub(super) fn listed(&mut self, began: u64, result: Result<Observed, CallError>) {
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
        let runs = std::mem::take(&mut next.runs);
        next.runs = runs
            .into_iter()
            .map(|(id, run)| (id, self.mem.counted(run)))
            .collect();
        self.seen = next;
        self.touched.clear();
        self.mark_started();
    }

    /// Takes a container in as just read.
    pub(super) fn see(&mut self, run: Run, now: Timestamp) {
        self.touched.insert(run.id.clone(), self.count);
        let started_here = self.mem.busy.contains(&Op::Start(run.name.clone()));
        if started_here && run.exit().is_some_and(Exit::is_start_error) {
            self.mem.start_errors.insert(run.id.clone());
        }
        let run = self.mem.counted(run);
        let known = self.seen.runs.get(&run.id);
        if known.is_none() {
            match &run.phase {
                Phase::Exited(exit) if exit.is_start_error() => {
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
}

//! Keeps the probes of the containers that run, and takes in what they find.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Reconciler;
use crate::pod::decide::kill_grace;
use crate::pod::model::{Op, Phase, find};
use crate::probes::{self, Kind, Report, Verdict};

impl Reconciler {
    /// Starts the probes that should run and ends those that should not.
    pub(super) fn probe_containers(&mut self) {
        let Some(held) = &self.held else { return };
        let mut wanted = BTreeMap::new();
        if held.stop.is_none() {
            for run in self.seen.runs.values() {
                let Phase::Running { started_at } = run.phase else {
                    continue;
                };
                let Some((_, container)) = find(&held.pod, &run.name) else {
                    continue;
                };
                if self.mem.condemned.contains_key(&run.id)
                    || self.mem.busy.contains(&Op::Start(run.name.clone()))
                {
                    continue;
                }
                let has_started = self.mem.started.contains(&run.id);
                let all = [
                    (Kind::Startup, container.startup.as_ref().filter(|_| !has_started)),
                    (
                        Kind::Liveness,
                        container.liveness.as_ref().filter(|_| has_started),
                    ),
                    (
                        Kind::Readiness,
                        container.readiness.as_ref().filter(|_| has_started),
                    ),
                ];
                for (kind, probe) in all {
                    if let Some(probe) = probe {
                        wanted.insert((run.id.clone(), kind), (probe.clone(), started_at));
                    }
                }
            }
        }
        self.probes.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.abort();
            }
            keep
        });
        let pod_ip = self.pod_ip();
        for ((id, kind), (probe, started_at)) in wanted {
            if self.probes.contains_key(&(id.clone(), kind)) {
                continue;
            }
            let target = probes::Target {
                runtime: self.setup.runtime.clone(),
                container_id: id.clone(),
                pod_ip: pod_ip.clone(),
            };
            let task = tokio::spawn(probes::watch(
                kind,
                probe,
                target,
                started_at,
                self.messages.clone(),
            ));
            self.probes.insert((id, kind), task.abort_handle());
        }
    }

    pub(super) fn probed(&mut self, report: Report, now: Timestamp) {
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
}

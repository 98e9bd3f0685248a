//! What must hold, checked at every effect while a story runs.

use std::collections::{BTreeMap, BTreeSet};

use kip_core::ids::{CellName, InstanceId, LaunchToken, PodUid};
use kip_core::model::{CellPhase, CellRecord, PodPhase, PodReport};
use kip_core::provider::{LaunchRequest, tags};

use super::scenario::{Fault, Part, Scenario};
use super::world::{At, State};

/// Something that must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule, in a few words.
    pub rule: &'static str,
    /// When, in milliseconds from the start.
    pub ms: u64,
    /// Names of pod and instances concerned: what to look for in the trace.
    pub about: Vec<String>,
    /// What happened, in one sentence.
    pub text: String,
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) violations: Vec<Violation>,
    /// Every token that was ever in a stored record.
    tokens: BTreeSet<LaunchToken>,
    /// Instances that a record said to be running their pod.
    ran: BTreeSet<InstanceId>,
    /// Lives of controllers whose source has told all pods.
    pub(super) synced: BTreeSet<u32>,
    /// Pods whose workload a life of a controller saw ended by itself.
    saw_finish: BTreeMap<(u32, PodUid), u64>,
    /// Writes by record.
    pub(super) writes: BTreeMap<CellName, u32>,
    /// Instances ever made, by pod.
    pub(super) made: BTreeMap<PodUid, u32>,
    is_host_path_disturbed: bool,
}

impl Judge {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let is_host_path_disturbed = scenario.faults.iter().any(|fault| match fault {
            Fault::Outage { part, .. } => *part == Part::Hosts,
            Fault::Call { op, .. } => op.part() == Part::Hosts,
            _ => false,
        });
        Self {
            is_host_path_disturbed,
            ..Self::default()
        }
    }
}

impl State {
    pub(super) fn violate(&mut self, rule: &'static str, at_ms: u64, about: Vec<String>, text: String) {
        self.note(at_ms, &format!("VIOLATION {rule}: {text}"));
        self.judge.violations.push(Violation {
            rule,
            ms: at_ms,
            about,
            text,
        });
    }

    /// A launch call reached the cloud.
    pub(super) fn judge_launch_call(&mut self, request: &LaunchRequest, at: At) {
        let pod = request.tags.get(tags::POD_UID).cloned().unwrap_or_default();
        if !self.judge.tokens.contains(&request.token) {
            self.violate(
                "launch without intent",
                at.ms,
                vec![pod.clone()],
                format!(
                    "kip-{} launches with token {} that no stored record ever had",
                    at.life, request.token
                ),
            );
        }
        let wanted = [
            tags::CLUSTER,
            tags::NODE,
            tags::POD_UID,
            tags::POD,
            tags::CELL,
            tags::TOKEN,
        ];
        for key in wanted {
            if !request.tags.contains_key(key) {
                let text = format!("kip-{} launches without tag {key}", at.life);
                self.violate("untagged launch", at.ms, vec![pod.clone()], text);
            }
        }
        if request.tags.get(tags::TOKEN).map(String::as_str) != Some(request.token.as_str()) {
            let text = format!("kip-{} launches with another token than the one it tags", at.life);
            self.violate("untagged launch", at.ms, vec![pod], text);
        }
    }

    /// A launch call is about to make an instance.
    pub(super) fn judge_new_instance(&mut self, request: &LaunchRequest, at: At) {
        let Some(uid) = request.tags.get(tags::POD_UID).map(PodUid::new) else {
            return;
        };
        *self.judge.made.entry(uid.clone()).or_default() += 1;
        // A call that was asked for before takes effect whenever the cloud likes.
        let saw_finish = self.judge.saw_finish.get(&(at.life, uid.clone()));
        if saw_finish.is_some_and(|saw| *saw < at.asked_ms) {
            let text = format!(
                "kip-{} saw {uid} end by itself, and buys another instance for it",
                at.life
            );
            self.violate(
                "second instance after the workload ended",
                at.ms,
                vec![uid.to_string()],
                text,
            );
        }
        if self
            .pods
            .get(&uid)
            .is_some_and(|pod| pod.ended_at.is_some_and(|ended| ended < at.asked_ms))
        {
            let text = format!("kip-{} buys an instance for {uid}, which has ended", at.life);
            self.violate("finished pod run again", at.ms, vec![uid.to_string()], text);
        }
        let living: Vec<String> = self
            .cloud
            .machines
            .iter()
            .filter(|(_, machine)| {
                machine.foreign.is_none()
                    && machine.is_alive(at.ms)
                    && !machine.is_leaving()
                    && machine.tag(tags::POD_UID) == Some(uid.as_str())
            })
            .map(|(id, _)| id.to_string())
            .collect();
        if living.len() >= 3 {
            let text = format!(
                "kip-{} buys a fourth instance for {uid} beside {}",
                at.life,
                living.join(", ")
            );
            self.violate("instances pile up", at.ms, vec![uid.to_string()], text);
        }
    }

    /// A terminate call reached the cloud.
    pub(super) fn judge_terminate(&mut self, id: &InstanceId, at: At) {
        let Some(machine) = self.cloud.machines.get(id) else {
            return;
        };
        if let Some(kind) = machine.foreign {
            let text = format!("kip-{} terminates {id}, which is not ours ({kind:?})", at.life);
            self.violate("foreign instance terminated", at.ms, vec![id.to_string()], text);
            return;
        }
        let host = &machine.host;
        let is_running = machine.is_alive(at.ms) && !machine.is_leaving() && !host.has_finished(id, at.now);
        let Some(uid) = host.pod().cloned().filter(|_| is_running) else {
            return;
        };
        let decided = self.records.values().any(|record| {
            let mut names = record
                .instance
                .iter()
                .chain(record.replaces.as_ref().map(|old| &old.instance));
            record.phase == CellPhase::Terminating && names.any(|name| name == id)
        });
        let about = vec![uid.to_string(), id.to_string()];
        if !self.judge.synced.contains(&at.life) && !decided {
            let text = format!(
                "kip-{} terminates {id}, which runs {uid}, before its source has spoken",
                at.life
            );
            self.violate("killed while the source is silent", at.ms, about, text);
            return;
        }
        let is_wanted = self.pods.get(&uid).is_some_and(|pod| {
            pod.deleted.is_none() && pod.ended_at.is_none() && pod.plan.active_deadline_s.is_none()
        });
        let is_blameless = !machine.is_harmed
            && !host.is_stopping()
            && !self.judge.is_host_path_disturbed
            && self.judge.ran.contains(id);
        if is_wanted && is_blameless {
            let text = format!(
                "kip-{} terminates {id}, on which {uid} runs well and is wanted",
                at.life
            );
            self.violate("healthy pod killed", at.ms, about, text);
        }
    }

    /// A pod was told to run on an instance that did not have it.
    pub(super) fn judge_deploy(&mut self, id: &InstanceId, uid: &PodUid, at: At) {
        let others: Vec<String> = self
            .cloud
            .machines
            .iter()
            .filter(|(other, machine)| {
                *other != id
                    && machine.is_alive(at.ms)
                    && machine.host.told.contains(uid)
                    && !(machine.is_leaving()
                        && (!machine.host.holds(uid) || machine.host.has_finished(other, at.now)))
            })
            .map(|(other, _)| other.to_string())
            .collect();
        if !others.is_empty() {
            let mut about = vec![uid.to_string(), id.to_string()];
            about.extend(others.iter().cloned());
            let text = format!(
                "kip-{} tells {id} to run {uid}, which {} was told before and still lives",
                at.life,
                others.join(", ")
            );
            self.violate("pod run twice", at.ms, about, text);
        }
        if self
            .pods
            .get(uid)
            .is_some_and(|pod| pod.ended_at.is_some_and(|ended| ended < at.asked_ms))
        {
            let text = format!("kip-{} tells {id} to run {uid}, which has ended", at.life);
            self.violate(
                "finished pod run again",
                at.ms,
                vec![uid.to_string(), id.to_string()],
                text,
            );
        }
        let Some(machine) = self.cloud.machines.get_mut(id) else {
            return;
        };
        let was_stopped = machine.host.stopped.contains(uid);
        machine.host.told.insert(uid.clone());
        if was_stopped {
            let text = format!(
                "kip-{} starts {uid} again on {id}, where it was told to stop",
                at.life
            );
            self.violate(
                "stopped pod started again",
                at.ms,
                vec![uid.to_string(), id.to_string()],
                text,
            );
        }
    }

    /// A controller heard from an agent that a pod ended without being asked to.
    pub(super) fn judge_heard_finish(&mut self, life: u32, uid: &PodUid, ms: u64) {
        let heard = self.judge.saw_finish.entry((life, uid.clone()));
        heard.or_insert(ms);
    }

    /// A record was created, changed or removed.
    pub(super) fn judge_record(&mut self, old: Option<&CellRecord>, new: Option<&CellRecord>, at: At) {
        if let Some(new) = new {
            // A second attempt after an offering without capacity is no ordinary life, and costs its own writes.
            if new.attempt == 1 {
                *self.judge.writes.entry(new.name.clone()).or_default() += 1;
            }
            self.judge.tokens.insert(new.token.clone());
            if new.phase == CellPhase::Running {
                self.judge.ran.extend(new.instance.clone());
            }
            if let Some(problem) = new.problem() {
                let text = format!("kip-{} stores {}: {problem}", at.life, new.name);
                self.violate("unsound record", at.ms, vec![new.pod.uid.to_string()], text);
            }
            if let Some(old) = old
                && (new.attempt < old.attempt || (new.attempt == old.attempt && new.token != old.token))
            {
                let text = format!(
                    "kip-{} changes what {} is about: attempt {}, then {}, and not a later one",
                    at.life, new.name, old.attempt, new.attempt
                );
                self.violate("decision undone", at.ms, vec![new.pod.uid.to_string()], text);
            }
        }
        let Some(old) = old else { return };
        let names = |record: &CellRecord| -> BTreeSet<InstanceId> {
            let replaced = record.replaces.as_ref().map(|replaced| replaced.instance.clone());
            record.instance.iter().cloned().chain(replaced).collect()
        };
        let kept = new.map(names).unwrap_or_default();
        for id in names(old).difference(&kept) {
            if self
                .cloud
                .machines
                .get(id)
                .is_some_and(|machine| machine.is_alive(at.ms))
            {
                let text = format!(
                    "kip-{} stores {} without {id}, which still lives",
                    at.life, old.name
                );
                let about = vec![old.pod.uid.to_string(), id.to_string()];
                self.violate("instance forgotten", at.ms, about, text);
            }
        }
    }

    /// A report about a pod was published.
    pub(super) fn judge_publish(&mut self, uid: &PodUid, report: &PodReport, at: At) {
        let about = vec![uid.to_string()];
        let container_tells = report.runtime.is_some();
        if report.phase == PodPhase::Pending
            && !container_tells
            && (report.reason.is_empty() || report.message.is_empty())
        {
            let text = format!(
                "kip-{} reports {uid} as pending with reason {:?} and message {:?}",
                at.life, report.reason, report.message
            );
            self.violate("waits in silence", at.ms, about.clone(), text);
        }
        if !matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded) {
            return;
        }
        let Some(pod) = self.pods.get(uid) else { return };
        if pod.deleted.is_some() || pod.plan.active_deadline_s.is_some() {
            return;
        }
        let running = self.cloud.machines.iter().find(|(id, machine)| {
            machine.host.holds(uid)
                && machine.is_alive(at.ms)
                && !machine.is_leaving()
                && !machine.is_harmed
                && !machine.host.is_stopping()
                && self.judge.ran.contains(*id)
                && !machine.host.has_finished(id, at.now)
        });
        if let Some((id, _)) = running {
            let text = format!(
                "kip-{} reports {uid} as {:?} ({}) while it runs well on {id}",
                at.life, report.phase, report.reason
            );
            self.violate("running pod reported ended", at.ms, about, text);
        }
    }

    /// A pod's object is removed by a controller.
    pub(super) fn judge_release(&mut self, uid: &PodUid, at: At) {
        if self.pods.get(uid).is_some_and(|pod| pod.deleted.is_none()) {
            let text = format!("kip-{} removes {uid}, which nobody deleted", at.life);
            self.violate("pod lost", at.ms, vec![uid.to_string()], text);
        }
    }
}

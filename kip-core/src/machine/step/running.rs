//! The agent has the pod: follow it, and tell silence from loss.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Turn;
use crate::ids::InstanceId;
use crate::machine::action::Action;
use crate::machine::backoff::after;
use crate::machine::event::Failure;
use crate::machine::state::{
    After, Call, Cell, DrainCause, Link, Running, Setback, SetbackKind, Stage, Verdict,
};
use crate::machine::status;
use crate::model::{Instance, PodPhase, RuntimeReport};

/// How an agent stands that was told to run the pod.
pub(super) struct Told {
    /// The connection to it.
    pub(super) link: Link,
    /// Whether a deploy is still under way.
    pub(super) is_deploying: bool,
}

impl Told {
    /// No deploy is under way.
    fn before(link: Link) -> Self {
        Self {
            link,
            is_deploying: false,
        }
    }
}

impl Turn<'_> {
    pub(super) fn run(&mut self, cell: Cell, address: IpAddr) -> Stage {
        Stage::Running(Running {
            cell,
            address: Some(address),
            link: Link::Up { last_seen: self.now },
            silent_since: None,
            is_announced: false,
            asking: false,
            ask_at: self.now,
            update: Call::Idle,
        })
    }

    pub(super) fn advance_running(&mut self, mut s: Running) -> Stage {
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::BlameInfrastructure)
            && self.pod.may_run()
            && self.pod.report.as_ref().is_some_and(|report| report.finished)
        {
            return self.lose(s.cell, SetbackKind::Lost, "its containers ended".into());
        }
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::LoseTheSilent) && s.is_announced && self.pod.may_run() {
            return self.lose(s.cell, SetbackKind::Lost, "its agent is silent".into());
        }
        if let Some(report) = self.pod.report.clone()
            && report.finished
            && !self.pod.is_held()
            && !self.pod.must_end()
        {
            // Not by us: a controller before us had it stopped, as the cloud takes the instance back. How it ended then says nothing of
            // its work: a job that exits with 0 on a signal has not succeeded.
            if report.stop_reason == DrainCause::INTERRUPTED && self.pod.may_run() {
                let why = "The pod was stopped before it had ended: its instance was being taken back.";
                return self.lose(s.cell, SetbackKind::Interrupted, why.into());
            }
            self.end(Verdict {
                phase: status::final_phase(&report),
                reason: String::new(),
                message: String::new(),
                disruption: None,
            });
        }
        let has_ended = self.pod.report.as_ref().is_some_and(|report| report.finished);
        if let (Some(cause), false) = (self.why_drain(), has_ended) {
            return Stage::Draining(self.drain(s.cell, s.address, Told::before(s.link), cause));
        }
        if self.pod.must_end() {
            return self.terminate(s.cell, After::Finish);
        }
        if let Link::Up { last_seen } = s.link
            && self.now >= after(last_seen, self.cfg.report_timeout)
        {
            s.silent_since = Some(last_seen);
            s.ask_at = after(last_seen, self.cfg.silent_deadline);
            s.link = Link::Down {
                tries: 0,
                redial_at: self.now,
                problem: "no report for too long".into(),
            };
        }
        if let (Some(since), Link::Down { problem, .. }, false) = (s.silent_since, &s.link, s.is_announced)
            && self.now >= after(since, self.cfg.silent_deadline)
        {
            let message = format!("The agent does not answer; the workload is left running: {problem}");
            self.notify(true, "AgentSilent", message);
            s.is_announced = true;
            self.visible = true;
        }
        // Without an address it can only be learned by asking; else asking is for the silent, and its answer is of use only to a
        // pod whose fate may be decided.
        let may_ask = s.address.is_none() || (s.silent_since.is_some() && !self.pod.is_held());
        if may_ask && !s.asking && self.now >= s.ask_at {
            s.asking = true;
            self.act(Action::Observe {
                attempt: s.cell.record.attempt,
                instance: s.cell.instance.clone(),
            });
        }
        if let Some(address) = s.address {
            let patience = self.cfg.redial_patience;
            let endpoint = s.cell.endpoint(address);
            self.keep_linked(&mut s.link, s.cell.record.attempt, &endpoint, patience);
            self.keep_updated(&mut s, address);
        }
        Stage::Running(s)
    }

    fn keep_updated(&mut self, s: &mut Running, address: IpAddr) {
        let tries = match s.update {
            Call::InFlight { .. } => return,
            Call::RepeatAt { tries, at } if self.now >= at => tries,
            Call::RepeatAt { .. } => return,
            Call::Idle | Call::Done if self.pod.refresh => 0,
            Call::Idle | Call::Done => return,
        };
        self.pod.refresh = false;
        s.update = Call::InFlight { tries };
        self.act(Action::Update {
            attempt: s.cell.record.attempt,
            endpoint: s.cell.endpoint(address),
        });
    }

    pub(super) fn on_updated(&mut self, stage: Stage, result: Result<(), Failure>) -> Stage {
        let Stage::Running(mut s) = stage else {
            return self.ignore(stage, "the pod does not run any more");
        };
        let Call::InFlight { tries } = s.update else {
            return self.ignore(Stage::Running(s), "no update was under way");
        };
        s.update = match result {
            Ok(()) => Call::Done,
            Err(_) => self.again(self.cfg.deploy_retry, tries, Duration::ZERO),
        };
        Stage::Running(s)
    }

    pub(super) fn on_reported(&mut self, stage: Stage, report: Arc<RuntimeReport>) -> Stage {
        match stage {
            Stage::Connecting(s) => {
                if self.is_ours(&report) {
                    self.take_report(Arc::clone(&report));
                }
                self.reported_connecting(s, &report)
            }
            Stage::Deploying(s) => {
                if self.is_ours(&report) {
                    self.take_report(Arc::clone(&report));
                }
                self.reported_deploying(s, &report)
            }
            Stage::Running(s) => self.reported_running(s, report),
            Stage::Draining(s) => self.reported_draining(s, report),
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Booting(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => self.ignore(stage, "no agent is listened to"),
        }
    }

    fn reported_running(&mut self, mut s: Running, report: Arc<RuntimeReport>) -> Stage {
        self.pod.marks.connected_at = self.pod.marks.connected_at.or(Some(self.now));
        self.visible |= s.is_announced;
        s.is_announced = false;
        s.silent_since = None;
        s.link = Link::Up { last_seen: self.now };
        if self.is_ours(&report) {
            self.take_report(report);
            return Stage::Running(s);
        }
        if !report.pod_uid.is_empty() {
            return self.ignore(Stage::Running(s), "the agent holds another pod");
        }
        match s.address {
            // Same cell, same pod: telling it again starts nothing twice.
            Some(address) if self.pod.may_run() => self.deploy(s.cell, address, s.link),
            Some(_) | None => Stage::Running(s),
        }
    }

    pub(super) fn on_disconnected(&mut self, stage: Stage, failure: Failure) -> Stage {
        match stage {
            Stage::Connecting(mut s) => {
                self.link_down(&mut s.link, failure.message);
                Stage::Connecting(s)
            }
            Stage::Deploying(mut s) => {
                self.link_down(&mut s.link, failure.message);
                Stage::Deploying(s)
            }
            Stage::Running(mut s) => {
                self.link_down(&mut s.link, failure.message);
                if s.silent_since.is_none() {
                    s.silent_since = Some(self.now);
                    s.ask_at = after(self.now, self.cfg.silent_deadline);
                }
                Stage::Running(s)
            }
            Stage::Draining(mut s) => {
                self.link_down(&mut s.link, failure.message);
                Stage::Draining(s)
            }
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Booting(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => self.ignore(stage, "no agent is listened to"),
        }
    }

    pub(super) fn on_observed(&mut self, stage: Stage, result: Result<Instance, Failure>) -> Stage {
        match stage {
            Stage::Booting(s) => self.observed_booting(s, result),
            Stage::Connecting(s) => match self.is_lost(&s.cell, &result) {
                Some(why) if self.pod.may_run() && !matches!(s.link, Link::Up { .. }) => {
                    self.fail_cell(s.cell, SetbackKind::Boot, why)
                }
                Some(_) | None => Stage::Connecting(s),
            },
            Stage::Deploying(s) => match self.is_lost(&s.cell, &result) {
                Some(why) if self.pod.may_run() && !matches!(s.link, Link::Up { .. }) => {
                    self.lose(s.cell, SetbackKind::Lost, why)
                }
                Some(_) | None => Stage::Deploying(s),
            },
            Stage::Running(s) => self.observed_running(s, result),
            Stage::Draining(s) => match self.is_lost(&s.cell, &result) {
                Some(_) if !matches!(s.link, Link::Up { .. }) => self.leave_draining(s),
                Some(_) | None => Stage::Draining(s),
            },
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => self.ignore(stage, "the instance is not asked about"),
        }
    }

    fn observed_running(&mut self, mut s: Running, result: Result<Instance, Failure>) -> Stage {
        s.asking = false;
        s.ask_at = after(self.now, self.cfg.silent_deadline);
        if let Some(why) = self.is_lost(&s.cell, &result)
            && !matches!(s.link, Link::Up { .. })
        {
            if self.pod.may_run() {
                return self.lose(s.cell, SetbackKind::Lost, why);
            }
            return Stage::Running(s);
        }
        if let (None, Ok(instance)) = (s.address, result) {
            s.address = instance.addresses.management;
            if s.address.is_none() {
                s.ask_at = after(self.now, self.cfg.observe.cap);
            }
        }
        Stage::Running(s)
    }

    /// The instance under a pod that was told to run is gone, or will be: start again elsewhere if the pod allows it.
    pub(super) fn lose(&mut self, cell: Cell, kind: SetbackKind, why: String) -> Stage {
        self.pod.failures += 1;
        if self.pod.is_restartable() {
            self.notify(true, super::starting::reason_of(kind), why.clone());
            return self.terminate(cell, After::Retry(Setback { kind, message: why }));
        }
        self.fail_by_infrastructure(super::starting::reason_of(kind), &why);
        self.terminate(cell, After::Finish)
    }

    pub(super) fn on_interrupted(
        &mut self,
        stage: Stage,
        instance: &InstanceId,
        deadline: Timestamp,
        reason: String,
    ) -> Stage {
        let is_ours = |cell: &Cell| cell.instance == *instance;
        match stage {
            Stage::Booting(s) if is_ours(&s.cell) && self.pod.may_run() => {
                self.interrupt(s.cell, None, None, deadline, reason)
            }
            Stage::Connecting(s) if is_ours(&s.cell) && self.pod.may_run() => {
                self.interrupt(s.cell, Some(s.address), None, deadline, reason)
            }
            Stage::Deploying(s) if is_ours(&s.cell) && self.pod.may_run() => {
                let told = Told {
                    link: s.link,
                    is_deploying: matches!(s.deploy, Call::InFlight { .. }),
                };
                self.interrupt(s.cell, Some(s.address), Some(told), deadline, reason)
            }
            Stage::Running(s) if is_ours(&s.cell) && self.pod.may_run() => {
                self.interrupt(s.cell, s.address, Some(Told::before(s.link)), deadline, reason)
            }
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Booting(_)
            | Stage::Connecting(_)
            | Stage::Deploying(_)
            | Stage::Running(_)
            | Stage::Draining(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => self.ignore(stage, "the interruption is of no consequence"),
        }
    }

    /// The cloud takes the instance back. `told` is how an agent stands that was told to run the pod, if one was.
    fn interrupt(
        &mut self,
        cell: Cell,
        address: Option<IpAddr>,
        told: Option<Told>,
        deadline: Timestamp,
        reason: String,
    ) -> Stage {
        let why = format!("The cloud takes the instance back: {reason}");
        self.notify(true, "Interrupted", why.clone());
        let last = deadline
            .checked_sub(self.cfg.interruption_margin)
            .unwrap_or(self.now);
        // What is taken back here is likely to be taken back again.
        let until = after(self.now, self.cfg.avoid_interrupted);
        self.pod.avoid.until(cell.record.offering.clone(), until);
        if self.pod.outgoing.is_none() && (told.is_none() || self.pod.is_restartable()) {
            return self.replace(cell, address, told, last, why);
        }
        let Some(told) = told else {
            return self.fail_cell(cell, SetbackKind::Interrupted, why);
        };
        let mut s = self.drain(cell, address, told, DrainCause::Interrupted(reason));
        self.shorten(&mut s, last);
        Stage::Draining(s)
    }
}

/// The phase a pod has ended with.
pub(super) fn ended_phase(report: Option<&RuntimeReport>) -> Option<PodPhase> {
    report.filter(|report| report.finished).map(status::final_phase)
}

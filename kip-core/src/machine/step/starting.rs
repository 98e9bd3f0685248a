//! An instance on its way to running the pod: address, agent, deploy.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::Turn;
use super::running::Told;
use crate::error::{ErrorKind, Retry};
use crate::machine::action::Action;
use crate::machine::backoff::{after, elapsed};
use crate::machine::event::Failure;
use crate::machine::state::{
    After, Booting, Call, Cell, Connecting, Deploying, DrainCause, Link, Setback, SetbackKind, Stage, Verdict,
};
use crate::model::{CellPhase, Instance, InstancePhase, PodPhase, RuntimeReport};
use crate::runtime::CellEndpoint;

impl Turn<'_> {
    pub(super) fn wait_for_address(&mut self, cell: Cell) -> Stage {
        Stage::Booting(Booting {
            cell,
            deadline: after(self.now, self.cfg.boot_deadline),
            asking: false,
            ask_at: after(self.now, self.cfg.observe.base),
            asked: 0,
        })
    }

    pub(super) fn advance_booting(&mut self, mut s: Booting) -> Stage {
        if self.pod.must_end() {
            return self.terminate(s.cell, After::Finish);
        }
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::NoBootDeadline) {
            s.deadline = Timestamp::MAX;
        }
        if self.now >= s.deadline && self.pod.may_run() {
            let minutes = self.cfg.boot_deadline.as_secs();
            let message = format!("The instance had no address within {minutes} s.");
            return self.fail_cell(s.cell, SetbackKind::Boot, message);
        }
        if !s.asking && self.now >= s.ask_at {
            s.asking = true;
            s.asked += 1;
            self.act(Action::Observe {
                attempt: s.cell.record.attempt,
                instance: s.cell.instance.clone(),
            });
        }
        Stage::Booting(s)
    }

    pub(super) fn observed_booting(&mut self, mut s: Booting, result: Result<Instance, Failure>) -> Stage {
        s.asking = false;
        s.ask_at = after(self.now, self.cfg.observe.delay(s.asked));
        if let Some(why) = self.is_lost(&s.cell, &result) {
            if self.pod.may_run() {
                return self.fail_cell(s.cell, SetbackKind::Boot, why);
            }
            return Stage::Booting(s);
        }
        match result.ok().and_then(|instance| instance.addresses.management) {
            Some(address) => self.dial_first(s.cell, address),
            None => Stage::Booting(s),
        }
    }

    /// The address is known: dial at once and keep dialling until the deadline.
    pub(super) fn dial_first(&mut self, cell: Cell, address: IpAddr) -> Stage {
        let patience = self.cfg.connect_deadline;
        self.act(Action::Connect {
            attempt: cell.record.attempt,
            endpoint: cell.endpoint(address),
            patience,
        });
        Stage::Connecting(Connecting {
            cell,
            address,
            deadline: after(self.now, patience),
            link: Link::Dialling {
                tries: 0,
                since: self.now,
            },
        })
    }

    pub(super) fn advance_connecting(&mut self, mut s: Connecting) -> Stage {
        if self.pod.must_end() {
            return self.terminate(s.cell, After::Finish);
        }
        let is_up = matches!(s.link, Link::Up { .. });
        let may_begin = self.pod.outgoing.as_ref().is_none_or(|old| old.is_over());
        #[cfg(kip_mutants)]
        let may_begin = may_begin || crate::mutants::is(crate::mutants::Mutant::DeployTooEarly);
        if is_up && self.pod.may_run() && may_begin {
            return self.deploy_first(s);
        }
        if self.now >= s.deadline && self.pod.may_run() && !is_up {
            let why = match &s.link {
                Link::Down { problem, .. } => problem.clone(),
                Link::Dialling { .. } | Link::Up { .. } => "no answer".into(),
            };
            let seconds = self.cfg.connect_deadline.as_secs();
            let message = format!("The agent did not answer within {seconds} s: {why}");
            return self.fail_cell(s.cell, SetbackKind::Boot, message);
        }
        let patience = elapsed(self.now, s.deadline).max(self.cfg.redial_patience);
        let endpoint = s.cell.endpoint(s.address);
        self.keep_linked(&mut s.link, s.cell.record.attempt, &endpoint, patience);
        Stage::Connecting(s)
    }

    pub(super) fn reported_connecting(&mut self, mut s: Connecting, report: &RuntimeReport) -> Stage {
        s.link = Link::Up { last_seen: self.now };
        self.pod.marks.connected_at = self.pod.marks.connected_at.or(Some(self.now));
        if self.is_ours(report) {
            // Told by a controller before us, or by us before the connection broke.
            if s.cell.record.phase != CellPhase::Running {
                self.save(&mut s.cell.record, |record| {
                    record.phase = CellPhase::Running;
                    record.addresses.management = Some(s.address);
                });
            }
            return self.run(s.cell, s.address);
        }
        if report.pod_uid.is_empty() {
            return Stage::Connecting(s);
        }
        let message = format!("The agent holds another pod, {}.", report.pod_uid);
        if self.pod.may_run() {
            self.fail_cell(s.cell, SetbackKind::Boot, message)
        } else {
            Stage::Connecting(s)
        }
    }

    /// The agent answers. That it is told to run the pod is recorded first.
    fn deploy_first(&mut self, mut s: Connecting) -> Stage {
        self.save(&mut s.cell.record, |record| {
            record.phase = CellPhase::Running;
            record.addresses.management = Some(s.address);
        });
        self.deploy(s.cell, s.address, s.link)
    }

    pub(super) fn deploy(&mut self, cell: Cell, address: IpAddr, link: Link) -> Stage {
        self.act(Action::Deploy {
            attempt: cell.record.attempt,
            endpoint: cell.endpoint(address),
        });
        Stage::Deploying(Deploying {
            cell,
            address,
            deadline: after(self.now, self.cfg.deploy_deadline),
            link,
            deploy: Call::InFlight { tries: 0 },
            problem: None,
        })
    }

    pub(super) fn advance_deploying(&mut self, mut s: Deploying) -> Stage {
        if let Some(cause) = self.why_drain() {
            let told = Told {
                link: s.link,
                is_deploying: matches!(s.deploy, Call::InFlight { .. }),
            };
            return Stage::Draining(self.drain(s.cell, Some(s.address), told, cause));
        }
        if self.pod.must_end() {
            return self.terminate(s.cell, After::Finish);
        }
        if self.now >= s.deadline {
            let why = s.problem.unwrap_or_else(|| "the agent never confirmed it".into());
            let seconds = self.cfg.deploy_deadline.as_secs();
            let message = format!("The pod could not be handed to its cell within {seconds} s: {why}");
            // It may have been handed over all the same: then it has run, or runs.
            if !self.pod.is_restartable() {
                return self.lose(s.cell, SetbackKind::Boot, message);
            }
            return self.fail_cell(s.cell, SetbackKind::Boot, message);
        }
        if let Call::RepeatAt { tries, at } = s.deploy
            && self.now >= at
        {
            s.deploy = Call::InFlight { tries };
            self.act(Action::Deploy {
                attempt: s.cell.record.attempt,
                endpoint: s.cell.endpoint(s.address),
            });
        }
        let patience = self.cfg.redial_patience;
        let endpoint = s.cell.endpoint(s.address);
        self.keep_linked(&mut s.link, s.cell.record.attempt, &endpoint, patience);
        Stage::Deploying(s)
    }

    pub(super) fn reported_deploying(&mut self, mut s: Deploying, report: &RuntimeReport) -> Stage {
        s.link = Link::Up { last_seen: self.now };
        if self.is_ours(report) {
            return self.run(s.cell, s.address);
        }
        if s.deploy == Call::Done && report.pod_uid.is_empty() {
            // Accepted, and still without it: the agent lost it, or this report is older than the deploy. Telling it twice is harmless.
            s.deploy = self.again(self.cfg.deploy_retry, 0, Duration::ZERO);
        }
        Stage::Deploying(s)
    }

    pub(super) fn on_deployed(&mut self, stage: Stage, result: Result<(), Failure>) -> Stage {
        let mut s = match stage {
            Stage::Deploying(s) => s,
            Stage::Draining(mut s) => {
                s.is_deploying = false;
                return Stage::Draining(s);
            }
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Booting(_)
            | Stage::Connecting(_)
            | Stage::Running(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => return self.ignore(stage, "the pod is not being deployed"),
        };
        let Call::InFlight { tries } = s.deploy else {
            return self.ignore(Stage::Deploying(s), "no deploy was under way");
        };
        match result {
            Ok(()) => s.deploy = Call::Done,
            Err(failure) if failure.kind == ErrorKind::Conflict => {
                let message = format!("The agent will not take the pod: {failure}");
                return self.fail_cell(s.cell, SetbackKind::Boot, message);
            }
            Err(failure) if failure.kind == ErrorKind::InvalidRequest && failure.retry == Retry::Never => {
                self.end(Verdict {
                    phase: PodPhase::Failed,
                    reason: "DeployRejected".into(),
                    message: format!("The pod cannot be run: {failure}"),
                    disruption: None,
                });
            }
            Err(failure) => {
                s.deploy = self.again(self.cfg.deploy_retry, tries, Duration::ZERO);
                self.visible = true;
                s.problem = Some(failure.message);
            }
        }
        Stage::Deploying(s)
    }

    /// The cell cannot be used: it goes, and unless it was one too many, another attempt follows.
    pub(super) fn fail_cell(&mut self, cell: Cell, kind: SetbackKind, message: String) -> Stage {
        self.pod.failures += 1;
        if kind == SetbackKind::Boot {
            self.pod.failed_boots += 1;
            let until = after(self.now, self.cfg.avoid_boot_failure);
            self.pod.avoid.until(cell.record.offering.clone(), until);
            if self.pod.failed_boots >= self.cfg.boot_attempts {
                let message = format!(
                    "{} cells in a row never ran the pod. {message}",
                    self.pod.failed_boots
                );
                self.fail_by_infrastructure("BootFailed", &message);
                return self.terminate(cell, After::Finish);
            }
        }
        self.notify(true, reason_of(kind), message.clone());
        self.terminate(cell, After::Retry(Setback { kind, message }))
    }

    /// Whether the provider's answer proves that the instance is gone, and how to say so.
    pub(super) fn is_lost(&self, cell: &Cell, result: &Result<Instance, Failure>) -> Option<String> {
        match result {
            Ok(instance) if instance.phase == InstancePhase::Terminated => {
                let reason = instance.reason.as_deref().unwrap_or("no reason given");
                Some(format!("Instance {} was terminated: {reason}.", cell.instance))
            }
            Err(failure) if failure.kind == ErrorKind::NotFound && self.absence_counts(cell) => {
                Some(format!("Instance {} does not exist any more.", cell.instance))
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether the instance is old enough for the cloud's `NotFound` to be believed.
    pub(super) fn absence_counts(&self, cell: &Cell) -> bool {
        self.asked_at >= self.absence_counts_at(cell)
    }

    pub(super) fn absence_counts_at(&self, cell: &Cell) -> Timestamp {
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::FirstNotFound) {
            return cell.known_at;
        }
        after(cell.known_at, self.cfg.consistency)
    }

    /// Dials again when it is time to.
    pub(super) fn keep_linked(
        &mut self,
        link: &mut Link,
        attempt: u32,
        endpoint: &CellEndpoint,
        patience: Duration,
    ) {
        if let Link::Down { tries, redial_at, .. } = link
            && self.now >= *redial_at
        {
            *link = Link::Dialling {
                tries: *tries,
                since: self.now,
            };
            self.act(Action::Connect {
                attempt,
                endpoint: endpoint.clone(),
                patience,
            });
        }
    }

    pub(super) fn link_down(&self, link: &mut Link, problem: String) {
        let tries = match link {
            Link::Dialling { tries, .. } | Link::Down { tries, .. } => tries.saturating_add(1),
            Link::Up { .. } => 1,
        };
        *link = Link::Down {
            tries,
            redial_at: after(self.now, self.cfg.redial.delay(tries)),
            problem,
        };
    }

    /// Why a pod that an agent was told to run is to be stopped in an orderly way, if it is.
    pub(super) fn why_drain(&self) -> Option<DrainCause> {
        use crate::machine::state::Wanted;
        match &self.pod.wanted {
            Wanted::Gone => None,
            Wanted::Deleted { .. } => Some(DrainCause::Deleted),
            Wanted::Unknown | Wanted::Run { .. } | Wanted::Refused { .. } => match &self.pod.verdict {
                Some(verdict) if verdict.reason == "DeadlineExceeded" => Some(DrainCause::DeadlineExceeded),
                Some(_) | None => None,
            },
        }
    }
}

pub(super) fn reason_of(kind: SetbackKind) -> &'static str {
    match kind {
        SetbackKind::Quota => "QuotaExceeded",
        SetbackKind::Launch => "LaunchFailed",
        SetbackKind::Boot => "BootFailed",
        SetbackKind::Lost => "CellLost",
        SetbackKind::Interrupted => "Interrupted",
    }
}

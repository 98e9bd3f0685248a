//! Towards the end: stop the pod, publish how it ended, terminate until the provider says the instance is gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Turn;
use super::running::{Told, ended_phase};
use crate::error::{ErrorKind, Retry};
use crate::machine::action::Action;
use crate::machine::backoff::{after, elapsed};
use crate::machine::event::Failure;
use crate::machine::state::{
    After, Call, Cell, DrainCause, Draining, Link, SetbackKind, Stage, Terminating, Verdict, Wanted,
};
use crate::model::{CellPhase, Ending, RuntimeReport};

impl Turn<'_> {
    /// Tells the agent to stop the pod.
    pub(super) fn drain(
        &mut self,
        cell: Cell,
        address: Option<IpAddr>,
        told: Told,
        cause: DrainCause,
    ) -> Draining {
        let kill_at = match &self.pod.wanted {
            Wanted::Deleted { deadline } => (*deadline).max(self.now),
            Wanted::Unknown | Wanted::Run { .. } | Wanted::Refused { .. } | Wanted::Gone => {
                after(self.now, self.cfg.stop_grace)
            }
        };
        let mut s = Draining {
            cell,
            address,
            link: told.link,
            cause,
            kill_at,
            deadline: after(kill_at, self.cfg.stop_margin),
            stop: Call::Idle,
            is_deploying: told.is_deploying,
        };
        self.send_stop(&mut s, 0);
        s
    }

    fn send_stop(&mut self, s: &mut Draining, tries: u32) {
        let Some(address) = s.address else {
            return;
        };
        s.stop = Call::InFlight { tries };
        self.act(Action::Stop {
            attempt: s.cell.record.attempt,
            endpoint: s.cell.endpoint(address),
            grace: elapsed(self.now, s.kill_at),
            reason: s.cause.as_str(),
        });
    }

    /// Brings the end of the grace period forward, never back.
    pub(super) fn shorten(&mut self, s: &mut Draining, kill_at: Timestamp) {
        let kill_at = kill_at.max(self.now);
        if kill_at < s.kill_at {
            s.kill_at = kill_at;
            s.deadline = after(kill_at, self.cfg.stop_margin);
            // A step that began the drain has just asked with the longer grace; only the shorter one counts.
            self.actions
                .retain(|action| !matches!(action, Action::Stop { .. }));
            self.send_stop(s, 0);
        }
    }

    pub(super) fn advance_draining(&mut self, mut s: Draining) -> Stage {
        let has_ended = self.pod.report.as_ref().is_some_and(|report| report.finished);
        if has_ended || matches!(self.pod.wanted, Wanted::Gone) || self.now >= s.deadline {
            return self.leave_draining(s);
        }
        if let Wanted::Deleted { deadline } = self.pod.wanted {
            if s.cause != DrainCause::Deleted {
                s.cause = DrainCause::Deleted;
            }
            self.shorten(&mut s, deadline);
        }
        if let Call::RepeatAt { tries, at } = s.stop
            && self.now >= at
        {
            self.send_stop(&mut s, tries);
        }
        if let Some(address) = s.address {
            let patience = self.cfg.redial_patience;
            let endpoint = s.cell.endpoint(address);
            self.keep_linked(&mut s.link, s.cell.record.attempt, &endpoint, patience);
        }
        Stage::Draining(s)
    }

    pub(super) fn on_stopped(&mut self, stage: Stage, result: Result<(), Failure>) -> Stage {
        let Stage::Draining(mut s) = stage else {
            return self.ignore(stage, "the pod is not being stopped");
        };
        let Call::InFlight { tries } = s.stop else {
            return self.ignore(Stage::Draining(s), "no stop was under way");
        };
        match result {
            Ok(()) => s.stop = Call::Done,
            // The agent has no such pod, and no deploy is on its way: there is nothing to wait for.
            Err(failure) if failure.kind == ErrorKind::NotFound && !s.is_deploying => {
                return self.leave_draining(s);
            }
            Err(_) => {
                s.stop = self.again(self.cfg.stop_retry, tries, Duration::ZERO);
            }
        }
        Stage::Draining(s)
    }

    pub(super) fn reported_draining(&mut self, mut s: Draining, report: Arc<RuntimeReport>) -> Stage {
        s.link = Link::Up { last_seen: self.now };
        if self.is_ours(&report) {
            self.take_report(report);
        } else if report.pod_uid.is_empty() && s.stop == Call::Done && !s.is_deploying {
            // Told to stop a pod it never had.
            return self.leave_draining(s);
        }
        Stage::Draining(s)
    }

    pub(super) fn leave_draining(&mut self, s: Draining) -> Stage {
        if let Some(phase) = ended_phase(self.pod.report.as_deref())
            && s.cause == DrainCause::Deleted
        {
            self.end(Verdict {
                phase,
                reason: String::new(),
                message: String::new(),
                disruption: None,
            });
        }
        match s.cause {
            DrainCause::Interrupted(reason) if !self.pod.must_end() => self.lose(
                s.cell,
                SetbackKind::Interrupted,
                format!("The cloud took the instance back: {reason}"),
            ),
            DrainCause::Interrupted(_) | DrainCause::Deleted | DrainCause::DeadlineExceeded => {
                self.terminate(s.cell, After::Finish)
            }
        }
    }

    /// Decides that the instance goes. The record says so just before the first terminate, and not before the end of the pod is
    /// published: until then a controller that takes over has to find the instance worth asking how the pod ended.
    pub(super) fn terminate(&mut self, mut cell: Cell, and_then: After) -> Stage {
        self.pod.marks.terminating_at = Some(self.now);
        let why = match &and_then {
            After::Finish => self.why_it_ends(),
            After::Retry(setback) => setback.message.clone(),
        };
        let record = Arc::make_mut(&mut cell.record);
        record.phase = CellPhase::Terminating;
        record.instance = Some(cell.instance.clone());
        record.reason = Some(why);
        record.ending = Some(match &and_then {
            After::Finish => Ending::Over(self.pod.verdict.clone()),
            After::Retry(_) => Ending::Again,
        });
        let attempt = cell.record.attempt;
        self.act(Action::Disconnect { attempt });
        self.visible = true;
        self.pod.refresh = false;
        Stage::Terminating(Terminating {
            cell,
            after: and_then,
            since: self.now,
            accepted: false,
            call: Call::Idle,
            problem: None,
        })
    }

    pub(super) fn why_it_ends(&self) -> String {
        match (&self.pod.verdict, &self.pod.wanted) {
            (Some(verdict), _) if !verdict.message.is_empty() => verdict.message.clone(),
            (Some(verdict), _) => format!("The pod ended: {:?}.", verdict.phase),
            (None, Wanted::Deleted { .. }) => "The pod is being deleted.".into(),
            (None, Wanted::Gone) => "The pod does not exist any more.".into(),
            (None, Wanted::Unknown | Wanted::Run { .. } | Wanted::Refused { .. }) => {
                "It is not needed.".into()
            }
        }
    }

    pub(super) fn advance_terminating(&mut self, mut s: Terminating) -> Stage {
        let tries = match s.call {
            Call::Idle => {
                // While the instance exists its agent can still be asked how the pod ended; afterwards only the API knows.
                let has_reader = matches!(self.pod.wanted, Wanted::Run { .. } | Wanted::Deleted { .. });
                if has_reader
                    && s.after == After::Finish
                    && !self.is_published()
                    && self.now < after(s.since, self.cfg.publish_patience)
                {
                    return Stage::Terminating(s);
                }
                self.save(&mut s.cell.record, |_| ());
                0
            }
            Call::RepeatAt { tries, at } if self.now >= at => tries,
            Call::RepeatAt { .. } | Call::InFlight { .. } | Call::Done => return Stage::Terminating(s),
        };
        s.call = Call::InFlight { tries };
        self.act(Action::Terminate {
            attempt: s.cell.record.attempt,
            instance: s.cell.instance.clone(),
        });
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::ForgetFinalizer) && self.pod.must_end() {
            self.act(Action::Remove {
                cell: s.cell.record.name.clone(),
            });
        }
        Stage::Terminating(s)
    }

    pub(super) fn on_terminated(&mut self, stage: Stage, result: Result<(), Failure>) -> Stage {
        let Stage::Terminating(mut s) = stage else {
            return self.ignore(stage, "the instance is not being terminated");
        };
        let Call::InFlight { tries } = s.call else {
            return self.ignore(Stage::Terminating(s), "no terminate was under way");
        };
        let mut hint = Duration::ZERO;
        match result {
            #[cfg(kip_mutants)]
            Ok(()) if crate::mutants::is(crate::mutants::Mutant::ForgetOnAccepted) => return self.gone(s),
            Ok(()) => {
                s.accepted = true;
                s.problem = None;
            }
            Err(failure) if failure.kind == ErrorKind::NotFound => {
                // A cloud that took the request says so only once it is sure: what it launched a moment ago it does not call gone.
                if s.accepted || self.absence_counts(&s.cell) {
                    return self.gone(s);
                }
            }
            Err(failure) => {
                if let Retry::After(Some(wait)) = failure.retry {
                    hint = wait;
                }
                // Once, when it starts to look like more than a hiccup: it costs money until somebody helps.
                if tries == 8 {
                    self.notify(
                        true,
                        "TerminateFailed",
                        format!("Instance {} cannot be terminated: {failure}", s.cell.instance),
                    );
                }
                s.problem = Some(failure.message);
            }
        }
        s.call = self.again(self.cfg.terminate_repeat, tries, hint);
        Stage::Terminating(s)
    }

    /// The provider said that the instance is gone: only now its id may be forgotten.
    fn gone(&mut self, s: Terminating) -> Stage {
        self.pod.kept = Some(s.cell.record);
        match s.after {
            After::Finish | After::Retry(_) if self.pod.must_end() => self.finish(),
            // Ended by a controller before us for a reason that the source does not know of: then it is to run.
            After::Finish => self.fresh_pending(),
            After::Retry(cause) => self.back_off(cause),
        }
    }
}

//! Beside the next attempt: an interrupted cell is stopped with the time it has left, and terminated.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Turn;
use super::running::{Told, ended_phase};
use crate::error::{ErrorKind, Retry};
use crate::machine::action::Action;
use crate::machine::backoff::{after, elapsed};
use crate::machine::event::{Event, Failure};
use crate::machine::state::{
    Call, Cell, DrainCause, Link, Outgoing, Setback, SetbackKind, Stage, Verdict, Wanted,
};
use crate::model::{CellPhase, Ending, InstancePhase, Replaced, RuntimeReport};
use crate::runtime::CellEndpoint;

impl Turn<'_> {
    /// Begins the next attempt at once, while the interrupted cell still drains. Until the next attempt is recorded the record says what
    /// it said: a controller that takes over finds the cell as it is, and is told of the interruption or finds the instance gone.
    pub(super) fn replace(
        &mut self,
        cell: Cell,
        address: Option<IpAddr>,
        told: Option<Told>,
        last: Timestamp,
        why: String,
    ) -> Stage {
        let kill_at = last.min(after(self.now, self.cfg.stop_grace)).max(self.now);
        let has_ended = told.is_none();
        self.pod.outgoing = Some(Box::new(Outgoing {
            replaced: Replaced {
                attempt: cell.record.attempt,
                token: cell.record.token.clone(),
                instance: cell.instance.clone(),
                address,
            },
            absence_counts_at: self.absence_counts_at(&cell),
            why: why.clone(),
            kill_at,
            deadline: after(kill_at, self.cfg.stop_margin),
            is_deploying: told.as_ref().is_some_and(|told| told.is_deploying),
            link: told.map_or_else(
                || Link::Down {
                    tries: 0,
                    redial_at: Timestamp::MAX,
                    problem: String::new(),
                },
                |told| told.link,
            ),
            stop: Call::Idle,
            has_ended,
            terminating_since: None,
            terminate: Call::Idle,
            accepted: false,
        }));
        self.pod.kept = Some(cell.record);
        self.pod.failures += 1;
        self.pod.refresh = false;
        self.visible = true;
        self.advance_outgoing();
        // Twice before without the pod running for some minutes: no longer at once, or a cloud that takes everything back is paid without end.
        if self.pod.failures > 2 {
            let kind = SetbackKind::Launch;
            return self.back_off(Setback { kind, message: why });
        }
        self.fresh_pending()
    }

    pub(super) fn advance_outgoing(&mut self) {
        let Some(mut old) = self.pod.outgoing.take() else {
            return;
        };
        // Only ever brought forward: a grace period that is over would else be over anew with each event, and never end.
        if let Wanted::Deleted { deadline } = self.pod.wanted
            && deadline < old.kill_at
            && self.now < old.kill_at
        {
            old.kill_at = deadline.max(self.now);
            old.deadline = after(old.kill_at, self.cfg.stop_margin);
            old.stop = Call::Idle;
        }
        let is_unwanted = matches!(self.pod.wanted, Wanted::Gone);
        if old.has_ended || is_unwanted || self.now >= old.deadline {
            self.terminate_outgoing(&mut old);
        } else {
            self.stop_outgoing(&mut old);
        }
        self.pod.outgoing = Some(old);
    }

    fn stop_outgoing(&mut self, old: &mut Outgoing) {
        let Some(endpoint) = endpoint(&old.replaced) else {
            return;
        };
        let tries = match old.stop {
            Call::Idle => Some(0),
            Call::RepeatAt { tries, at } if self.now >= at => Some(tries),
            Call::RepeatAt { .. } | Call::InFlight { .. } | Call::Done => None,
        };
        if let Some(tries) = tries {
            old.stop = Call::InFlight { tries };
            self.act(Action::Stop {
                attempt: old.replaced.attempt,
                endpoint: endpoint.clone(),
                grace: elapsed(self.now, old.kill_at),
                reason: DrainCause::INTERRUPTED,
            });
        }
        let patience = self.cfg.redial_patience;
        self.keep_linked(&mut old.link, old.replaced.attempt, &endpoint, patience);
    }

    fn terminate_outgoing(&mut self, old: &mut Outgoing) {
        let attempt = old.replaced.attempt;
        let tries = match old.terminate {
            Call::Idle => {
                old.terminating_since = Some(self.now);
                self.act(Action::Disconnect { attempt });
                // While the next attempt is not recorded the record is still about this one.
                if let Some(mut kept) = self.pod.kept.take() {
                    if kept.attempt == attempt {
                        let why = old.why.clone();
                        let verdict = self.pod.verdict.clone();
                        let is_over = self.pod.must_end();
                        self.save(&mut kept, |record| {
                            record.phase = CellPhase::Terminating;
                            record.instance = Some(old.replaced.instance.clone());
                            record.reason = Some(why);
                            record.ending = Some(if is_over {
                                Ending::Over(verdict)
                            } else {
                                Ending::Again
                            });
                        });
                    }
                    self.pod.kept = Some(kept);
                }
                0
            }
            Call::RepeatAt { tries, at } if self.now >= at => tries,
            Call::RepeatAt { .. } | Call::InFlight { .. } | Call::Done => return,
        };
        old.terminate = Call::InFlight { tries };
        self.act(Action::Terminate {
            attempt,
            instance: old.replaced.instance.clone(),
        });
    }

    /// Notes news of the instance on its way out.
    pub(super) fn on_outgoing(&mut self, event: Event) {
        let Some(mut old) = self.pod.outgoing.take() else {
            return;
        };
        match event {
            Event::Reported { report, .. } => self.outgoing_reported(&mut old, &report),
            Event::Disconnected { failure, .. } => self.link_down(&mut old.link, failure.message),
            Event::Stopped { result, .. } => self.outgoing_stopped(&mut old, result),
            Event::Deployed { .. } => old.is_deploying = false,
            Event::Observed {
                result: Ok(instance), ..
            } if instance.phase == InstancePhase::Terminated => {
                old.has_ended = true;
            }
            Event::Terminated { result, .. } => {
                let Call::InFlight { tries } = old.terminate else {
                    self.pod.outgoing = Some(old);
                    return;
                };
                let mut hint = Duration::ZERO;
                match result {
                    Ok(()) => old.accepted = true,
                    // Only now its id may be forgotten.
                    Err(failure)
                        if failure.kind == ErrorKind::NotFound
                            && (old.accepted || self.asked_at >= old.absence_counts_at) =>
                    {
                        return self.outgoing_gone(&old);
                    }
                    Err(failure) => {
                        if let Retry::After(Some(wait)) = failure.retry {
                            hint = wait;
                        }
                    }
                }
                old.terminate = self.again(self.cfg.terminate_repeat, tries, hint);
            }
            Event::Wanted { .. }
            | Event::Placed(_)
            | Event::NoFit(_)
            | Event::OfferingsFailed(_)
            | Event::OfferingsChanged
            | Event::Launched { .. }
            | Event::Found { .. }
            | Event::Observed { .. }
            | Event::Updated { .. }
            | Event::Interrupted { .. }
            | Event::Published { .. }
            | Event::Released
            | Event::Woke => self.act(Action::Ignored("the instance is on its way out")),
        }
        self.pod.outgoing = Some(old);
    }

    fn outgoing_reported(&mut self, old: &mut Outgoing, report: &Arc<RuntimeReport>) {
        old.link = Link::Up { last_seen: self.now };
        if !self.is_ours(report) {
            // Told to stop a pod it does not have.
            old.has_ended |= report.pod_uid.is_empty() && old.stop == Call::Done && !old.is_deploying;
            return;
        }
        old.has_ended |= report.finished;
        if let (Some(phase), false) = (ended_phase(Some(report)), report.stopping) {
            // It ended by itself before it was stopped: then there is nothing to run again.
            self.pod.report = Some(Arc::clone(report));
            self.end(Verdict {
                phase,
                reason: String::new(),
                message: String::new(),
                disruption: None,
            });
        }
    }

    fn outgoing_stopped(&mut self, old: &mut Outgoing, result: Result<(), Failure>) {
        let Call::InFlight { tries } = old.stop else {
            return self.act(Action::Ignored("no stop was under way"));
        };
        match result {
            Ok(()) => old.stop = Call::Done,
            // The agent has no such pod, and no deploy is on its way: there is nothing to wait for.
            Err(failure) if failure.kind == ErrorKind::NotFound && !old.is_deploying => old.has_ended = true,
            Err(_) => {
                old.stop = self.again(self.cfg.stop_retry, tries, Duration::ZERO);
            }
        }
    }

    fn outgoing_gone(&mut self, old: &Outgoing) {
        self.act(Action::Disconnect {
            attempt: old.replaced.attempt,
        });
        self.visible = true;
    }
}

fn endpoint(replaced: &Replaced) -> Option<CellEndpoint> {
    let cell = replaced.host();
    replaced.address.map(|address| CellEndpoint { cell, address })
}

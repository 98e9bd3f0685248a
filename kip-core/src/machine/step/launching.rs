//! The only stage in which it is unknown whether an instance exists.

use std::sync::Arc;

use super::Turn;
use crate::error::{ErrorKind, Retry};
use crate::machine::action::Action;
use crate::machine::backoff::{after, elapsed};
use crate::machine::event::Failure;
use crate::machine::state::{After, Cell, LaunchCall, Launching, Setback, SetbackKind, Stage, Verdict};
use crate::model::{CellPhase, Ending, Instance, InstancePhase, PodPhase};

impl Turn<'_> {
    pub(super) fn advance_launching(&mut self, mut s: Launching) -> Stage {
        if self.pod.must_end() && s.record.phase != CellPhase::Terminating {
            // From now on the record says what is to become of the instance, should there be one, whatever happens to the pod.
            self.pod.marks.terminating_at = Some(self.now);
            let why = self.why_it_ends();
            let verdict = self.pod.verdict.clone();
            self.save(&mut s.record, |record| {
                record.phase = CellPhase::Terminating;
                record.reason = Some(why);
                record.ending = Some(Ending::Over(verdict));
            });
        }
        let must_look = self.pod.must_end() || s.discard;
        match s.call {
            LaunchCall::InFlight | LaunchCall::Looking => {}
            LaunchCall::RepeatAt(_) if must_look && !s.ambiguous => {
                let cause = self.launch_setback(&s);
                return self.no_instance(&s, Some(cause));
            }
            LaunchCall::RepeatAt(_) if must_look => s.call = LaunchCall::LookAt(self.now),
            LaunchCall::RepeatAt(at) if self.now >= at && self.pod.may_run() => self.launch(&mut s),
            LaunchCall::RepeatAt(_) | LaunchCall::LookAt(_) => {}
            LaunchCall::Held if must_look => {
                // The controller that made the record may have launched.
                s.ambiguous = true;
                s.call = LaunchCall::LookAt(self.now);
            }
            LaunchCall::Held if self.pod.may_run() => self.launch(&mut s),
            LaunchCall::Held => {}
        }
        if let LaunchCall::LookAt(at) = s.call
            && self.now >= at
        {
            s.call = LaunchCall::Looking;
            self.act(Action::Find {
                attempt: s.record.attempt,
                token: s.record.token.clone(),
            });
        }
        Stage::Launching(s)
    }

    fn launch(&mut self, s: &mut Launching) {
        s.call = LaunchCall::InFlight;
        s.last_call = self.now;
        self.act(Action::Launch(Arc::clone(&s.record)));
    }

    pub(super) fn on_launched(&mut self, stage: Stage, result: Result<Instance, Failure>) -> Stage {
        let Stage::Launching(mut s) = stage else {
            return self.ignore(stage, "the launch is known already");
        };
        let failure = match result {
            Ok(instance) => return self.own(s, instance),
            Err(failure) => failure,
        };
        if s.call != LaunchCall::InFlight {
            return self.ignore(Stage::Launching(s), "no launch was under way");
        }
        s.tries += 1;
        s.last_call = self.now;
        s.ambiguous |= failure.is_ambiguous();
        s.problem = Some(failure.message.clone());
        self.visible = true;
        let repeat = after(
            self.now,
            match failure.retry {
                Retry::After(Some(hint)) => hint,
                Retry::After(None) | Retry::Never | Retry::Elsewhere | Retry::OtherZone | Retry::Spent => {
                    self.cfg.launch_retry.delay(s.tries)
                }
            },
        );
        if failure.kind == ErrorKind::AlreadyExists {
            // Something carries our token that we did not ask for in this way: it must go before another attempt.
            s.ambiguous = true;
            s.discard = true;
        } else if matches!(failure.retry, Retry::Elsewhere | Retry::OtherZone) {
            // For how long nobody is placed there again is remembered for all pods, by the driver.
            if !s.ambiguous {
                return self.no_instance(&s, None);
            }
        } else if is_pods_fault(failure.kind) && failure.retry == Retry::Never {
            self.end(Verdict {
                phase: PodPhase::Failed,
                reason: "LaunchRejected".into(),
                message: format!("The cloud will not launch {}: {failure}", s.record.offering),
                disruption: None,
            });
            if !s.ambiguous {
                return self.no_instance(&s, None);
            }
        } else if failure.kind == ErrorKind::QuotaExceeded && !s.ambiguous {
            let cause = setback(SetbackKind::Quota, failure.message);
            return self.no_instance(&s, Some(cause));
        } else if !failure.is_ambiguous() && failure.retry == Retry::Never && !s.ambiguous {
            // Credentials and the like: the operator's to mend, so the pod waits and says so.
            let cause = setback(SetbackKind::Launch, failure.message);
            return self.no_instance(&s, Some(cause));
        } else if self.now < after(s.since, self.cfg.launch_ambiguity) {
            // The same token again: if there is an instance, this finds it.
            s.call = LaunchCall::RepeatAt(repeat);
            return Stage::Launching(s);
        } else if !s.ambiguous {
            let cause = setback(SetbackKind::Launch, failure.message);
            return self.no_instance(&s, Some(cause));
        }
        s.call = LaunchCall::LookAt(self.now);
        Stage::Launching(s)
    }

    pub(super) fn on_found(&mut self, stage: Stage, result: Result<Option<Instance>, Failure>) -> Stage {
        let Stage::Launching(mut s) = stage else {
            return self.ignore(stage, "the launch is known already");
        };
        match result {
            Ok(Some(instance)) => self.own(s, instance),
            _ if s.call != LaunchCall::Looking => self.ignore(Stage::Launching(s), "no list was under way"),
            Ok(None) => {
                let proves_absence_at = after(s.last_call, self.cfg.consistency);
                if self.asked_at >= proves_absence_at {
                    let cause = self.launch_setback(&s);
                    return self.no_instance(&s, Some(cause));
                }
                s.call = LaunchCall::LookAt(proves_absence_at);
                Stage::Launching(s)
            }
            Err(failure) => {
                s.tries += 1;
                s.call = LaunchCall::LookAt(after(self.now, self.cfg.launch_retry.delay(s.tries)));
                s.problem = Some(failure.message);
                self.visible = true;
                Stage::Launching(s)
            }
        }
    }

    /// The instance is known: from here on it is ours to terminate.
    fn own(&mut self, mut s: Launching, instance: Instance) -> Stage {
        self.pod.marks.launched_at = Some(self.now);
        let reached = Arc::make_mut(&mut s.record);
        reached.instance = Some(instance.id.clone());
        reached.addresses = instance.addresses;
        let mut cell = Cell {
            record: s.record,
            instance: instance.id,
            known_at: self.now,
        };
        let is_ending = matches!(
            instance.phase,
            InstancePhase::Terminating | InstancePhase::Terminated
        );
        if self.pod.must_end() {
            return self.terminate(cell, After::Finish);
        }
        if s.discard {
            let cause = setback(
                SetbackKind::Launch,
                "an instance was launched with other parameters",
            );
            return self.terminate(cell, After::Retry(cause));
        }
        if is_ending {
            let reason = instance.reason.unwrap_or_else(|| "no reason given".into());
            return self.fail_cell(
                cell,
                SetbackKind::Boot,
                format!("The instance ended before it was up: {reason}."),
            );
        }
        self.save(&mut cell.record, |record| record.phase = CellPhase::Booting);
        match instance.addresses.management {
            Some(address) => self.dial_first(cell, address),
            None => self.wait_for_address(cell),
        }
    }

    /// No instance came of it, and none can any more. `cause` None is: elsewhere, at once.
    fn no_instance(&mut self, s: &Launching, cause: Option<Setback>) -> Stage {
        self.pod.kept = Some(Arc::clone(&s.record));
        if self.pod.must_end() {
            return self.finish();
        }
        let Some(cause) = cause else {
            return self.fresh_pending();
        };
        self.pod.failures += 1;
        self.notify(true, "LaunchFailed", cause.message.clone());
        self.back_off(cause)
    }

    fn launch_setback(&self, s: &Launching) -> Setback {
        let waited = elapsed(s.since, self.now).as_secs();
        let why = s.problem.as_deref().unwrap_or("no answer");
        setback(
            SetbackKind::Launch,
            format!(
                "No instance came of launching {} within {waited} s: {why}",
                s.record.offering
            ),
        )
    }
}

fn setback(kind: SetbackKind, message: impl Into<String>) -> Setback {
    Setback {
        kind,
        message: message.into(),
    }
}

/// Whether the cloud refused what this pod asks for, rather than who asks or when.
fn is_pods_fault(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::NotFound => true,
        // An image or a subnet that the operator named and that is gone: theirs to mend, and the pod's to wait for.
        ErrorKind::ConfigInvalid
        | ErrorKind::AlreadyExists
        | ErrorKind::Conflict
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::QuotaExceeded
        | ErrorKind::InsufficientCapacity
        | ErrorKind::RateLimited
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Unexpected => false,
    }
}

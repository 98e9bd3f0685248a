//! Without a cell: waiting to be placed, and backing off.

use std::sync::Arc;

use super::Turn;
use crate::ids::LaunchToken;
use crate::machine::action::Action;
use crate::machine::backoff::after;
use crate::machine::event::Failure;
use crate::machine::state::{
    BackingOff, Finished, LaunchCall, Launching, Pending, Setback, SetbackKind, Stage, Verdict, Waiting,
    Wanted,
};
use crate::model::{CellMarks, CellRecord, PodPhase};
use crate::sizing::{Choice, NoFit};

impl Turn<'_> {
    pub(super) fn advance_pending(&mut self, mut s: Pending) -> Stage {
        if let Wanted::Refused { reason, message } = &self.pod.wanted {
            let verdict = Verdict {
                phase: PodPhase::Failed,
                reason: reason.clone(),
                message: message.clone(),
                disruption: None,
            };
            self.end(verdict);
        }
        if self.pod.must_end() {
            return self.finish();
        }
        if self.pod.is_held() && self.now >= after(s.since, self.cfg.source_patience) {
            self.act(Action::Forget);
        }
        if self.pod.may_run() && (!s.asking || self.now >= s.retry_at) {
            let due = match s.waiting {
                Waiting::Source | Waiting::Placement => true,
                Waiting::NoFit(_) | Waiting::Offerings(_) => self.now >= s.retry_at,
            };
            if due {
                if s.waiting == Waiting::Source {
                    s.waiting = Waiting::Placement;
                }
                s.asking = true;
                s.retry_at = after(self.now, self.cfg.idle_wake);
                self.pod.avoid.expire(self.now);
                self.act(Action::Place);
            }
        }
        Stage::Pending(s)
    }

    pub(super) fn advance_backing_off(&mut self, s: BackingOff) -> Stage {
        if self.pod.must_end() {
            return self.finish();
        }
        if self.now >= s.until {
            return self.fresh_pending();
        }
        Stage::BackingOff(s)
    }

    pub(super) fn on_placed(&mut self, stage: Stage, choice: Choice) -> Stage {
        let Stage::Pending(s) = stage else {
            return self.ignore(stage, "the pod is not waiting to be placed");
        };
        if !s.asking || !self.pod.may_run() {
            return self.ignore(Stage::Pending(s), "the pod is not to be placed now");
        }
        self.pod.attempt += 1;
        #[cfg(kip_mutants)]
        if crate::mutants::is(crate::mutants::Mutant::AttemptRestarts) {
            self.pod.attempt = 1;
        }
        let identity = &self.cfg.identity;
        let smaller = match &choice.smaller {
            Some(advice) => format!(" It is smaller than the pod asks for, as the pod allows: {advice}."),
            None => String::new(),
        };
        let offering = choice.offering;
        let token = LaunchToken::derive(
            &identity.cluster,
            &identity.node,
            &self.pod.reference.uid,
            self.pod.attempt,
            &offering.id,
        );
        #[cfg(kip_mutants)]
        let token = match &self.pod.kept {
            Some(kept) if crate::mutants::is(crate::mutants::Mutant::SameTokenOtherParameters) => {
                kept.token.clone()
            }
            Some(_) | None => token,
        };
        self.notify(
            false,
            "Placed",
            format!("Chose {} at {}.{smaller}", offering.id, offering.price),
        );
        self.pod.marks = CellMarks {
            seen_at: Some(self.pod.seen_at),
            decided_at: Some(self.now),
            ..CellMarks::default()
        };
        self.pod.report = None;
        self.pod.told_events = Some(0);
        self.pod.boot_id.clear();
        let mut intent = CellRecord::intent(
            self.pod.reference.clone(),
            identity.node.clone(),
            identity.cluster.clone(),
            self.pod.attempt,
            token,
            offering.id,
            offering.price,
            self.now,
        );
        intent.replaces = self
            .pod
            .outgoing
            .as_ref()
            .map(|outgoing| outgoing.replaced.clone());
        // From here on the one record of the pod is about this attempt.
        self.pod.kept = None;
        let mut record = Arc::new(intent);
        self.save(&mut record, |_| ());
        self.act(Action::Launch(Arc::clone(&record)));
        Stage::Launching(Launching {
            record,
            since: self.now,
            last_call: self.now,
            ambiguous: false,
            discard: false,
            call: LaunchCall::InFlight,
            tries: 0,
            problem: None,
        })
    }

    pub(super) fn on_no_fit(&mut self, stage: Stage, no_fit: NoFit) -> Stage {
        let Stage::Pending(mut s) = stage else {
            return self.ignore(stage, "the pod is not waiting to be placed");
        };
        s.asking = false;
        s.retry_at = after(self.now, self.cfg.no_fit_retry);
        if no_fit.only_avoided
            && let Some(ends) = self.pod.avoid.expire(self.now)
        {
            s.retry_at = s.retry_at.min(ends);
        }
        if s.waiting != Waiting::NoFit(no_fit.clone()) {
            self.notify(true, "NoFit", no_fit.message.clone());
            self.visible = true;
            s.waiting = Waiting::NoFit(no_fit);
        }
        Stage::Pending(s)
    }

    pub(super) fn on_offerings_failed(&mut self, stage: Stage, failure: Failure) -> Stage {
        let Stage::Pending(mut s) = stage else {
            return self.ignore(stage, "the pod is not waiting to be placed");
        };
        s.asking = false;
        s.retry_at = after(self.now, self.cfg.no_fit_retry);
        let waiting = Waiting::Offerings(failure.message);
        if s.waiting != waiting {
            self.visible = true;
            s.waiting = waiting;
        }
        Stage::Pending(s)
    }

    pub(super) fn on_offerings_changed(&mut self, stage: Stage) -> Stage {
        let Stage::Pending(mut s) = stage else {
            return self.ignore(stage, "the pod is not waiting for offerings");
        };
        if matches!(s.waiting, Waiting::NoFit(_) | Waiting::Offerings(_)) && !s.asking {
            s.retry_at = self.now;
        }
        Stage::Pending(s)
    }

    /// Nothing is left in the cloud and nothing more will be tried.
    pub(super) fn finish(&mut self) -> Stage {
        Stage::Finished(Finished { since: self.now })
    }

    /// Another attempt after a while, longer with each setback in a row.
    pub(super) fn back_off(&mut self, cause: Setback) -> Stage {
        if self.pod.must_end() {
            return self.finish();
        }
        if cause.kind == SetbackKind::Interrupted {
            return self.fresh_pending();
        }
        let seed = self.pod.reference.uid.as_str().bytes().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let until = after(self.now, self.cfg.retry.spread(self.pod.failures, seed));
        Stage::BackingOff(BackingOff { until, cause })
    }
}

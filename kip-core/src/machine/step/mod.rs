//! One step of a pod: what an event changes, then what follows from where things stand.

mod ending;
mod launching;
mod outgoing;
mod running;
mod starting;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::action::{Action, Notice};
use super::backoff::{Backoff, after};
use super::config::StepConfig;
use super::event::Event;
use super::state::{Call, Pod, PodState, Release, Stage, Verdict, Waiting, Wanted};
use super::wake;
use crate::model::{CellRecord, PodPhase, RuntimeReport};

/// What one step came to.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Step {
    /// The next state.
    pub next: PodState,
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// When to send [`Event::Woke`] at the latest. None only once the pod has ended and nothing is waited for.
    pub wake_at: Option<Timestamp>,
}

/// Takes a pod one event further. Total: an event that cannot matter leaves the state as it is and is answered with
/// [`Action::Ignored`]. Pure: equal arguments give equal results.
pub fn step(cfg: &StepConfig, state: PodState, event: Event, now: Timestamp) -> Step {
    step_answer(cfg, state, event, now, now)
}

/// [`step`] with an event that answers a question asked at `asked_at`. An answer may come late and wait for its turn; that the provider
/// knows no such instance proves only what it would have proved at the time of the question.
pub fn step_answer(
    cfg: &StepConfig,
    state: PodState,
    event: Event,
    asked_at: Timestamp,
    now: Timestamp,
) -> Step {
    let before = state.phase();
    let mut turn = Turn {
        cfg,
        now,
        asked_at: asked_at.min(now),
        pod: state.pod,
        actions: Vec::new(),
        visible: false,
    };
    // Time may have ended the pod before the event came: then the event must not begin anything.
    turn.judge(&state.stage);
    let stage = turn.apply(state.stage, event);
    let stage = turn.advance(stage);
    turn.visible |= stage.phase() != before;
    turn.publish();
    turn.release(&stage);
    let next = PodState { pod: turn.pod, stage };
    Step {
        wake_at: wake::wake_at(cfg, &next, now),
        next,
        actions: turn.actions,
    }
}

/// One step under way.
struct Turn<'a> {
    cfg: &'a StepConfig,
    now: Timestamp,
    /// When the question was asked that the event answers; now for other events.
    asked_at: Timestamp,
    pod: Pod,
    actions: Vec<Action>,
    /// The report changed.
    visible: bool,
}

impl Turn<'_> {
    /// Notes what the event says. What follows from it is decided in [`advance`](Self::advance).
    fn apply(&mut self, stage: Stage, event: Event) -> Stage {
        if let Some(attempt) = about(&event)
            && attempt_of(&stage) != Some(attempt)
        {
            if self
                .pod
                .outgoing
                .as_ref()
                .is_some_and(|outgoing| outgoing.replaced.attempt == attempt)
            {
                self.on_outgoing(event);
                return stage;
            }
            return self.ignore(stage, "it is about another cell");
        }
        match event {
            Event::Wanted {
                wanted,
                refresh,
                started_before,
            } => self.on_wanted(stage, wanted, refresh, started_before),
            Event::Placed(choice) => self.on_placed(stage, choice),
            Event::NoFit(no_fit) => self.on_no_fit(stage, no_fit),
            Event::OfferingsFailed(failure) => self.on_offerings_failed(stage, failure),
            Event::OfferingsChanged => self.on_offerings_changed(stage),
            Event::Launched { result, .. } => self.on_launched(stage, result),
            Event::Found { result, .. } => self.on_found(stage, result),
            Event::Observed { result, .. } => self.on_observed(stage, result),
            Event::Terminated { result, .. } => self.on_terminated(stage, result),
            Event::Reported { report, .. } => self.on_reported(stage, report),
            Event::Disconnected { failure, .. } => self.on_disconnected(stage, failure),
            Event::Deployed { result, .. } => self.on_deployed(stage, result),
            Event::Updated { result, .. } => self.on_updated(stage, result),
            Event::Stopped { result, .. } => self.on_stopped(stage, result),
            Event::Interrupted {
                instance,
                deadline,
                reason,
            } => self.on_interrupted(stage, &instance, deadline, reason),
            Event::Published { revision } => {
                self.pod.published = self.pod.published.max(revision.min(self.pod.revision));
                stage
            }
            Event::Released => {
                if self.pod.release == Release::Asked {
                    self.pod.release = Release::Done;
                }
                stage
            }
            Event::Woke => stage,
        }
    }

    /// Draws the consequences of where things stand now, until nothing changes any more.
    fn advance(&mut self, mut stage: Stage) -> Stage {
        self.judge(&stage);
        self.advance_outgoing();
        loop {
            let before = stage.phase();
            stage = match stage {
                Stage::Pending(s) => self.advance_pending(s),
                Stage::Launching(s) => self.advance_launching(s),
                Stage::Booting(s) => self.advance_booting(s),
                Stage::Connecting(s) => self.advance_connecting(s),
                Stage::Deploying(s) => self.advance_deploying(s),
                Stage::Running(s) => self.advance_running(s),
                Stage::Draining(s) => self.advance_draining(s),
                Stage::Terminating(s) => self.advance_terminating(s),
                Stage::BackingOff(s) => self.advance_backing_off(s),
                Stage::Finished(s) => {
                    self.let_go(s.since);
                    return Stage::Finished(s);
                }
            };
            if stage.phase() == before {
                return stage;
            }
        }
    }

    fn on_wanted(&mut self, stage: Stage, wanted: Wanted, refresh: bool, started_before: bool) -> Stage {
        let merged = match (&self.pod.wanted, wanted) {
            // An ended pod was let go of, and is deleted now: it waits to be released.
            (Wanted::Gone, Wanted::Deleted { deadline }) => Wanted::Deleted { deadline },
            // A UID does not come back, and a deletion is not taken back.
            (Wanted::Gone, _) => return self.ignore(stage, "the pod is gone"),
            (_, Wanted::Unknown) => return self.ignore(stage, "the source cannot unsay what it wants"),
            (_, Wanted::Gone) => Wanted::Gone,
            (Wanted::Deleted { deadline: before }, Wanted::Deleted { deadline }) => Wanted::Deleted {
                deadline: deadline.min(*before),
            },
            (Wanted::Deleted { .. }, Wanted::Run { .. } | Wanted::Refused { .. }) => {
                return self.ignore(stage, "the pod is being deleted");
            }
            (
                Wanted::Unknown | Wanted::Run { .. } | Wanted::Refused { .. },
                wanted @ (Wanted::Run { .. } | Wanted::Refused { .. } | Wanted::Deleted { .. }),
            ) => wanted,
        };
        self.visible |= self.pod.is_held();
        self.pod.wanted = merged;
        self.pod.refresh |= refresh && self.pod.may_run();
        let has_no_cell_or_loses_it = matches!(
            stage,
            Stage::Pending(_) | Stage::BackingOff(_) | Stage::Terminating(_)
        );
        if started_before && has_no_cell_or_loses_it && self.pod.may_run() && !self.pod.is_restartable() {
            self.fail_by_infrastructure(
                "CellLost",
                "The pod's instance was lost while the controller was away.",
            );
        }
        stage
    }

    /// Decides what ends the pod whatever it is doing: its active deadline.
    fn judge(&mut self, stage: &Stage) {
        let Wanted::Run {
            active_deadline: Some(limit),
            ..
        } = self.pod.wanted
        else {
            return;
        };
        if self.pod.verdict.is_none()
            && !matches!(stage, Stage::Finished(_))
            && self.now >= after(self.pod.seen_at, limit)
        {
            self.end(Verdict {
                phase: PodPhase::Failed,
                reason: "DeadlineExceeded".into(),
                message: format!(
                    "The pod was active on the node for longer than its deadline of {} s.",
                    limit.as_secs()
                ),
                disruption: None,
            });
        }
    }

    /// Publishes when the report changed and somebody is there to read it.
    fn publish(&mut self) {
        if self.visible && !matches!(self.pod.wanted, Wanted::Unknown | Wanted::Gone) {
            self.pod.revision += 1;
            self.act(Action::Publish);
        }
    }

    /// Removes the pod object as soon as nothing runs any more that a user could mistake for gone, and the record will outlive it.
    fn release(&mut self, stage: &Stage) {
        if !matches!(self.pod.wanted, Wanted::Deleted { .. }) || self.pod.release != Release::No {
            return;
        }
        let may_still_run = self.pod.outgoing.as_ref().is_some_and(|outgoing| {
            let patience = self.cfg.release_patience;
            !outgoing.accepted
                && outgoing
                    .terminating_since
                    .is_none_or(|since| self.now < after(since, patience))
        });
        if may_still_run {
            return;
        }
        let settled = match stage {
            Stage::Finished(_) => true,
            // Nothing was ever told to run, and the record, saved as terminating, outlives the pod.
            Stage::Launching(_) => true,
            Stage::Terminating(s) => s.accepted || self.now >= after(s.since, self.cfg.release_patience),
            Stage::Pending(_)
            | Stage::Booting(_)
            | Stage::Connecting(_)
            | Stage::Deploying(_)
            | Stage::Running(_)
            | Stage::Draining(_)
            | Stage::BackingOff(_) => false,
        };
        if !settled {
            return;
        }
        let since = *self.pod.final_since.get_or_insert(self.now);
        if self.is_published() || self.now >= after(since, self.cfg.publish_patience) {
            self.pod.release = Release::Asked;
            self.act(Action::Release);
        }
    }

    fn is_published(&self) -> bool {
        !self.visible && self.pod.published >= self.pod.revision
    }

    /// A call that failed once more, to be repeated after the curve's delay, and not before the peer's hint.
    fn again(&self, curve: Backoff, tries: u32, hint: Duration) -> Call {
        let tries = tries + 1;
        Call::RepeatAt {
            tries,
            at: after(self.now, curve.delay(tries).max(hint)),
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn ignore(&mut self, stage: Stage, why: &'static str) -> Stage {
        self.act(Action::Ignored(why));
        stage
    }

    fn notify(&mut self, warning: bool, reason: &str, message: impl Into<String>) {
        // Nobody can see an event on a pod that is gone, and an unknown pod is not ours to speak about.
        if !matches!(self.pod.wanted, Wanted::Gone | Wanted::Unknown) {
            self.act(Action::Notify(Notice {
                warning,
                reason: reason.into(),
                message: message.into(),
                container: String::new(),
            }));
        }
    }

    /// Changes the record and stores it.
    fn save(&mut self, record: &mut Arc<CellRecord>, change: impl FnOnce(&mut CellRecord)) {
        let new = Arc::make_mut(record);
        change(new);
        new.marks = self.pod.marks;
        self.act(Action::Save(Arc::clone(record)));
    }

    /// Nothing more is tried: the record goes once no instance is left, and the pod is forgotten once its source has.
    fn let_go(&mut self, since: Timestamp) {
        // Taken over by a controller that has not heard of the pod: the record says how it ended, so it stays until the source has spoken.
        if self.pod.outgoing.is_some() || self.pod.is_held() {
            return;
        }
        // The same while the source may not have it yet: a crash now would run the pod again.
        let must_publish = matches!(self.pod.wanted, Wanted::Run { .. }) && !self.is_published();
        if must_publish && self.now < after(since, self.cfg.publish_patience) {
            return;
        }
        if let Some(kept) = self.pod.kept.take() {
            self.act(Action::Remove {
                cell: kept.name.clone(),
            });
        }
        if matches!(self.pod.wanted, Wanted::Gone) || self.pod.release == Release::Done {
            self.act(Action::Forget);
        }
    }

    /// Decides how the pod ended, unless that is decided.
    fn end(&mut self, verdict: Verdict) {
        if self.pod.verdict.is_some() {
            return;
        }
        let notice = match (&verdict.disruption, verdict.phase) {
            (Some(why), _) => Some(why.clone()),
            (None, PodPhase::Failed) if !verdict.reason.is_empty() => Some(verdict.message.clone()),
            (None, PodPhase::Failed | PodPhase::Succeeded | PodPhase::Pending | PodPhase::Running) => None,
        };
        if let Some(message) = notice {
            self.notify(true, &verdict.reason, message);
        }
        self.visible = true;
        self.pod.verdict = Some(verdict);
    }

    fn fail_by_infrastructure(&mut self, reason: &str, message: &str) {
        self.end(Verdict {
            phase: PodPhase::Failed,
            reason: reason.into(),
            message: message.into(),
            disruption: Some(message.into()),
        });
    }

    /// Takes in what the host says: keeps the report, passes its events on once, notes what was reached.
    fn take_report(&mut self, report: Arc<RuntimeReport>) {
        if self.pod.boot_id != report.boot_id {
            let first = self.pod.boot_id.is_empty();
            self.pod.boot_id.clone_from(&report.boot_id);
            if !first {
                // Ids start again with each boot.
                self.pod.told_events = Some(0);
            }
        }
        let newest = report.events.last().map_or(0, |event| event.id);
        if let Some(told) = self.pod.told_events {
            for event in report.events.iter().filter(|event| event.id > told) {
                if !matches!(self.pod.wanted, Wanted::Gone) {
                    self.actions.push(Action::Notify(Notice {
                        warning: event.warning,
                        reason: event.reason.clone(),
                        message: event.message.clone(),
                        container: event.container.clone(),
                    }));
                }
            }
        }
        self.pod.told_events = Some(self.pod.told_events.unwrap_or(0).max(newest));
        let marks = &mut self.pod.marks;
        marks.images_at = marks.images_at.or(report.marks.images_ready_at);
        marks.running_at = marks.running_at.or(report.marks.running_at);
        if report.marks.running_at.is_some() {
            self.pod.failed_boots = 0;
            // By our own clock. An attempt of unknown age was taken over, and its setbacks with it are forgotten already.
            let settled_at = marks.decided_at.map(|at| after(at, self.cfg.settled_after));
            if settled_at.is_none_or(|at| self.now >= at) {
                self.pod.failures = 0;
            }
        }
        if self.pod.report.as_ref().is_none_or(|known| *known != report) {
            self.pod.report = Some(report);
            self.visible = true;
        }
    }

    /// Whether a report is about our pod.
    fn is_ours(&self, report: &RuntimeReport) -> bool {
        report.pod_uid == self.pod.reference.uid.as_str()
    }

    fn fresh_pending(&self) -> Stage {
        Stage::Pending(super::state::Pending {
            since: self.now,
            waiting: if self.pod.is_held() {
                Waiting::Source
            } else {
                Waiting::Placement
            },
            asking: false,
            retry_at: self.now,
        })
    }
}

/// Which cell an event is about.
fn about(event: &Event) -> Option<u32> {
    match event {
        Event::Launched { attempt, .. }
        | Event::Found { attempt, .. }
        | Event::Observed { attempt, .. }
        | Event::Terminated { attempt, .. }
        | Event::Reported { attempt, .. }
        | Event::Disconnected { attempt, .. }
        | Event::Deployed { attempt, .. }
        | Event::Updated { attempt, .. }
        | Event::Stopped { attempt, .. } => Some(*attempt),
        Event::Wanted { .. }
        | Event::Placed(_)
        | Event::NoFit(_)
        | Event::OfferingsFailed(_)
        | Event::OfferingsChanged
        | Event::Interrupted { .. }
        | Event::Published { .. }
        | Event::Released
        | Event::Woke => None,
    }
}

/// Which cell a stage is about.
fn attempt_of(stage: &Stage) -> Option<u32> {
    match stage {
        Stage::Pending(_) | Stage::BackingOff(_) | Stage::Finished(_) => None,
        Stage::Launching(s) => Some(s.record.attempt),
        Stage::Booting(s) => Some(s.cell.record.attempt),
        Stage::Connecting(s) => Some(s.cell.record.attempt),
        Stage::Deploying(s) => Some(s.cell.record.attempt),
        Stage::Running(s) => Some(s.cell.record.attempt),
        Stage::Draining(s) => Some(s.cell.record.attempt),
        Stage::Terminating(s) => Some(s.cell.record.attempt),
    }
}

//! From what survived a restart of the controller to a state: the record, and what the cloud lists under its token.

use std::sync::Arc;

use jiff::Timestamp;

use super::backoff::after;
use super::config::StepConfig;
use super::state::{
    After, Booting, Call, Cell, Connecting, LaunchCall, Launching, Link, Outgoing, PodState, Running,
    Setback, SetbackKind, Stage, Terminating,
};
use crate::model::{CellPhase, CellRecord, Ending, Instance, Replaced};

/// The state of a pod as far as its record tells, before the source has spoken. `found` is the instance that the cloud lists under
/// the record's id or token, if it does: a list that lags proves nothing, so absence changes nothing here.
///
/// The first [`Event::Woke`](super::Event::Woke) starts what the state has to do: dial, ask, terminate.
pub fn recover(
    cfg: &StepConfig,
    mut record: CellRecord,
    found: Option<&Instance>,
    now: Timestamp,
) -> PodState {
    // A controller before us may have had a clock ahead of ours: what has happened is not in the future.
    let marks = &mut record.marks;
    marks.seen_at = Some(marks.seen_at.unwrap_or(record.issued_at).min(now));
    let launched_at = marks
        .launched_at
        .or(record.instance.is_some().then_some(record.issued_at));
    marks.launched_at = launched_at.map(|at| at.min(now));
    let mut state = PodState::new(record.pod.clone(), now);
    state.pod.attempt = record.attempt;
    state.pod.seen_at = record.marks.seen_at.unwrap_or(now);
    state.pod.marks = record.marks;
    // What the agent told before we came was told by a controller before us.
    state.pod.told_events = None;
    if let Some(Ending::Over(Some(verdict))) = &record.ending {
        state.pod.verdict = Some(verdict.clone());
    }
    #[cfg(kip_mutants)]
    if crate::mutants::is(crate::mutants::Mutant::ForgetVerdict) {
        state.pod.verdict = None;
    }
    state.pod.outgoing = record
        .replaces
        .clone()
        .map(|replaced| Box::new(outgoing(cfg, replaced, &record, now)));
    state.stage = stage(cfg, record, found, now);
    state
}

/// The instance an interrupted attempt left behind. What was done about it is not recorded, and everything done is safe to repeat.
fn outgoing(cfg: &StepConfig, replaced: Replaced, record: &CellRecord, now: Timestamp) -> Outgoing {
    let kill_at = after(now, cfg.stop_grace);
    Outgoing {
        replaced,
        absence_counts_at: after(now, cfg.consistency),
        why: "The cloud took the instance back.".into(),
        kill_at,
        deadline: after(kill_at, cfg.stop_margin),
        link: Link::Down {
            tries: 0,
            redial_at: now,
            problem: "not dialled yet".into(),
        },
        stop: Call::Idle,
        is_deploying: false,
        // Another attempt was told to run the pod, and it was not before this one had ended.
        has_ended: record.phase == CellPhase::Running,
        terminating_since: None,
        terminate: Call::Idle,
        accepted: false,
    }
}

fn stage(cfg: &StepConfig, mut record: CellRecord, found: Option<&Instance>, now: Timestamp) -> Stage {
    if let Some(instance) = found {
        if record.instance.is_none() {
            record.instance = Some(instance.id.clone());
        }
        record.addresses.management = record.addresses.management.or(instance.addresses.management);
        record.addresses.pod = record.addresses.pod.or(instance.addresses.pod);
    }
    let Some(instance) = record.instance.clone() else {
        return Stage::Launching(Launching {
            since: now,
            last_call: now,
            ambiguous: true,
            discard: record.phase == CellPhase::Terminating,
            call: LaunchCall::Held,
            tries: 0,
            problem: None,
            record: Arc::new(record),
        });
    };
    let (phase, address) = (record.phase, record.addresses.management);
    let is_over = matches!(record.ending, Some(Ending::Over(_)));
    let cell = Cell {
        record: Arc::new(record),
        instance,
        known_at: now,
    };
    let down = Link::Down {
        tries: 0,
        redial_at: now,
        problem: "not dialled yet".into(),
    };
    match (phase, address) {
        (CellPhase::Terminating, _) => Stage::Terminating(Terminating {
            cell,
            after: if is_over {
                After::Finish
            } else {
                After::Retry(Setback {
                    kind: SetbackKind::Lost,
                    message: "The cell was being terminated when the controller restarted.".into(),
                })
            },
            since: now,
            accepted: false,
            call: Call::Idle,
            problem: None,
        }),
        (CellPhase::Running, address) => Stage::Running(Running {
            cell,
            address,
            link: down,
            silent_since: Some(now),
            is_announced: false,
            asking: false,
            ask_at: now,
            update: Call::Idle,
        }),
        (CellPhase::Launching | CellPhase::Booting, Some(address)) => Stage::Connecting(Connecting {
            cell,
            address,
            // Armed anew: the time the controller was away is not the instance's fault.
            deadline: after(now, cfg.connect_deadline),
            link: down,
        }),
        (CellPhase::Launching | CellPhase::Booting, None) => Stage::Booting(Booting {
            cell,
            deadline: after(now, cfg.boot_deadline),
            asking: false,
            ask_at: now,
            asked: 0,
        }),
    }
}

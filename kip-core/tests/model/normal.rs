//! Makes states that differ in nothing that matters equal: without this, clocks and counters alone would make the model infinite.
//!
//! Time has three values: [`LONG_AGO`], [`NOW`] and [`LATER`], an hour apart. All back-offs are zero and all deadlines are an hour, so
//! "repeat then" is *at any time*, and a deadline passes when an hour does. Texts for people go; so do counts of failures beyond the
//! largest that the machine compares with anything.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::machine::{After, Call, LaunchCall, Link, PodState, Setback, Stage, Verdict, Waiting, Wanted};
use kip_core::model::{CellMarks, CellRecord, Ending};
use kip_core::sizing::Avoid;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const LONG_AGO: Timestamp = Timestamp::constant(1_000_000_000 - 3600, 0);
pub(crate) const NOW: Timestamp = Timestamp::constant(1_000_000_000, 0);
pub(crate) const LATER: Timestamp = Timestamp::constant(1_000_000_000 + 3600, 0);

/// The same an hour later.
pub(crate) fn aged(time: Timestamp) -> Timestamp {
    if time == Timestamp::MAX {
        time
    } else {
        (time - HOUR).max(LONG_AGO)
    }
}

pub(crate) fn record(record: &mut CellRecord, time: &impl Fn(Timestamp) -> Timestamp) {
    record.version.clear();
    record.reason = None;
    record.issued_at = time(record.issued_at);
    marks(&mut record.marks, time);
    if let Some(Ending::Over(Some(verdict))) = &mut record.ending {
        judged(verdict);
    }
}

fn marks(marks: &mut CellMarks, time: &impl Fn(Timestamp) -> Timestamp) {
    *marks = CellMarks {
        seen_at: Some(LONG_AGO),
        // The only one that a decision looks at.
        launched_at: marks.launched_at.map(time),
        ..CellMarks::default()
    };
}

fn judged(verdict: &mut Verdict) {
    verdict.message.clear();
    verdict.disruption = None;
}

/// Normalises a state, and moves every time in it.
pub(crate) fn state(state: &mut PodState, time: &impl Fn(Timestamp) -> Timestamp) {
    let pod = &mut state.pod;
    if let Wanted::Deleted { deadline } = &mut pod.wanted {
        *deadline = time(*deadline);
    }
    pod.failures = pod.failures.min(3);
    pod.avoid = Avoid::none();
    pod.seen_at = LONG_AGO;
    pod.told_events = Some(0);
    pod.refresh = false;
    pod.revision = u64::from(pod.published < pod.revision);
    pod.published = 0;
    pod.final_since = pod.final_since.map(time);
    marks(&mut pod.marks, time);
    if let Some(verdict) = &mut pod.verdict {
        judged(verdict);
    }
    if let Some(kept) = &mut pod.kept {
        record(Arc::make_mut(kept), time);
    }
    if let Some(old) = &mut pod.outgoing {
        old.why.clear();
        old.absence_counts_at = time(old.absence_counts_at);
        old.kill_at = time(old.kill_at);
        old.deadline = time(old.deadline);
        old.terminating_since = old.terminating_since.map(time);
        link(&mut old.link, time);
        call(&mut old.stop, time);
        call(&mut old.terminate, time);
    }
    stage(&mut state.stage, time);
}

fn stage(stage: &mut Stage, time: &impl Fn(Timestamp) -> Timestamp) {
    let cell = |cell: &mut kip_core::machine::Cell| {
        record(Arc::make_mut(&mut cell.record), time);
        cell.known_at = time(cell.known_at);
    };
    match stage {
        Stage::Pending(s) => {
            s.since = time(s.since);
            s.retry_at = time(s.retry_at);
            if let Waiting::Offerings(why) = &mut s.waiting {
                why.clear();
            }
        }
        Stage::Launching(s) => {
            record(Arc::make_mut(&mut s.record), time);
            s.since = time(s.since);
            s.last_call = time(s.last_call);
            s.tries = 0;
            s.problem = None;
            match &mut s.call {
                LaunchCall::RepeatAt(at) | LaunchCall::LookAt(at) => *at = time(*at),
                LaunchCall::InFlight | LaunchCall::Looking | LaunchCall::Held => {}
            }
        }
        Stage::Booting(s) => {
            cell(&mut s.cell);
            s.deadline = time(s.deadline);
            s.ask_at = time(s.ask_at);
            s.asked = 0;
        }
        Stage::Connecting(s) => {
            cell(&mut s.cell);
            s.deadline = time(s.deadline);
            link(&mut s.link, time);
        }
        Stage::Deploying(s) => {
            cell(&mut s.cell);
            s.deadline = time(s.deadline);
            s.problem = None;
            link(&mut s.link, time);
            call(&mut s.deploy, time);
        }
        Stage::Running(s) => {
            cell(&mut s.cell);
            s.silent_since = s.silent_since.map(time);
            s.ask_at = time(s.ask_at);
            link(&mut s.link, time);
            call(&mut s.update, time);
        }
        Stage::Draining(s) => {
            cell(&mut s.cell);
            s.kill_at = time(s.kill_at);
            s.deadline = time(s.deadline);
            link(&mut s.link, time);
            call(&mut s.stop, time);
        }
        Stage::Terminating(s) => {
            cell(&mut s.cell);
            s.since = time(s.since);
            s.problem = None;
            call(&mut s.call, time);
            if let After::Retry(setback) = &mut s.after {
                unsaid(setback);
            }
        }
        Stage::BackingOff(s) => {
            s.until = time(s.until);
            unsaid(&mut s.cause);
        }
        Stage::Finished(s) => s.since = time(s.since),
    }
}

fn unsaid(setback: &mut Setback) {
    setback.message.clear();
}

fn link(link: &mut Link, time: &impl Fn(Timestamp) -> Timestamp) {
    match link {
        Link::Dialling { tries, since } => {
            *tries = 0;
            // Never compared with anything.
            *since = LONG_AGO;
        }
        // Silence is modelled as a broken connection, so this is not compared either.
        Link::Up { last_seen } => *last_seen = NOW,
        Link::Down {
            tries,
            redial_at,
            problem,
        } => {
            *tries = 0;
            *redial_at = time(*redial_at);
            problem.clear();
        }
    }
}

fn call(call: &mut Call, time: &impl Fn(Timestamp) -> Timestamp) {
    match call {
        Call::InFlight { tries } => *tries = 0,
        Call::RepeatAt { tries, at } => {
            *tries = 0;
            *at = time(*at);
        }
        Call::Idle | Call::Done => {}
    }
}

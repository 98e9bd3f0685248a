//! Lives of a pod, step by step, as the tables tell them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ErrorKind;
use kip_core::ids::InstanceId;
use kip_core::machine::{Action, Event, Failure, Phase, PodState, StepConfig, Wanted, step};
use kip_core::model::{Instance, RuntimeReport};
use kip_core::sizing::Choice;

use super::{at, config, instance, offering, pod, report, run_wanted};

/// A pod and its time.
pub struct Life {
    pub cfg: StepConfig,
    pub state: PodState,
    pub now: Timestamp,
    pub actions: Vec<Action>,
}

impl Life {
    pub fn new() -> Self {
        Self {
            cfg: config(),
            state: PodState::new(pod(), at(0)),
            now: at(0),
            actions: Vec::new(),
        }
    }

    pub fn on(mut self, event: Event) -> Self {
        let done = step(&self.cfg, self.state, event, self.now);
        self.state = done.next;
        self.actions = done.actions;
        self
    }

    pub fn after(mut self, seconds: u64) -> Self {
        self.now = self
            .now
            .checked_add(Duration::from_secs(seconds))
            .expect("in range");
        self
    }

    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    pub fn asks_for(&self, wanted: fn(&Action) -> bool) -> bool {
        self.actions.iter().any(wanted)
    }
}

pub fn says(wanted: Wanted) -> Event {
    Event::Wanted {
        wanted,
        refresh: false,
        started_before: false,
    }
}

pub fn run() -> Event {
    says(run_wanted(true, None))
}

pub fn deleted(seconds: i64) -> Event {
    says(Wanted::Deleted {
        deadline: at(seconds),
    })
}

pub fn gone() -> Event {
    says(Wanted::Gone)
}

pub fn placed() -> Event {
    Event::Placed(Choice::new(offering("small")))
}

pub fn failure(kind: ErrorKind) -> Failure {
    Failure::new(kind, "bad luck")
}

pub fn launched(result: Result<Instance, ErrorKind>) -> Event {
    Event::Launched {
        attempt: 1,
        result: result.map_err(failure),
    }
}

pub fn with_address() -> Event {
    launched(Ok(instance("i-1", at(0))))
}

pub fn bare() -> Instance {
    let mut bare = instance("i-1", at(0));
    bare.addresses.management = None;
    bare
}

pub fn observed(result: Result<Instance, ErrorKind>) -> Event {
    Event::Observed {
        attempt: 1,
        result: result.map_err(failure),
    }
}

pub fn reported(report: Arc<RuntimeReport>) -> Event {
    reported_by(1, report)
}

pub fn reported_by(attempt: u32, report: Arc<RuntimeReport>) -> Event {
    Event::Reported { attempt, report }
}

/// What an agent says whose pod it was told to stop, and that has stopped.
pub fn stopped() -> Arc<RuntimeReport> {
    let mut stopped = (*report(Some(0), "p")).clone();
    stopped.stopping = true;
    Arc::new(stopped)
}

/// The same of one that was stopped because the cloud takes its instance back.
pub fn stopped_for_interruption() -> Arc<RuntimeReport> {
    let mut stopped = (*stopped()).clone();
    stopped.stop_reason = "Interrupted".into();
    Arc::new(stopped)
}

pub fn empty() -> Event {
    reported(Arc::new(RuntimeReport::default()))
}

pub fn terminated(result: Result<(), ErrorKind>) -> Event {
    Event::Terminated {
        attempt: 1,
        result: result.map_err(failure),
    }
}

pub fn pending() -> Life {
    Life::new().on(run())
}
pub fn launching() -> Life {
    pending().on(placed())
}
pub fn booting() -> Life {
    launching().on(launched(Ok(bare())))
}
pub fn connecting() -> Life {
    launching().on(with_address())
}
pub fn deploying() -> Life {
    connecting().on(empty())
}
pub fn running() -> Life {
    deploying().on(reported(report(None, "p")))
}
pub fn draining() -> Life {
    running().on(deleted(30))
}
/// Terminating because it did not boot: another attempt follows.
pub fn terminating() -> Life {
    booting().after(400).on(Event::Woke)
}
pub fn backing_off() -> Life {
    launching().on(launched(Err(ErrorKind::PermissionDenied)))
}
pub fn interruption() -> Event {
    Event::Interrupted {
        instance: InstanceId::new("i-1"),
        deadline: at(180),
        reason: "spot".into(),
    }
}
/// About attempt 2: the replacement of an interrupted cell.
pub fn launched_again() -> Event {
    Event::Launched {
        attempt: 2,
        result: Ok(instance("i-2", at(60))),
    }
}
pub fn replacement_is_up() -> Life {
    running()
        .after(60)
        .on(interruption())
        .on(placed())
        .on(launched_again())
        .on(reported_by(2, Arc::new(RuntimeReport::default())))
}
/// Two instances before this one were taken back, and the pod has never run.
pub fn taken_back_twice(mut life: Life) -> Life {
    life.state.pod.failures = 2;
    life.after(60)
}
pub fn interrupted_again() -> Life {
    let life = connecting()
        .after(60)
        .on(interruption())
        .on(placed())
        .on(launched_again());
    life.on(Event::Interrupted {
        instance: InstanceId::new("i-2"),
        deadline: at(180),
        reason: "spot".into(),
    })
}

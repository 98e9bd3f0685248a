//! The model as `stateright` sees it: bounds, properties, and what was counted on the way.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};

use kip_core::machine::{Link, Stage};
use stateright::{Model, Property};

use crate::mind::Mind;
use crate::words::{Agent, Key, News};
use crate::world::{
    Act, Broken, Budget, Call, Controller, Instance, PodObject, Progress, System, What, Wish,
};

/// A deliberate defect, to prove that the properties see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Goes on after a save without having saved.
    ActBeforeSave,
    /// Writes its record over another controller's decision.
    OverwriteOnConflict,
    /// Takes an accepted terminate for the instance's end.
    AcceptedIsGone,
    /// The agent forgets that it was told to stop a pod it did not have.
    AgentForgetsStop,
    /// Nobody looks for what is left over.
    NoSweep,
    /// Publishes how the pod ended without asking the store whether somebody else decided otherwise.
    UnfencedEnd,
}

/// How far the model goes.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) budget: Budget,
    pub(crate) attempts: u8,
    pub(crate) offerings: u8,
    pub(crate) restartable: bool,
    /// Whether the pod may be deleted.
    pub(crate) deletes: bool,
    /// Whether it may also be removed without waiting for anybody.
    pub(crate) forces: bool,
    /// How many controllers may be alive at the same time.
    pub(crate) controllers: u8,
    pub(crate) defect: Option<Defect>,
    /// Whether each state is driven to its end.
    pub(crate) finishes: bool,
}

/// The model.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) bounds: Bounds,
    mind: Mutex<Mind>,
    /// Saves that found another controller's decision.
    pub(crate) fenced: AtomicU64,
    /// Leftovers that a sweep found.
    pub(crate) collected: AtomicU64,
    /// States known to come to a good end.
    pub(crate) good: Mutex<HashSet<u64>>,
}

impl Checked {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            mind: Mutex::new(Mind::new(bounds.restartable)),
            bounds,
            fenced: AtomicU64::new(0),
            collected: AtomicU64::new(0),
            good: Mutex::new(HashSet::new()),
        }
    }

    pub(crate) fn mind(&self) -> MutexGuard<'_, Mind> {
        self.mind.lock().expect("no step panicked")
    }
}

impl Model for Checked {
    type State = System;
    type Action = Act;

    fn init_states(&self) -> Vec<System> {
        vec![System {
            controllers: [None, None],
            record: None,
            pod: PodObject {
                wish: Wish::Run,
                has_started: false,
                has_ended: false,
                ended_by_itself: false,
            },
            cloud: Vec::new(),
            calls: Vec::new(),
            left: self.bounds.budget,
            intents: Vec::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &System, actions: &mut Vec<Act>) {
        self.possible(state, actions);
    }

    fn next_state(&self, last: &System, act: Act) -> Option<System> {
        self.after(last, act)
    }

    fn within_boundary(&self, state: &System) -> bool {
        let mind = self.mind();
        let mut states = state
            .controllers
            .iter()
            .flatten()
            .filter_map(|controller| controller.state);
        states.all(|state| mind.facts(state).attempt <= self.bounds.attempts)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the pod never runs on two instances", |_, system: &System| {
                system.running() <= 1
            }),
            Property::always(
                "nothing is launched without a stored intent",
                |_, system: &System| system.broken != Some(Broken::LaunchedWithoutIntent),
            ),
            Property::always(
                "no record is removed while its instance lives",
                |_, system: &System| system.broken != Some(Broken::RemovedWhileAlive),
            ),
            Property::always("a finished pod is not run again", |_, system: &System| {
                system.broken != Some(Broken::RanAgainAfterItsEnd)
            }),
            Property::always("no decision is undone", |_, system: &System| {
                system.broken != Some(Broken::Undone)
            }),
            Property::always(
                "a pod that may run once runs once",
                |model: &Self, system: &System| {
                    model.bounds.restartable
                        || system.cloud.iter().filter(|instance| instance.was_told()).count() <= 1
                },
            ),
            Property::always(
                "from every state the pod comes to its end",
                |model: &Self, system: &System| {
                    !model.bounds.finishes || model.comes_to_its_end(system).is_ok()
                },
            ),
            Property::sometimes("the pod runs", |model: &Self, system: &System| {
                system
                    .controllers
                    .iter()
                    .flatten()
                    .any(|controller| model.sees_it_run(controller))
            }),
            Property::sometimes("the pod runs on a replacement", |_, system: &System| {
                let was_taken_back = system.cloud.first().is_some_and(|first| first.is_doomed);
                let runs = |instance: &Instance| instance.is_alive() && instance.agent == Agent::Runs;
                was_taken_back && system.cloud.iter().skip(1).any(runs)
            }),
            Property::sometimes("the pod is deleted and nothing is left", |_, system: &System| {
                let is_gone = system.pod.wish == Wish::Gone && system.record.is_none();
                is_gone && !system.cloud.is_empty() && system.living() == 0 && system.calls.is_empty()
            }),
        ]
    }
}

impl Checked {
    /// A state in a line or two, for people.
    pub(crate) fn sketch(&self, system: &System) -> String {
        let mind = self.mind();
        let mut text = String::new();
        for (name, controller) in ["A", "B"].iter().zip(&system.controllers) {
            let Some(controller) = controller else {
                continue;
            };
            let phase = controller.state.map(|state| mind.state(state).phase());
            let wanted = controller.told;
            let _ = write!(
                text,
                "{name}: {phase:?} told {wanted:?}, to do {:?}; ",
                controller.todo
            );
        }
        if let Some(record) = system.record {
            let record = mind.record(record);
            let ending = &record.ending;
            let _ = write!(
                text,
                "record: attempt {} {:?} {ending:?}; ",
                record.attempt, record.phase
            );
        }
        for instance in &system.cloud {
            let doomed = if instance.is_doomed { " doomed" } else { "" };
            let (life, agent) = (instance.life, instance.agent);
            let _ = write!(
                text,
                "i{}: {life:?}{doomed}, agent {agent:?}; ",
                instance.key.attempt
            );
        }
        let calls: Vec<_> = system.calls.iter().map(|call| (call.owner, call.what)).collect();
        let _ = write!(text, "pod: {:?}; calls: {calls:?}", system.pod);
        text
    }

    /// A way through the states in words, for people.
    pub(crate) fn story(&self, way: Vec<(System, Option<Act>)>) -> String {
        let mut text = String::new();
        let mut end = None;
        for (system, act) in way {
            let _ = writeln!(text, "    {}", self.sketch(&system));
            if let Some(act) = act {
                let _ = writeln!(text, "  {act:?}");
            }
            end = Some(system);
        }
        if let Some(Err(why)) = end
            .filter(|_| self.bounds.finishes)
            .map(|end| self.comes_to_its_end(&end))
        {
            let _ = writeln!(text, "{why}");
        }
        text
    }

    fn sees_it_run(&self, controller: &Controller) -> bool {
        let mind = self.mind();
        controller.state.is_some_and(|state| {
            matches!(&mind.state(state).stage, Stage::Running(running) if matches!(running.link, Link::Up { .. }))
        })
    }
}

impl System {
    pub(crate) fn controller(&self, index: u8) -> Option<&Controller> {
        self.controllers[usize::from(index)].as_ref()
    }

    pub(crate) fn controller_mut(&mut self, index: u8) -> Option<&mut Controller> {
        self.controllers[usize::from(index)].as_mut()
    }

    pub(crate) fn instance(&self, key: Key) -> Option<&Instance> {
        self.cloud.iter().find(|instance| instance.key == key)
    }

    pub(crate) fn instance_mut(&mut self, key: Key) -> Option<&mut Instance> {
        self.cloud.iter_mut().find(|instance| instance.key == key)
    }

    pub(crate) fn living(&self) -> usize {
        self.cloud.iter().filter(|instance| instance.is_alive()).count()
    }

    /// Instances on which the pod's containers may be running.
    pub(crate) fn running(&self) -> usize {
        let running = |instance: &&Instance| instance.is_alive() && instance.agent.is_running();
        self.cloud.iter().filter(running).count()
    }

    /// The record has a new version, which only its writer knows.
    pub(crate) fn outdate(&mut self, writer: Option<u8>) {
        for index in 0..2 {
            if Some(index) != writer
                && let Some(controller) = self.controller_mut(index)
            {
                controller.is_current = false;
            }
        }
    }

    /// There is a newer report than what a controller published last.
    pub(crate) fn outdate_reports(&mut self, owner: u8) {
        for call in &mut self.calls {
            if let Progress::Replied(News::Published { is_newest }) = &mut call.what
                && call.owner == Some(owner)
            {
                *is_newest = false;
            }
        }
    }

    pub(crate) fn begin(&mut self, owner: u8, what: What) {
        self.calls.push(Call {
            owner: Some(owner),
            what: Progress::Sent(what),
        });
    }

    pub(crate) fn drop_call(&mut self, call: Call) {
        if let Some(at) = self.calls.iter().position(|other| *other == call) {
            self.calls.remove(at);
        }
    }
}

impl Instance {
    /// Whether it was ever told to run the pod.
    fn was_told(&self) -> bool {
        !matches!(self.agent, Agent::Idle | Agent::Refuses)
    }
}

impl Controller {
    /// Whether it waits for news.
    pub(crate) fn is_free(&self) -> bool {
        self.todo.is_empty() && self.inbox.is_empty()
    }

    pub(crate) fn forget(&mut self) {
        *self = Self {
            state: None,
            before: None,
            wakes: false,
            stored: None,
            is_current: false,
            todo: Vec::new(),
            inbox: Vec::new(),
            told: self.told,
            follows: Vec::new(),
        };
    }
}

//! From a state without further faults to the end: with the pod wanted until all is quiet, then with the pod deleted.
//!
//! `stateright` only looks for cycles that never reach a goal along acyclic paths, so this is checked by going there: always the first
//! thing that leads somewhere new, in a fixed order, until nothing does. A state that is passed on a way that ends well ends well itself.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use crate::checked::{Checked, Defect};
use crate::rules::told_next;
use crate::words::{Agent, Life};
use crate::world::{Act, Budget, Controller, How, Progress, System, Wish};

/// Nothing goes wrong, and time passes for as long as it takes.
fn fault_free() -> Budget {
    Budget {
        starts: 1,
        hours: 1,
        sweeps: 1,
        ..Budget::default()
    }
}

/// More than any way to an end is long.
const STEPS: usize = 2_000;

impl Checked {
    /// Whether the pod runs or has ended once faults stop, and nothing is left of it once it is deleted; else what is left.
    pub(crate) fn comes_to_its_end(&self, system: &System) -> Result<(), String> {
        let mut passed = HashSet::new();
        let mut way = Vec::new();
        let mut calm = system.clone();
        calm.left = fault_free();
        if self.settle(&mut calm, &mut passed, &mut way)? {
            let is_over = calm.pod.wish != Wish::Run || calm.pod.has_ended;
            let is_well = if is_over {
                calm.living() == 0
            } else {
                calm.running() == 1 && calm.living() == 1
            };
            if !is_well {
                return Err(format!(
                    "it neither runs nor has ended cleanly: {}\n  {}",
                    self.sketch(&calm),
                    self.told(system, &way)
                ));
            }
            if calm.pod.wish == Wish::Run {
                calm.pod.wish = if calm.pod.has_ended {
                    Wish::Gone
                } else {
                    Wish::Deleted
                };
            }
            if self.settle(&mut calm, &mut passed, &mut way)? {
                let left = [
                    (calm.living() > 0, "an instance lives on"),
                    (calm.record.is_some(), "the record stays"),
                    (calm.pod.wish != Wish::Gone, "the pod object stays"),
                ];
                if let Some((_, what)) = left.iter().find(|(is_left, _)| *is_left) {
                    return Err(format!(
                        "{what}: {}\n  {}",
                        self.sketch(&calm),
                        self.told(system, &way)
                    ));
                }
            }
        }
        self.good.lock().expect("nobody panicked").extend(passed);
        Ok(())
    }

    /// Goes on until nothing new happens. False when it passed a state that is known to end well.
    fn settle(
        &self,
        system: &mut System,
        passed: &mut HashSet<u64>,
        way: &mut Vec<Act>,
    ) -> Result<bool, String> {
        for _ in 0..STEPS {
            let print = print(system);
            if self.good.lock().expect("nobody panicked").contains(&print) {
                return Ok(false);
            }
            passed.insert(print);
            let Some((act, next)) = self.forward(system, passed) else {
                return Ok(true);
            };
            way.push(act);
            *system = next;
        }
        Err(format!("no end after {STEPS} steps: {}", self.sketch(system)))
    }

    fn forward(&self, system: &System, passed: &HashSet<u64>) -> Option<(Act, System)> {
        let mut acts = Vec::new();
        self.in_order(system, &mut acts);
        acts.into_iter().find_map(|act| {
            let mut next = self.after(system, act)?;
            next.left = fault_free();
            (!passed.contains(&print(&next))).then_some((act, next))
        })
    }

    /// What goes on by itself, the most pressing first: what is begun is finished, time passes last.
    fn in_order(&self, system: &System, acts: &mut Vec<Act>) {
        let alive: Vec<u8> = (0..2)
            .filter(|index| system.controller(*index).is_some())
            .collect();
        if alive.is_empty() {
            acts.push(Act::Start(0));
        }
        for index in &alive {
            let busy = system.controller(*index);
            if busy.is_some_and(|controller| !controller.todo.is_empty()) {
                acts.push(Act::Next(*index));
            }
        }
        let is_free = |index: u8| system.controller(index).is_some_and(Controller::is_free);
        for call in &system.calls {
            match (call.what, call.owner) {
                (Progress::Sent(what), Some(owner)) if what.is_heard_at_once() && !is_free(owner) => {}
                (Progress::Sent(_), _) => acts.push(Act::Carry(*call, How::Done)),
                (Progress::Replied(_), Some(owner)) if is_free(owner) => acts.push(Act::Deliver(*call)),
                (Progress::Replied(_), _) => {}
            }
        }
        for instance in &system.cloud {
            match instance.life {
                Life::Boots => acts.push(Act::Boots(instance.key)),
                Life::Dying => acts.push(Act::Vanishes(instance.key)),
                Life::Up | Life::Gone => {}
            }
            if instance.is_alive() && instance.agent == Agent::Stopping {
                acts.push(Act::AgentStops(instance.key));
            }
        }
        for index in alive.iter().copied().filter(|index| is_free(*index)) {
            let Some(controller) = system.controller(index) else {
                continue;
            };
            if told_next(system.pod, controller).is_some() {
                acts.push(Act::Tell(index));
            }
            acts.extend(controller.follows.iter().map(|key| {
                let is_up = system
                    .instance(*key)
                    .is_some_and(|instance| instance.is_reachable());
                if is_up {
                    Act::Report(index, *key)
                } else {
                    Act::Cut(index, *key)
                }
            }));
            if controller.wakes {
                acts.push(Act::Wake(index));
            }
        }
        if self.bounds.defect != Some(Defect::NoSweep) {
            acts.extend(
                alive
                    .iter()
                    .copied()
                    .filter(|index| is_free(*index))
                    .map(Act::Sweep),
            );
        }
        acts.push(Act::Hour);
    }
}

impl Checked {
    /// The way in words, for people.
    fn told(&self, from: &System, way: &[Act]) -> String {
        let mut system = from.clone();
        let mut text = String::new();
        for act in way {
            system.left = fault_free();
            if let Some(next) = self.after(&system, *act) {
                system = next;
            }
            let _ = writeln!(text, "  {act:?}\n    {}", self.sketch(&system));
        }
        text
    }
}

fn print(system: &System) -> u64 {
    let mut hasher = DefaultHasher::new();
    system.hash(&mut hasher);
    hasher.finish()
}

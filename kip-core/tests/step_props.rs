//! Random lives: whatever happens in whatever order, the machine's promises hold.

#![allow(unreachable_pub, reason = "the shared support module of test crates")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ErrorKind;
use kip_core::ids::InstanceId;
use kip_core::machine::{Action, EDGES, Event, Failure, Phase, PodState, Stage, Wanted, step};
use kip_core::model::{CellPhase, Instance, InstancePhase, RuntimeReport};
use kip_core::sizing::{Choice, NoFit};
use proptest::prelude::*;
use support::{at, config, instance, offering, pod, report, run_wanted};

/// What may happen next. The attempt and the instance are filled in from the state, or from an earlier one when `stale`.
#[derive(Clone, Debug)]
enum Happening {
    Wanted(u8, bool, bool),
    Placed(bool),
    Launched(u8),
    Found(u8),
    Observed(u8),
    Terminated(u8),
    Reported(u8),
    Disconnected,
    Deployed(u8),
    Updated(bool),
    Stopped(u8),
    Interrupted,
    Published,
    Released,
    Woke,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    prop_oneof![
        3 => (0..6_u8, any::<bool>(), any::<bool>()).prop_map(|(a, b, c)| H::Wanted(a, b, c)),
        4 => any::<bool>().prop_map(H::Placed),
        6 => (0..9_u8).prop_map(H::Launched),
        3 => (0..3_u8).prop_map(H::Found),
        3 => (0..5_u8).prop_map(H::Observed),
        5 => (0..4_u8).prop_map(H::Terminated),
        6 => (0..5_u8).prop_map(H::Reported),
        2 => Just(H::Disconnected),
        3 => (0..4_u8).prop_map(H::Deployed),
        1 => any::<bool>().prop_map(H::Updated),
        2 => (0..3_u8).prop_map(H::Stopped),
        3 => Just(H::Interrupted),
        4 => Just(H::Published),
        1 => Just(H::Released),
        6 => Just(H::Woke),
    ]
}

/// Seconds between two events: often less than any deadline, sometimes more than most.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![0..15_u64, 0..400_u64]
}

fn failure(kind: u8) -> Failure {
    let kinds = [
        ErrorKind::Timeout,
        ErrorKind::InsufficientCapacity,
        ErrorKind::QuotaExceeded,
        ErrorKind::RateLimited,
        ErrorKind::InvalidRequest,
        ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists,
        ErrorKind::Unavailable,
    ];
    Failure::new(kinds[usize::from(kind) % kinds.len()], "bad luck")
}

fn event(happening: &Happening, state: &PodState, stale: bool, now: Timestamp) -> Event {
    // A stale one is often about the cell being replaced.
    let attempt = state
        .record()
        .map_or(0, |record| record.attempt)
        .saturating_sub(u32::from(stale));
    // One instance per attempt, as an idempotent cloud gives.
    let own = || instance(&format!("i-{attempt}"), now);
    let phase = |phase| {
        let mut instance = own();
        instance.phase = phase;
        instance
    };
    match happening {
        Happening::Wanted(what, refresh, started_before) => Event::Wanted {
            wanted: match what {
                0 | 1 => run_wanted(true, None),
                2 => run_wanted(false, Some(Duration::from_secs(3600))),
                3 => Wanted::Refused {
                    reason: "Refused".into(),
                    message: "no".into(),
                },
                // Its time may be up already: the source says so again whenever the pod changes.
                4 => Wanted::Deleted {
                    deadline: now
                        .checked_add(jiff::SignedDuration::from_secs(if *refresh { -10 } else { 30 }))
                        .expect("in range"),
                },
                _ => Wanted::Gone,
            },
            refresh: *refresh,
            started_before: *started_before,
        },
        Happening::Placed(true) => Event::Placed(Choice::new(offering("small"))),
        Happening::Placed(false) => Event::NoFit(NoFit::new("nothing fits", true)),
        Happening::Launched(how) => Event::Launched {
            attempt,
            result: match how {
                8 => {
                    let mut bare = own();
                    bare.addresses.management = None;
                    Ok(bare)
                }
                0..2 => Ok(own()),
                other => Err(failure(*other)),
            },
        },
        Happening::Found(how) => Event::Found {
            attempt,
            result: match how {
                0 => Ok(Some(own())),
                1 => Ok(None),
                _ => Err(failure(0)),
            },
        },
        Happening::Observed(how) => Event::Observed {
            attempt,
            result: match how {
                0 => Ok(own()),
                1 => Ok(phase(InstancePhase::Terminated)),
                2 => Ok(phase(InstancePhase::Pending)),
                3 => Err(Failure::new(ErrorKind::NotFound, "gone")),
                _ => Err(failure(0)),
            },
        },
        Happening::Terminated(how) => Event::Terminated {
            attempt,
            result: match how {
                0 => Ok(()),
                1 => Err(Failure::new(ErrorKind::NotFound, "gone")),
                other => Err(failure(*other)),
            },
        },
        Happening::Reported(how) => Event::Reported {
            attempt,
            report: match how {
                0 => Arc::new(RuntimeReport::default()),
                1 => report(None, "other"),
                2 => report(Some(0), "p"),
                3 => report(Some(1), "p"),
                _ => report(None, "p"),
            },
        },
        Happening::Disconnected => Event::Disconnected {
            attempt,
            failure: failure(7),
        },
        Happening::Deployed(how) => Event::Deployed {
            attempt,
            result: match how {
                0 | 1 => Ok(()),
                2 => Err(Failure::new(ErrorKind::Conflict, "another pod")),
                _ => Err(failure(0)),
            },
        },
        Happening::Updated(ok) => Event::Updated {
            attempt,
            result: if *ok { Ok(()) } else { Err(failure(0)) },
        },
        Happening::Stopped(how) => Event::Stopped {
            attempt,
            result: match how {
                0 => Ok(()),
                1 => Err(Failure::new(ErrorKind::NotFound, "not here")),
                _ => Err(failure(0)),
            },
        },
        Happening::Interrupted => Event::Interrupted {
            instance: state
                .instance()
                .cloned()
                .unwrap_or_else(|| InstanceId::new("i-0")),
            deadline: now.checked_add(Duration::from_secs(120)).expect("in range"),
            reason: "spot".into(),
        },
        Happening::Published => Event::Published {
            revision: state.pod.revision,
        },
        Happening::Released => Event::Released,
        Happening::Woke => Event::Woke,
    }
}

/// The attempt that launched an instance, by the name tests give instances.
fn attempt_of(id: &InstanceId) -> u32 {
    id.as_str().trim_start_matches("i-").parse().expect("i-ATTEMPT")
}

/// What the outside world knows of one life, from the actions and events alone.
#[derive(Debug, Default)]
struct Witness {
    /// Instances that may exist and that the machine was told of.
    known: BTreeSet<InstanceId>,
    /// Attempts that were told to run the pod and whose instance the provider has not called gone.
    told: BTreeSet<u32>,
    /// What the record store holds.
    stored: Option<Arc<kip_core::model::CellRecord>>,
}

impl Witness {
    fn check(
        &mut self,
        before: &PodState,
        event: &Event,
        next: &PodState,
        actions: &[Action],
        now: Timestamp,
    ) -> Result<(), TestCaseError> {
        // M1.
        let says_gone = |id: &InstanceId| {
            matches!(event, Event::Terminated { result: Err(failure), .. } if failure.kind == ErrorKind::NotFound)
                && match event {
                    Event::Terminated { attempt, .. } => attempt_of(id) == *attempt,
                    _ => false,
                }
        };
        for id in before.instances() {
            if !next.instances().any(|kept| kept == id) {
                prop_assert!(says_gone(id), "M1: {id} was dropped by {event:?}");
                self.known.remove(id);
                self.told.remove(&attempt_of(id));
            }
        }
        self.known.extend(next.instances().cloned());
        prop_assert!(
            self.known.len() <= 2,
            "only an interrupted cell is replaced before it is gone: {:?}",
            self.known
        );
        // An agent that said the pod has ended, on an instance that the provider takes down, runs it no more.
        if let Some(old) = next.pod.outgoing.as_ref().filter(|old| old.is_over()) {
            self.told.remove(&old.replaced.attempt);
        }
        for action in actions {
            match action {
                Action::Save(record) => self.stored = Some(Arc::clone(record)),
                Action::Remove { cell } => {
                    prop_assert_eq!(self.stored.as_ref().map(|record| &record.name), Some(cell));
                    prop_assert!(
                        next.instances().count() == 0,
                        "M1: the record goes before the instance"
                    );
                    self.stored = None;
                }
                Action::Launch(record) => {
                    let stored = self.stored.as_ref();
                    prop_assert_eq!(
                        stored.map(|stored| &stored.token),
                        Some(&record.token),
                        "M3: launched before stored"
                    );
                    prop_assert!(next.pod.may_run(), "M6/M7: launched for a pod that is not to run");
                    let replaced = stored.and_then(|stored| stored.replaces.as_ref());
                    prop_assert!(
                        self.told
                            .iter()
                            .all(|told| replaced.is_some_and(|replaced| replaced.attempt == *told)),
                        "M3: launched while {:?} may still run the pod, and the record does not say so",
                        self.told
                    );
                }
                Action::Deploy { attempt, .. } => {
                    let stored = self.stored.as_ref().map(|stored| stored.phase);
                    prop_assert_eq!(stored, Some(CellPhase::Running), "M3: told before stored");
                    self.told.insert(*attempt);
                    prop_assert!(self.told.len() == 1, "M2: {:?}", self.told);
                }
                Action::Terminate { attempt, .. } => {
                    let stored = self.stored.as_ref();
                    let is_recorded = stored.is_some_and(|stored| {
                        let replaced = stored.replaces.as_ref().map(|replaced| replaced.attempt);
                        (stored.attempt == *attempt && stored.phase == CellPhase::Terminating)
                            || replaced == Some(*attempt)
                    });
                    prop_assert!(
                        is_recorded,
                        "M3: {attempt} is terminated before stored: {stored:?}"
                    );
                    prop_assert!(
                        !before.pod.is_held()
                            || before.phase() == Phase::Terminating
                            || before.pod.outgoing.is_some(),
                        "M6"
                    );
                }
                _ => {}
            }
        }
        // What is on its way out is never given more time: each deadline of a life only comes nearer.
        if let (Some(old), Some(new)) = (&before.pod.outgoing, &next.pod.outgoing)
            && old.replaced.instance == new.replaced.instance
        {
            prop_assert!(new.deadline <= old.deadline, "{event:?} gives {old:?} more time");
        }
        if let (Stage::Draining(old), Stage::Draining(new)) = (&before.stage, &next.stage) {
            prop_assert!(new.deadline <= old.deadline, "{event:?} gives {old:?} more time");
        }
        // Edges, deadlines.
        let (from, to) = (before.phase(), next.phase());
        let is_edge = from == to || EDGES.iter().any(|edge| (edge.from, edge.to) == (from, to));
        prop_assert!(is_edge, "{from} to {to} by {event:?} is no edge");
        let wake = step(&config(), next.clone(), Event::Woke, now).wake_at;
        if to != Phase::Finished {
            prop_assert!(
                wake.is_some_and(|at| at > now),
                "M5: {to} waits in silence: {wake:?}"
            );
        }
        Ok(())
    }
}

/// The world without faults from here on: every call succeeds and time passes, until the pod is gone for good.
fn drive_to_the_end(
    mut state: PodState,
    mut now: Timestamp,
    witness: &mut Witness,
) -> Result<PodState, TestCaseError> {
    let cfg = config();
    let mut inbox = vec![Event::Wanted {
        wanted: Wanted::Gone,
        refresh: false,
        started_before: false,
    }];
    // Calls that were under way when faults stopped are answered now.
    if let Some(record) = state.record() {
        let attempt = record.attempt;
        inbox.push(Event::Launched {
            attempt,
            result: Err(failure(0)),
        });
        inbox.push(Event::Found {
            attempt,
            result: Ok(None),
        });
        inbox.push(Event::Terminated {
            attempt,
            result: Ok(()),
        });
    }
    if let Some(old) = &state.pod.outgoing {
        inbox.push(Event::Terminated {
            attempt: old.replaced.attempt,
            result: Ok(()),
        });
    }
    for _ in 0..500 {
        let event = match inbox.pop() {
            Some(event) => event,
            None => Event::Woke,
        };
        let before = state.clone();
        let done = step(&cfg, state, event.clone(), now);
        state = done.next;
        witness.check(&before, &event, &state, &done.actions, now)?;
        if done.actions.contains(&Action::Forget) {
            return Ok(state);
        }
        for action in &done.actions {
            inbox.extend(match action {
                Action::Terminate { attempt, .. } => Some(Event::Terminated {
                    attempt: *attempt,
                    result: Err(Failure::new(ErrorKind::NotFound, "gone")),
                }),
                Action::Find { attempt, .. } => Some(Event::Found {
                    attempt: *attempt,
                    result: Ok(None),
                }),
                _ => None,
            });
        }
        if inbox.is_empty() {
            now = done.wake_at.unwrap_or(now).max(now);
        }
    }
    Err(TestCaseError::fail(format!("M7: stuck in {state:?}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order_the_promises_hold(
        life in prop::collection::vec((happening(), prop::bool::weighted(0.15), pause()), 1..80),
        is_wanted in prop::bool::weighted(0.9),
    ) {
        let cfg = config();
        let mut now = at(0);
        let mut state = PodState::new(pod(), now);
        let mut witness = Witness::default();
        let mut events = Vec::new();
        if is_wanted {
            events.push((Event::Wanted { wanted: run_wanted(true, None), refresh: false, started_before: false }, 0));
        }
        for (happening, stale, seconds) in &life {
            let event = match events.pop() {
                Some((event, _)) => event,
                None => event(happening, &state, *stale, now),
            };
            let before = state.clone();
            let done = step(&cfg, state, event.clone(), now);
            prop_assert_eq!(&done, &step(&cfg, before.clone(), event.clone(), now), "pure");
            state = done.next;
            witness.check(&before, &event, &state, &done.actions, now)?;
            if done.actions.contains(&Action::Forget) {
                return Ok(());
            }
            now = now.checked_add(Duration::from_secs(*seconds)).expect("in range");
        }
        let end = drive_to_the_end(state, now, &mut witness)?;
        prop_assert!(end.instances().count() == 0);
        prop_assert!(witness.known.is_empty(), "M7: {:?} left", witness.known);
        prop_assert!(witness.stored.is_none(), "M7: a record is left");
    }
}

#[test]
fn instances_are_plain_values() {
    // Keeps the helper honest: the id is what the machine compares.
    let one: Instance = instance("i-1", at(0));
    assert_eq!(one.id, InstanceId::new("i-1"));
}

//! Checks every order in which two controllers, the cloud, the agents and the API can act for one pod, within bounds. What is modelled, what
//! is not, and the figures: `docs/model.md`.
//!
//! `KIP_MODEL_STATES` sets how many transitions each part looks at, instead of what fits into CI.

#[path = "model/checked.rs"]
mod checked;
#[path = "model/cloud.rs"]
mod cloud;
#[path = "model/finish.rs"]
mod finish;
#[path = "model/mind.rs"]
mod mind;
#[path = "model/normal.rs"]
mod normal;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/sweep.rs"]
mod sweep;
#[path = "model/words.rs"]
mod words;
#[path = "model/world.rs"]
mod world;

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use checked::{Bounds, Checked, Defect};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use world::Budget;

/// Transitions that each part looks at in CI, unless it has no more.
const IN_CI: usize = 60_000;
/// The same where that is all there are.
const ALL: usize = 200_000;

/// What one run of the checker came to.
struct Run {
    /// The property that does not hold, with the shortest way to where it does not.
    broken: Option<(&'static str, String)>,
    /// What was found possible.
    possible: Vec<&'static str>,
    fenced: u64,
    collected: u64,
    /// Whether there was nothing more to look at within the bounds.
    is_complete: bool,
}

fn calm() -> Bounds {
    Bounds {
        budget: Budget {
            starts: 2,
            ..Budget::default()
        },
        attempts: 2,
        offerings: 1,
        restartable: true,
        deletes: true,
        forces: false,
        controllers: 2,
        defect: None,
        finishes: true,
    }
}

fn with(change: impl FnOnce(&mut Budget)) -> Bounds {
    let mut bounds = calm();
    change(&mut bounds.budget);
    bounds
}

fn run(name: &str, bounds: Bounds, in_ci: usize) -> Run {
    let longer = std::env::var("KIP_MODEL_STATES")
        .ok()
        .and_then(|states| states.parse().ok());
    let target = longer.unwrap_or(in_ci);
    let began = Instant::now();
    let checker = Checked::new(bounds)
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(target)
        .spawn_bfs()
        .join();
    let model = checker.model();
    let mut run = Run {
        broken: None,
        possible: Vec::new(),
        fenced: model.fenced.load(Ordering::Relaxed),
        collected: model.collected.load(Ordering::Relaxed),
        is_complete: checker.state_count() < target,
    };
    for (property, path) in checker.discoveries() {
        match model.property(property).expectation {
            Expectation::Always | Expectation::Eventually => {
                run.broken = Some((property, model.story(path.into_vec())));
            }
            Expectation::Sometimes => run.possible.push(property),
        }
    }
    run.is_complete &= run.broken.is_none();
    let (machine, records, steps) = model.mind().sizes();
    let (unique, generated, depth) = (
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
    );
    // Straight to the standard error, which `cargo test -- --nocapture` shows.
    let _ = writeln!(
        std::io::stderr(),
        "model: {name}: {unique} states by {generated} transitions, depth {depth}; {machine} states and {steps} steps of the \
         machine, {records} records; {} fenced, {} collected; {:.1} s{}",
        run.fenced,
        run.collected,
        began.elapsed().as_secs_f32(),
        if run.is_complete { ", all there are" } else { "" },
    );
    run
}

fn holds(name: &str, bounds: Bounds) -> Run {
    holds_within(name, bounds, IN_CI)
}

/// The same for bounds within which all states are looked at.
fn always_holds(name: &str, bounds: Bounds) -> Run {
    let run = holds_within(name, bounds, ALL);
    assert!(
        run.is_complete,
        "{name}: there are more states than were looked at"
    );
    run
}

fn holds_within(name: &str, bounds: Bounds, in_ci: usize) -> Run {
    let run = run(name, bounds, in_ci);
    if let Some((property, story)) = &run.broken {
        panic!("{name}: not so: {property}\n{story}");
    }
    run
}

/// One controller at a time, every fault once.
fn alone(change: impl FnOnce(&mut Budget)) -> Bounds {
    let mut bounds = with(change);
    bounds.controllers = 1;
    bounds
}

#[test]
fn two_controllers_that_nothing_disturbs_run_a_pod_once() {
    let mut bounds = calm();
    bounds.deletes = false;
    let run = always_holds("undisturbed pair", bounds);
    assert!(run.fenced > 0, "no controller was ever stale");
    assert_eq!(run.possible, ["the pod runs"]);
}

#[test]
fn a_pod_deleted_at_any_moment_leaves_nothing() {
    let mut bounds = alone(|budget| {
        budget.crashes = 1;
        budget.hours = 1;
    });
    bounds.forces = true;
    let run = holds("deleted", bounds);
    assert!(
        run.possible.contains(&"the pod is deleted and nothing is left"),
        "{:?}",
        run.possible
    );
}

#[test]
fn a_pod_deleted_at_any_moment_leaves_nothing_whichever_controller_hears_of_it() {
    holds("deleted, pair", calm());
}

#[test]
fn a_crash_between_any_two_actions_loses_nothing() {
    let mut bounds = with(|budget| {
        budget.crashes = 1;
        budget.lost_saves = 1;
        budget.starts = 3;
    });
    bounds.deletes = false;
    holds("crash, pair", bounds);
}

#[test]
fn a_call_that_comes_late_or_is_never_answered_is_neither_repeated_nor_forgotten() {
    let run = holds(
        "ambiguous",
        alone(|budget| {
            budget.crashes = 1;
            budget.faults = 1;
            budget.hours = 2;
            budget.sweeps = 1;
            budget.lags = 1;
        }),
    );
    assert!(run.collected > 0, "no leftover was ever collected");
}

#[test]
fn an_interrupted_pod_runs_on_its_replacement_and_there_only() {
    let mut bounds = alone(|budget| {
        budget.crashes = 1;
        budget.interruptions = 1;
    });
    bounds.deletes = false;
    let run = always_holds("interrupted", bounds);
    assert!(
        run.possible.contains(&"the pod runs on a replacement"),
        "{:?}",
        run.possible
    );
}

#[test]
fn two_controllers_do_not_both_replace_an_interrupted_pod() {
    let mut bounds = with(|budget| budget.interruptions = 1);
    bounds.deletes = false;
    holds("interrupted, pair", bounds);
}

#[test]
fn a_pod_that_may_not_be_restarted_runs_once_and_ends_once() {
    let mut bounds = alone(|budget| {
        budget.crashes = 1;
        budget.deaths = 1;
        budget.ends = 1;
        budget.hours = 1;
    });
    bounds.restartable = false;
    bounds.deletes = false;
    always_holds("run once", bounds);
}

#[test]
fn a_record_removed_by_hand_is_restored_or_its_instance_goes() {
    holds(
        "by hand",
        alone(|budget| {
            budget.crashes = 1;
            budget.hands = 1;
            budget.sweeps = 1;
            budget.hours = 1;
        }),
    );
}

#[track_caller]
fn finds(defect: Defect, mut bounds: Bounds, expected: &[&str]) {
    bounds.defect = Some(defect);
    let run = run(&format!("{defect:?}"), bounds, ALL);
    let (property, story) = run.broken.unwrap_or_else(|| panic!("{defect:?} was not found"));
    let _ = writeln!(std::io::stderr(), "{defect:?}: {property}\n{story}");
    assert!(
        expected.contains(&property),
        "{defect:?} broke another rule: {property}\n{story}"
    );
}

#[test]
fn to_act_before_the_record_is_stored_is_found() {
    finds(
        Defect::ActBeforeSave,
        calm(),
        &["nothing is launched without a stored intent"],
    );
}

#[test]
fn to_overwrite_another_controllers_decision_is_found() {
    finds(
        Defect::OverwriteOnConflict,
        with(|budget| {
            budget.interruptions = 1;
            budget.hours = 1;
        }),
        &["no decision is undone"],
    );
}

#[test]
fn to_take_an_accepted_terminate_for_the_end_is_found() {
    finds(
        Defect::AcceptedIsGone,
        with(|budget| budget.hours = 1),
        &["no record is removed while its instance lives"],
    );
}

#[test]
fn an_agent_that_forgets_a_stop_is_found() {
    let mut bounds = alone(|budget| {
        budget.crashes = 1;
        budget.interruptions = 1;
    });
    bounds.deletes = false;
    bounds.finishes = false;
    finds(
        Defect::AgentForgetsStop,
        bounds,
        &["the pod never runs on two instances"],
    );
}

#[test]
fn to_never_look_for_leftovers_is_found() {
    finds(
        Defect::NoSweep,
        with(|budget| {
            budget.crashes = 1;
            budget.faults = 1;
            budget.hours = 1;
        }),
        &["from every state the pod comes to its end"],
    );
}

#[test]
fn to_publish_an_end_that_another_controller_decided_against_is_found() {
    let mut bounds = with(|budget| {
        budget.interruptions = 1;
        budget.ends = 1;
    });
    bounds.deletes = false;
    bounds.finishes = false;
    finds(Defect::UnfencedEnd, bounds, &["a finished pod is not run again"]);
}

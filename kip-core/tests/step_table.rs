//! One row per edge of the machine: how a pod gets there, what happens, where it goes, and what is asked for.
#![allow(unreachable_pub, reason = "the shared support module of test crates")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::machine::{Action, EDGES, Event, Phase, project, recover};
use kip_core::model::{PodPhase, Unheard};
use kip_core::sizing::NoFit;
use support::life::*;
use support::{at, instance, report, run_wanted};

/// One edge: the life before, the event, where it leads, and an action it must ask for.
type Row = (
    &'static str,
    fn() -> Life,
    fn() -> Event,
    Phase,
    fn(&Action) -> bool,
);

fn is_launch(action: &Action) -> bool {
    matches!(action, Action::Launch(_))
}
fn is_save(action: &Action) -> bool {
    matches!(action, Action::Save(_))
}
fn is_place(action: &Action) -> bool {
    matches!(action, Action::Place)
}
fn is_publish(action: &Action) -> bool {
    matches!(action, Action::Publish)
}
fn is_connect(action: &Action) -> bool {
    matches!(action, Action::Connect { .. })
}
fn is_deploy(action: &Action) -> bool {
    matches!(action, Action::Deploy { .. })
}
fn is_stop(action: &Action) -> bool {
    matches!(action, Action::Stop { .. })
}
fn is_terminate(action: &Action) -> bool {
    matches!(action, Action::Terminate { .. })
}
fn is_remove(action: &Action) -> bool {
    matches!(action, Action::Remove { .. })
}
fn is_warning(action: &Action) -> bool {
    matches!(action, Action::Notify(notice) if notice.warning)
}
fn is_disconnect(action: &Action) -> bool {
    matches!(action, Action::Disconnect { .. })
}

const ROWS: &[Row] = &[
    (
        "a placed pod is launched",
        pending,
        placed,
        Phase::Launching,
        is_launch,
    ),
    (
        "a pod deleted before it was placed ends",
        pending,
        || deleted(30),
        Phase::Finished,
        is_publish,
    ),
    (
        "an instance without address is waited for",
        launching,
        || launched(Ok(bare())),
        Phase::Booting,
        is_save,
    ),
    (
        "an instance with address is dialled at once",
        launching,
        with_address,
        Phase::Connecting,
        is_connect,
    ),
    (
        "no capacity means elsewhere, at once",
        launching,
        || launched(Err(ErrorKind::InsufficientCapacity)),
        Phase::Pending,
        is_place,
    ),
    (
        "a quota means waiting",
        launching,
        || launched(Err(ErrorKind::QuotaExceeded)),
        Phase::BackingOff,
        is_warning,
    ),
    (
        "a launch that is not wanted any more is undone",
        || launching().on(gone()),
        with_address,
        Phase::Terminating,
        is_terminate,
    ),
    (
        "a refused launch of a deleted pod leaves nothing",
        || launching().on(gone()),
        || launched(Err(ErrorKind::InvalidRequest)),
        Phase::Finished,
        is_remove,
    ),
    (
        "an address is dialled",
        booting,
        || observed(Ok(instance("i-1", at(0)))),
        Phase::Connecting,
        is_connect,
    ),
    (
        "a pod deleted while it boots is terminated",
        booting,
        gone,
        Phase::Terminating,
        is_terminate,
    ),
    (
        "an agent that answers is told",
        connecting,
        empty,
        Phase::Deploying,
        is_deploy,
    ),
    (
        "an agent that has the pod is only followed",
        connecting,
        || reported(report(None, "p")),
        Phase::Running,
        is_save,
    ),
    (
        "an agent that has a pod whose time is up is told to stop it",
        || {
            Life::new()
                .on(says(run_wanted(true, Some(Duration::from_secs(60)))))
                .on(placed())
                .on(with_address())
                .after(60)
        },
        || reported(report(None, "p")),
        Phase::Draining,
        is_stop,
    ),
    (
        "a pod deleted before the agent answered is terminated",
        connecting,
        gone,
        Phase::Terminating,
        is_terminate,
    ),
    (
        "the agent confirms the pod",
        deploying,
        || reported(report(None, "p")),
        Phase::Running,
        is_publish,
    ),
    (
        "a pod deleted while it is deployed is stopped",
        deploying,
        || deleted(30),
        Phase::Draining,
        is_stop,
    ),
    (
        "a pod gone while it is deployed is terminated",
        deploying,
        gone,
        Phase::Terminating,
        is_terminate,
    ),
    (
        "an agent that lost the pod is told again",
        running,
        empty,
        Phase::Deploying,
        is_deploy,
    ),
    (
        "a deleted pod is stopped",
        running,
        || deleted(30),
        Phase::Draining,
        is_stop,
    ),
    (
        "a pod gone is terminated at once",
        running,
        gone,
        Phase::Terminating,
        is_terminate,
    ),
    (
        "a stopped pod's instance goes",
        draining,
        || reported(report(Some(0), "p")),
        Phase::Terminating,
        is_disconnect,
    ),
    (
        "after a failed boot there is a pause",
        || terminating().on(terminated(Ok(()))).after(30).on(Event::Woke),
        || terminated(Err(ErrorKind::NotFound)),
        Phase::BackingOff,
        is_publish,
    ),
    (
        "after an interruption there is none",
        || interrupted_again().after(30).on(Event::Woke),
        || Event::Terminated {
            attempt: 2,
            result: Err(failure(ErrorKind::NotFound)),
        },
        Phase::Pending,
        is_place,
    ),
    (
        "an interrupted boot is replaced at once",
        || booting().after(60),
        interruption,
        Phase::Pending,
        is_place,
    ),
    (
        "an interrupted cell nobody told anything is replaced at once",
        || connecting().after(60),
        interruption,
        Phase::Pending,
        is_terminate,
    ),
    (
        "a cell interrupted while it is told is stopped, and replaced at once",
        || deploying().after(60),
        interruption,
        Phase::Pending,
        is_stop,
    ),
    (
        "an interrupted pod is stopped, and replaced at once",
        || running().after(60),
        interruption,
        Phase::Pending,
        is_place,
    ),
    (
        "a boot interrupted once more is not paid for again at once",
        || taken_back_twice(booting()),
        interruption,
        Phase::BackingOff,
        is_publish,
    ),
    (
        "nor is a cell nobody told anything",
        || taken_back_twice(connecting()),
        interruption,
        Phase::BackingOff,
        is_terminate,
    ),
    (
        "nor is one that was being told",
        || taken_back_twice(deploying()),
        interruption,
        Phase::BackingOff,
        is_stop,
    ),
    (
        "nor is one whose pod never came to run",
        || taken_back_twice(running()),
        interruption,
        Phase::BackingOff,
        is_stop,
    ),
    (
        "a pod that has ended is left without instance",
        || booting().on(gone()).after(60).on(Event::Woke),
        || terminated(Err(ErrorKind::NotFound)),
        Phase::Finished,
        is_remove,
    ),
    (
        "time is up: another attempt",
        || backing_off().after(3600),
        || Event::Woke,
        Phase::Pending,
        is_place,
    ),
    (
        "deleted while it waits",
        backing_off,
        || deleted(30),
        Phase::Finished,
        is_publish,
    ),
];

#[test]
fn every_edge_has_a_row_and_every_row_is_an_edge() {
    let mut seen = BTreeSet::new();
    for (name, life, event, to, asks_for) in ROWS {
        let life = life();
        let from = life.phase();
        let life = life.on(event());
        assert_eq!(life.phase(), *to, "{name}: {:?}", life.state);
        assert!(
            life.asks_for(*asks_for),
            "{name}: asked only for {:?}",
            life.actions
        );
        seen.insert((from, *to));
    }
    let edges: BTreeSet<_> = EDGES.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!(seen, edges);
}

#[test]
fn a_replacement_is_told_only_when_the_interrupted_cell_can_run_nothing_any_more() {
    let life = replacement_is_up();
    assert_eq!(life.phase(), Phase::Connecting, "or two instances run one pod");
    assert_eq!(project(&life.state).reason, "Replacing");
    assert!(project(&life.state).disruption.is_some(), "users see why");
    let life = life.on(reported(stopped()));
    assert!(
        life.asks_for(is_terminate) && !life.asks_for(is_deploy),
        "{:?}",
        life.actions
    );
    let life = life.on(terminated(Ok(())));
    assert!(
        life.asks_for(is_deploy),
        "ended there and going down: {:?}",
        life.actions
    );
}

#[test]
fn a_replacement_waits_for_an_interrupted_cell_that_is_silent_until_it_is_gone() {
    let life = replacement_is_up()
        .after(40)
        .on(Event::Woke)
        .on(terminated(Ok(())));
    assert!(
        !life.asks_for(is_deploy),
        "it may still run the pod: {:?}",
        life.actions
    );
    let life = life
        .after(60)
        .on(Event::Woke)
        .on(terminated(Err(ErrorKind::NotFound)));
    assert!(life.asks_for(is_deploy), "{:?}", life.actions);
}

#[test]
fn a_pod_that_ends_by_itself_while_it_is_interrupted_is_not_run_again() {
    let life = replacement_is_up().on(reported(report(Some(0), "p")));
    assert_eq!(life.phase(), Phase::Terminating);
    assert_eq!(project(&life.state).phase, PodPhase::Succeeded);
}

#[test]
fn a_deletion_whose_time_is_up_does_not_hold_an_interrupted_cell_back_for_ever() {
    let mut life = replacement_is_up().on(deleted(50));
    assert!(
        life.asks_for(is_stop),
        "the shorter grace counts: {:?}",
        life.actions
    );
    let deadline = |life: &Life| life.state.pod.outgoing.as_ref().expect("it drains").deadline;
    let first = deadline(&life);
    for _ in 0..5 {
        life = life.after(1).on(Event::Stopped {
            attempt: 1,
            result: Ok(()),
        });
        assert!(!life.asks_for(is_stop), "it was told already: {:?}", life.actions);
        assert_eq!(deadline(&life), first, "or its instance is never terminated");
    }
}

/// A pod that starts, and is lost at once, again and again would else buy an instance a minute without end.
#[test]
fn setbacks_count_until_the_pod_has_run_for_some_minutes() {
    for (seconds, wanted) in [(0, 2), (299, 2), (300, 0)] {
        let mut life = deploying();
        life.state.pod.failures = 2;
        life.state.pod.failed_boots = 2;
        let life = life.after(seconds).on(reported(report(None, "p")));
        let pod = &life.state.pod;
        assert_eq!(pod.failures, wanted, "after {seconds} s");
        assert_eq!(pod.failed_boots, 0, "it has run, for however long");
    }
}

#[test]
fn a_pod_that_a_controller_before_had_stopped_is_not_taken_for_one_that_succeeded() {
    // That controller was told of an interruption, told the agent, and was gone before it could record anything.
    let again = running().on(reported(stopped_for_interruption()));
    assert_eq!(again.phase(), Phase::Terminating);
    assert_eq!(
        project(&again.state).phase,
        PodPhase::Pending,
        "it is to run again"
    );
    let never = Life::new()
        .on(says(run_wanted(false, None)))
        .on(placed())
        .on(with_address())
        .on(empty())
        .on(reported(report(None, "p")))
        .on(reported(stopped_for_interruption()));
    let told = project(&never.state);
    assert_eq!(
        (told.phase, told.reason.as_str()),
        (PodPhase::Failed, "Interrupted")
    );
}

#[test]
fn a_pod_is_not_failed_for_what_its_operator_configured() {
    for kind in [ErrorKind::ConfigInvalid, ErrorKind::PermissionDenied] {
        let life = launching().on(launched(Err(kind)));
        assert_eq!(life.phase(), Phase::BackingOff, "{kind:?}");
    }
}

#[test]
fn a_pod_deleted_while_it_is_replaced_leaves_neither_instance_nor_record() {
    let life = replacement_is_up().on(deleted(70));
    let life = life.after(60).on(Event::Woke).on(Event::Terminated {
        attempt: 2,
        result: Err(failure(ErrorKind::NotFound)),
    });
    assert_eq!(life.phase(), Phase::Finished);
    assert!(
        !life.asks_for(is_remove),
        "the first instance is not gone: {:?}",
        life.actions
    );
    let life = life.on(Event::Woke).on(terminated(Err(ErrorKind::NotFound)));
    assert!(life.asks_for(is_remove), "{:?}", life.actions);
    assert_eq!(life.state.instances().count(), 0);
}

#[test]
fn the_record_of_a_replacement_names_the_instance_it_replaces_or_a_crash_forgets_it() {
    let life = replacement_is_up();
    let record = life.state.record().expect("a record");
    let replaced = record.replaces.as_ref().expect("named");
    assert_eq!((replaced.attempt, replaced.instance.as_str()), (1, "i-1"));
    let again = recover(&life.cfg, (**record).clone(), None, life.now);
    assert_eq!(again.instances().count(), 2);
}

#[test]
fn what_a_pod_came_to_survives_a_restart_while_its_instance_is_terminated() {
    let life = running()
        .on(reported(report(Some(3), "p")))
        .after(31)
        .on(Event::Woke);
    let record = life.state.record().expect("a record");
    let again = recover(&life.cfg, (**record).clone(), None, life.now);
    assert_eq!(project(&again).phase, PodPhase::Failed, "or it runs again");
}

#[test]
fn the_attempt_is_counted_on_over_a_restart_or_two_instances_share_a_token() {
    let life = backing_off();
    let record = life.state.record().expect("kept");
    let again = recover(&life.cfg, (**record).clone(), None, life.now);
    assert_eq!(again.pod.attempt, 1);
}

#[test]
fn a_record_of_a_controller_whose_clock_was_ahead_does_not_hold_the_instance_for_as_long() {
    let life = booting().on(gone());
    let record = life.state.record().expect("a record");
    let long_ago = at(-7200);
    let mut life = Life {
        state: recover(&life.cfg, (**record).clone(), None, long_ago),
        now: long_ago,
        ..life
    };
    for _ in 0..3 {
        life = life
            .on(gone())
            .after(60)
            .on(Event::Woke)
            .on(terminated(Err(ErrorKind::NotFound)));
    }
    assert_eq!(life.phase(), Phase::Finished, "it is gone: {:?}", life.state);
}

#[test]
fn a_taken_over_pod_says_why_nothing_is_heard_of_it_or_a_restart_looks_like_an_outage() {
    let life = running();
    let record = life.state.record().expect("a record");
    let again = Life {
        state: recover(&life.cfg, (**record).clone(), None, life.now),
        ..life
    };
    let report = project(&again.on(run()).state);
    assert_eq!(
        (report.unheard, report.reason.as_str()),
        (Some(Unheard::NotYet), "Connecting")
    );
    assert!(!report.message.is_empty());
}

#[test]
fn what_is_not_known_yet_is_neither_launched_nor_ended() {
    let life = Life::new().on(Event::Woke);
    assert!(life.actions.is_empty(), "{:?}", life.actions);
}

#[test]
fn an_ambiguous_launch_repeats_the_same_token_and_never_grows_the_attempt() {
    let first = launching();
    let token = first.state.record().expect("launching").token.clone();
    let mut life = first;
    for _ in 0..6 {
        life = life
            .on(launched(Err(ErrorKind::Timeout)))
            .after(31)
            .on(Event::Woke);
        let Some(Action::Launch(record)) = life.actions.iter().find(|action| is_launch(action)) else {
            panic!("not repeated: {:?}", life.actions);
        };
        assert_eq!((&record.token, record.attempt), (&token, 1));
    }
}

#[test]
fn the_attempt_grows_only_after_a_list_stayed_empty_past_the_consistency_window() {
    let found_nothing = || Event::Found {
        attempt: 1,
        result: Ok(None),
    };
    let life = launching().after(301).on(launched(Err(ErrorKind::Timeout)));
    assert!(
        life.asks_for(|action| matches!(action, Action::Find { .. })),
        "{:?}",
        life.actions
    );
    let life = life.on(found_nothing());
    assert_eq!(life.phase(), Phase::Launching, "the list may lag");
    let life = life.after(20).on(Event::Woke).on(found_nothing());
    assert_eq!(life.phase(), Phase::BackingOff);
    let life = life.after(600).on(Event::Woke).on(placed());
    assert_eq!(life.state.record().expect("launching again").attempt, 2);
}

#[test]
fn the_clouds_not_found_is_not_believed_of_an_instance_younger_than_its_lag() {
    let young = booting().on(gone()).on(terminated(Err(ErrorKind::NotFound)));
    assert_eq!(
        young.phase(),
        Phase::Terminating,
        "or a bought instance is forgotten for ever"
    );
    let old = young
        .after(21)
        .on(Event::Woke)
        .on(terminated(Err(ErrorKind::NotFound)));
    assert_eq!(old.phase(), Phase::Finished);
}

#[test]
fn a_short_pod_whose_instance_the_cloud_terminated_is_gone_without_waiting_for_the_lag() {
    let life = booting()
        .on(gone())
        .on(terminated(Ok(())))
        .after(1)
        .on(Event::Woke)
        .on(terminated(Err(ErrorKind::NotFound)));
    assert_eq!(
        life.phase(),
        Phase::Finished,
        "or each short pod costs a call after the other, and waits"
    );
}

#[test]
fn a_pod_whose_cell_is_lost_is_not_shown_as_its_agent_saw_it_last() {
    assert!(project(&running().state).runtime.is_some());
    let lost = running()
        .on(Event::Disconnected {
            attempt: 1,
            failure: failure(ErrorKind::Unavailable),
        })
        .after(60)
        .on(Event::Woke)
        .on(observed(Err(ErrorKind::NotFound)));
    assert_eq!(lost.phase(), Phase::Terminating);
    assert!(project(&lost.state).runtime.is_none(), "or it stays Ready");
    let gone = lost.on(terminated(Err(ErrorKind::NotFound)));
    assert_eq!(gone.phase(), Phase::BackingOff);
    assert!(project(&gone.state).runtime.is_none(), "or it stays Ready");
}

#[test]
fn silence_alone_never_moves_a_pod_and_absence_does() {
    let mut life = running().on(Event::Disconnected {
        attempt: 1,
        failure: failure(ErrorKind::Unavailable),
    });
    for _ in 0..100 {
        life = life
            .after(60)
            .on(Event::Woke)
            .on(observed(Ok(instance("i-1", at(0)))));
        assert_eq!(life.phase(), Phase::Running);
    }
    assert_eq!(project(&life.state).reason, "AgentSilent");
    let life = life
        .after(60)
        .on(Event::Woke)
        .on(observed(Err(ErrorKind::NotFound)));
    assert_eq!(life.phase(), Phase::Terminating);
}

#[test]
fn a_running_pod_of_which_a_sweep_says_its_instance_is_not_there_is_kept_while_its_agent_talks() {
    let life = running()
        .after(60)
        .on(reported(report(None, "p")))
        .on(observed(Err(ErrorKind::NotFound)));
    assert_eq!(life.phase(), Phase::Running);
}

#[test]
fn how_a_pod_ended_is_published_before_its_instance_goes() {
    let life = running().on(reported(report(Some(3), "p")));
    assert_eq!(project(&life.state).phase, PodPhase::Failed);
    assert!(
        life.asks_for(is_publish) && !life.asks_for(is_terminate),
        "{:?}",
        life.actions
    );
    let revision = life.state.pod.revision;
    let life = life.on(Event::Published { revision });
    assert!(
        life.asks_for(is_save) && life.asks_for(is_terminate),
        "{:?}",
        life.actions
    );
    // And an API that does not answer does not keep the instance running for ever.
    let stuck = running()
        .on(reported(report(Some(3), "p")))
        .after(31)
        .on(Event::Woke);
    assert!(stuck.asks_for(is_terminate));
}

#[test]
fn a_stop_that_overtakes_the_deploy_is_repeated_or_a_deleted_pod_starts_after_all() {
    let not_there = || Event::Stopped {
        attempt: 1,
        result: Err(failure(ErrorKind::NotFound)),
    };
    let life = deploying().on(deleted(30)).on(not_there());
    assert_eq!(life.phase(), Phase::Draining, "the deploy may still arrive");
    let life = life
        .on(Event::Deployed {
            attempt: 1,
            result: Ok(()),
        })
        .after(1)
        .on(Event::Woke);
    assert!(life.asks_for(is_stop), "{:?}", life.actions);
    let life = life.on(not_there());
    assert_eq!(life.phase(), Phase::Terminating);
}

#[test]
fn a_pod_that_had_ended_and_is_deleted_while_its_instance_goes_is_released() {
    let life = booting().on(gone()).on(deleted(30)).after(60).on(Event::Woke);
    let life = life
        .on(terminated(Err(ErrorKind::NotFound)))
        .after(60)
        .on(Event::Woke);
    assert!(
        life.asks_for(|action| matches!(action, Action::Release)),
        "{:?}",
        life.actions
    );
    let life = life.on(Event::Released);
    assert!(
        life.asks_for(|action| matches!(action, Action::Forget)),
        "{:?}",
        life.actions
    );
}

#[test]
fn a_shorter_grace_shortens_a_stop_under_way_and_a_longer_one_does_not() {
    let life = draining().on(deleted(10));
    let grace = life.actions.iter().find_map(|action| match action {
        Action::Stop { grace, .. } => Some(*grace),
        _ => None,
    });
    assert_eq!(grace, Some(Duration::from_secs(10)));
    let life = life.on(deleted(300));
    assert!(!life.asks_for(is_stop), "{:?}", life.actions);
}

#[test]
fn agent_events_are_told_once_each() {
    let with_events = |ids: &[u64]| {
        let mut new = (*report(None, "p")).clone();
        new.events = ids
            .iter()
            .map(|id| kip_core::model::AgentEvent {
                id: *id,
                at: at(1),
                warning: false,
                reason: "Pulled".into(),
                message: String::new(),
                container: "main".into(),
            })
            .collect();
        reported(Arc::new(new))
    };
    let told = |life: &Life| {
        life.actions
            .iter()
            .filter(|action| matches!(action, Action::Notify(n) if n.reason == "Pulled"))
            .count()
    };
    let life = deploying().on(with_events(&[1, 2]));
    assert_eq!(told(&life), 2);
    let life = life.on(with_events(&[1, 2, 3]));
    assert_eq!(told(&life), 1);
    let life = life.on(with_events(&[1, 2, 3]));
    assert_eq!(told(&life), 0);
}

#[test]
fn a_pod_nothing_fits_says_so_once_and_is_tried_again() {
    let life = pending().on(Event::NoFit(NoFit::new("needs 64 GiB", false)));
    assert!(life.asks_for(|action| matches!(action, Action::Notify(n) if n.warning && n.reason == "NoFit")));
    assert_eq!(project(&life.state).message, "needs 64 GiB");
    let life = life.after(1).on(Event::OfferingsChanged);
    assert!(life.asks_for(is_place));
    let life = life.on(Event::NoFit(NoFit::new("needs 64 GiB", false)));
    assert!(
        !life.asks_for(|action| matches!(action, Action::Notify(_))),
        "{:?}",
        life.actions
    );
}

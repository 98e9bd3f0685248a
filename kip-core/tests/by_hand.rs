//! Records edited and removed by hand, in every phase and field: named to the user, put right, and nothing is destroyed for it.

use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::ids::{ClusterUid, InstanceId, LaunchToken, NodeName, PodUid};
use kip_core::model::{CellPhase, CellRecord, Ending, PodPhase, Replaced};
use kip_testkit::{Fault, Op, StoreOp, World, invariants, samples};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(1800);

type Edit = fn(&mut CellRecord, &CellRecord);

/// Every field a hand can change, given the record of a neighbour whose instance must not suffer. All break the record.
const EDITS: [(&str, Edit); 12] = [
    ("instance: the neighbour's", |record, neighbour| {
        record.instance.clone_from(&neighbour.instance);
    }),
    ("instance: one that never was", |record, _| {
        record.instance = Some(InstanceId::new("i-never"));
    }),
    ("instance: none", |record, _| record.instance = None),
    ("token: the neighbour's", |record, neighbour| {
        record.token.clone_from(&neighbour.token);
    }),
    ("attempt", |record, _| record.attempt += 1),
    ("offering", |record, _| {
        record.offering = samples::offering_id("large");
    }),
    ("pod", |record, neighbour| record.pod.clone_from(&neighbour.pod)),
    ("node", |record, _| record.node = NodeName::new("another")),
    ("cluster", |record, _| record.cluster = ClusterUid::new("another")),
    ("phase: terminating, over", |record, _| {
        record.phase = CellPhase::Terminating;
        record.ending = Some(Ending::Over(None));
    }),
    ("address", |record, _| {
        record.addresses.management = Some([192, 0, 2, 1].into());
    }),
    ("replaces: the neighbour's", |record, neighbour| {
        record.replaces = Some(Replaced {
            attempt: 0,
            token: neighbour.token.clone(),
            instance: neighbour.instance.clone().expect("it runs"),
            address: None,
        });
    }),
];

/// When in a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Launching,
    Booting,
    Running,
}

fn phase(world: &World, pod: &PodUid) -> Option<PodPhase> {
    world.source.report(pod).map(|report| report.phase)
}

fn reasons(world: &World, pod: &PodUid) -> Vec<String> {
    let notices = world.source.notices(pod);
    notices.into_iter().map(|notice| notice.reason).collect()
}

fn record_of(world: &World, pod: &PodUid) -> Option<CellRecord> {
    let all = world.store.records();
    all.into_iter().find(|record| record.pod.uid == *pod)
}

async fn until(world: &World, what: &str, holds: impl FnMut() -> bool) {
    assert!(world.wait_until(LATER, holds).await, "not reached: {what}");
}

/// A neighbour that runs, and a pod at this moment of its life.
async fn at(world: &mut World, moment: Moment) -> (PodUid, CellRecord, PodUid) {
    world.start().expect("starts");
    let neighbour = world.source.run(samples::demand("neighbour"));
    until(world, "the neighbour runs", || {
        phase(world, &neighbour) == Some(PodPhase::Running)
    })
    .await;
    let beside = record_of(world, &neighbour).expect("recorded");
    match moment {
        Moment::Launching => {
            let slow = Fault::Slow(Duration::from_secs(20));
            world.cloud.faults().add(Op::Launch, slow);
        }
        Moment::Booting => world.cloud.set_boot_delay(Duration::from_secs(20)),
        Moment::Running => {}
    }
    let pod = world.source.run(samples::demand("web"));
    let wanted = match moment {
        Moment::Launching => CellPhase::Launching,
        Moment::Booting => CellPhase::Booting,
        Moment::Running => CellPhase::Running,
    };
    until(world, "the moment has come", || {
        record_of(world, &pod).is_some_and(|record| record.phase == wanted)
            && (moment != Moment::Running || phase(world, &pod) == Some(PodPhase::Running))
    })
    .await;
    (neighbour, beside, pod)
}

/// The neighbour was left alone, and everything goes when it is deleted.
async fn unharmed(world: &World, what: &str, neighbour: &PodUid, beside: &CellRecord, pod: &PodUid) {
    let is_there = world
        .cloud
        .instances()
        .iter()
        .any(|instance| Some(&instance.id) == beside.instance.as_ref());
    assert!(is_there, "{what}: the neighbour's instance is gone");
    assert_eq!(world.runtime.starts(neighbour), 1, "{what}");
    for pod in [neighbour, pod] {
        world.source.delete(pod, SOON);
    }
    let gone = world
        .wait_until(LATER, || invariants::nothing_left(world).is_ok())
        .await;
    assert!(gone, "{what}: {:?}", invariants::nothing_left(world));
    invariants::never_doubled(world).expect("never doubled");
}

#[tokio::test(start_paused = true)]
async fn a_record_edited_under_a_living_controller_is_restored_and_its_pod_is_told() {
    for moment in [Moment::Launching, Moment::Booting, Moment::Running] {
        for (field, edit) in EDITS {
            let what = format!("{field} while {moment:?}");
            let mut world = World::new();
            let (neighbour, beside, pod) = at(&mut world, moment).await;
            let before = record_of(&world, &pod).expect("recorded");
            let mut edited = before.clone();
            edit(&mut edited, &beside);
            if edited == before {
                continue; // It says so already at this moment.
            }
            world
                .store
                .edit_by_hand(&before.name, |record| edit(record, &beside));
            let is_told = world.wait_until(LATER, || {
                reasons(&world, &pod)
                    .iter()
                    .any(|reason| reason == "CellRestored")
            });
            assert!(is_told.await, "{what}: {:?}", reasons(&world, &pod));
            until(&world, &what, || {
                phase(&world, &pod) == Some(PodPhase::Running)
                    && record_of(&world, &pod).is_some_and(|record| record.phase == CellPhase::Running)
            })
            .await;
            world.wait_until(SOON * 5, || false).await;
            assert_eq!(world.cloud.ever_made(), 2, "{what}");
            assert_eq!(world.runtime.starts(&pod), 1, "{what}");
            unharmed(&world, &what, &neighbour, &beside, &pod).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_edited_while_no_controller_was_there_is_restored_from_the_tags_of_its_instance() {
    for moment in [Moment::Booting, Moment::Running] {
        for (field, edit) in EDITS {
            let what = format!("{field} while {moment:?}");
            let mut world = World::new();
            let (neighbour, beside, pod) = at(&mut world, moment).await;
            let before = record_of(&world, &pod).expect("recorded");
            world.crash().await;
            world
                .store
                .edit_by_hand(&before.name, |record| edit(record, &beside));
            world.start().expect("starts");
            until(&world, &what, || {
                reasons(&world, &pod)
                    .iter()
                    .any(|reason| reason == "CellRestored")
            })
            .await;
            until(&world, &what, || phase(&world, &pod) == Some(PodPhase::Running)).await;
            let after = record_of(&world, &pod).expect("restored");
            assert_eq!(
                (&after.token, &after.instance),
                (&before.token, &before.instance),
                "{what}"
            );
            world.wait_until(SOON * 5, || false).await;
            assert_eq!(world.cloud.ever_made(), 2, "{what}");
            assert_eq!(world.runtime.starts(&pod), 1, "{what}");
            unharmed(&world, &what, &neighbour, &beside, &pod).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_record_that_names_an_instance_nothing_is_known_of_holds_its_pod_back_until_it_is_removed() {
    let mut world = World::new();
    let (neighbour, beside, pod) = at(&mut world, Moment::Launching).await;
    let name = record_of(&world, &pod).expect("recorded").name;
    world.crash().await;
    world
        .store
        .edit_by_hand(&name, |record| record.instance.clone_from(&beside.instance));
    world.start().expect("starts");
    until(&world, "the user is told", || {
        reasons(&world, &pod)
            .iter()
            .any(|reason| reason == "CellNotStored")
    })
    .await;
    assert!(!world.wait_until(LATER, || world.cloud.ever_made() > 1).await);
    // It does not hold the deletion back, nor other pods.
    let other = world.source.run(samples::demand("other"));
    until(&world, "another pod runs", || {
        phase(&world, &other) == Some(PodPhase::Running)
    })
    .await;
    world.store.delete_by_hand(&name);
    until(&world, "it runs once the record is removed", || {
        phase(&world, &pod) == Some(PodPhase::Running)
    })
    .await;
    world.source.delete(&other, SOON);
    unharmed(&world, "held", &neighbour, &beside, &pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_record_that_names_nothing_is_written_over() {
    let mut world = World::new();
    let (neighbour, beside, pod) = at(&mut world, Moment::Launching).await;
    let name = record_of(&world, &pod).expect("recorded").name;
    world.crash().await;
    world
        .store
        .edit_by_hand(&name, |record| record.token = LaunchToken::from_stored("forged"));
    world.start().expect("starts");
    until(&world, "it runs", || {
        phase(&world, &pod) == Some(PodPhase::Running)
    })
    .await;
    assert!(
        reasons(&world, &pod)
            .iter()
            .any(|reason| reason == "CellRestored")
    );
    unharmed(&world, "written over", &neighbour, &beside, &pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_removed_by_hand_is_made_again_whoever_finds_it_missing() {
    for moment in [Moment::Launching, Moment::Booting, Moment::Running] {
        for is_away in [false, true] {
            let what = format!("{moment:?}, controller away: {is_away}");
            let mut world = World::new();
            let (neighbour, beside, pod) = at(&mut world, moment).await;
            let name = record_of(&world, &pod).expect("recorded").name;
            if is_away {
                world.crash().await;
            }
            world.store.delete_by_hand(&name);
            if is_away {
                world.start().expect("starts");
            }
            until(&world, &what, || {
                phase(&world, &pod) == Some(PodPhase::Running)
                    && record_of(&world, &pod).is_some_and(|record| record.instance.is_some())
            })
            .await;
            world.wait_until(SOON * 5, || false).await;
            if !is_away {
                assert!(
                    reasons(&world, &pod)
                        .iter()
                        .any(|reason| reason == "CellRestored"),
                    "{what}"
                );
            }
            assert_eq!(world.cloud.ever_made(), 2, "{what}");
            assert_eq!(world.runtime.starts(&pod), 1, "{what}");
            unharmed(&world, &what, &neighbour, &beside, &pod).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_hand_does_to_the_record_of_a_pod_that_ends_keeps_nothing_alive() {
    for is_removed in [false, true] {
        let mut world = World::new();
        let (neighbour, beside, pod) = at(&mut world, Moment::Running).await;
        world.cloud.set_terminate_delay(Duration::from_secs(120));
        world.source.delete(&pod, Duration::from_secs(5));
        until(&world, "it is being terminated", || {
            record_of(&world, &pod).is_some_and(|record| record.phase == CellPhase::Terminating)
        })
        .await;
        let name = record_of(&world, &pod).expect("recorded").name;
        if is_removed {
            world.store.delete_by_hand(&name);
        } else {
            world
                .store
                .edit_by_hand(&name, |record| record.instance.clone_from(&beside.instance));
        }
        unharmed(&world, "ending", &neighbour, &beside, &pod).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_cluster_is_left_alone_and_its_pod_waits_and_says_so() {
    let mut world = World::new();
    let pod = samples::pod("web");
    let cluster = ClusterUid::new("another");
    let token = LaunchToken::derive(
        &cluster,
        &samples::node(),
        &pod.uid,
        1,
        &samples::offering_id("small"),
    );
    let now = world.clock.now();
    let theirs = CellRecord::intent(
        pod.clone(),
        samples::node(),
        cluster,
        1,
        token,
        samples::offering_id("small"),
        kip_core::model::Price(1),
        now,
    );
    world.store.put_by_hand(&theirs);
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until(&world, "the user is told", || {
        reasons(&world, &pod)
            .iter()
            .any(|reason| reason == "CellNotStored")
    })
    .await;
    assert_eq!(world.cloud.ever_made(), 0);
    // The pod is not held by it when it is deleted.
    world.source.delete(&pod, Duration::from_secs(5));
    until(&world, "the pod is released", || !world.source.exists(&pod)).await;
    world.wait_until(LATER, || false).await;
    assert_eq!(world.store.records().len(), 1, "and the record is still there");
}

#[tokio::test(start_paused = true)]
async fn a_record_the_store_refuses_is_told_holds_up_nobody_else_and_lets_its_pod_go() {
    for kind in [ErrorKind::InvalidRequest, ErrorKind::PermissionDenied] {
        let mut world = World::new();
        world.start().expect("starts");
        // More pods than there are workers, none of which can be stored.
        for _ in 0..5_000 {
            world.store.faults().add(StoreOp::Create, Fault::Fail(kind));
        }
        let refused: Vec<PodUid> = (0..100)
            .map(|n| world.source.run(samples::demand(&format!("refused-{n}"))))
            .collect();
        until(&world, "all are told", || {
            refused.iter().all(|pod| {
                reasons(&world, pod)
                    .iter()
                    .any(|reason| reason == "CellNotStored")
            })
        })
        .await;
        let told = reasons(&world, &refused[0]);
        assert_eq!(
            told.iter().filter(|reason| *reason == "CellNotStored").count(),
            1,
            "once"
        );
        for pod in &refused {
            world.source.delete(pod, Duration::from_secs(5));
        }
        until(&world, "all are released", || world.source.is_empty()).await;
        assert_eq!(world.cloud.ever_made(), 0);
        world.store.faults().clear();
        let pod = world.source.run(samples::demand("web"));
        until(&world, "it runs", || {
            phase(&world, &pod) == Some(PodPhase::Running)
        })
        .await;
    }
}

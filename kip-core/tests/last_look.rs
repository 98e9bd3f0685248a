//! What was decided a while ago is looked at once more before it buys anything: meanwhile another controller, or the user, may have ended
//! the pod. And what is said while the last record goes is heard.

use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::driver::{HeldBack, PodSource as _};
use kip_core::ids::{LaunchToken, PodUid};
use kip_core::machine::{Backoff, Phase, StepConfig};
use kip_core::model::{CellRecord, PodPhase, PodReport};
use kip_testkit::{CloudCall, Fault, Op, PodScript, SourceOp, StoreOp, World, invariants, samples};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(1800);
/// Longer than a word of the store or the source is taken for true, and shorter than until the next sweep.
const WHILE: Duration = Duration::from_secs(15);

async fn until(world: &World, what: &str, holds: impl FnMut() -> bool) {
    assert!(world.wait_until(SOON, holds).await, "not reached: {what}");
}

/// A world in which a driver runs that has swept once, and will not for half a minute.
async fn calm(tune: fn(&mut StepConfig)) -> World {
    let mut world = World::new().tuned(tune);
    let handle = world.start().expect("starts");
    until(&world, "it is up", || handle.is_recovered()).await;
    world.wait_until(Duration::from_secs(1), || false).await;
    world
}

fn phase(world: &World, pod: &PodUid) -> Option<Phase> {
    let all = world.handle().expect("runs").snapshot();
    all.iter()
        .find(|cell| cell.pod.uid == *pod)
        .map(|cell| cell.phase)
}

fn is_recorded(world: &World, pod: &PodUid) -> bool {
    world.store.records().iter().any(|record| record.pod.uid == *pod)
}

fn held_back(world: &World, why: HeldBack) -> u64 {
    let metrics = world.handle().expect("runs").metrics();
    metrics.held_back.get(&why).copied().unwrap_or(0)
}

/// Another controller tells how a pod ended, and nobody tells the driver here.
async fn ends_elsewhere(world: &World, pod: &PodUid) {
    let end = PodReport::new(PodPhase::Succeeded, "", "");
    world.source.publish(pod, &end).await.expect("published");
}

/// Another controller is done with a pod: it ended, and its record and its instance are gone.
async fn is_over_elsewhere(world: &World, pod: &PodUid) {
    ends_elsewhere(world, pod).await;
    let records = world.store.records();
    let record = records.iter().find(|record| record.pod.uid == *pod);
    world.store.delete_by_hand(&record.expect("recorded").name);
}

/// Nothing was made for a pod, and nothing will be; neither record nor machine remains.
async fn costs_nothing(world: &World, pod: &PodUid) {
    until(world, "the driver lets go of it", || {
        !is_recorded(world, pod) && phase(world, pod).is_none()
    })
    .await;
    let bought = world.wait_until(LATER, || {
        is_recorded(world, pod)
            || world
                .cloud
                .instances()
                .iter()
                .any(|instance| instance.tags.values().any(|tag| tag == pod.as_str()))
    });
    assert!(!bought.await, "{:?}", world.cloud.instances());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_elsewhere_while_its_launch_waited_in_line_is_bought_no_second_instance() {
    let world = calm(|_| ()).await;
    for _ in 0..4 {
        world.cloud.faults().add(Op::Launch, Fault::Slow(WHILE));
    }
    for n in 0..4 {
        world.source.run(samples::demand(&format!("first-{n}")));
    }
    until(&world, "no more go at once", || world.cloud.launches() == 4).await;
    let ended = world.source.run(samples::demand("ended"));
    let kept = world.source.run(samples::demand("kept"));
    until(&world, "both wait in line", || {
        is_recorded(&world, &ended) && is_recorded(&world, &kept)
    })
    .await;
    assert_eq!(world.cloud.launches(), 4);
    is_over_elsewhere(&world, &ended).await;

    until(&world, "the other's turn comes", || {
        phase(&world, &kept) == Some(Phase::Running)
    })
    .await;
    costs_nothing(&world, &ended).await;
    assert_eq!((world.cloud.launches(), world.cloud.ever_made()), (5, 5));
    assert_eq!(held_back(&world, HeldBack::Withdrawn), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_elsewhere_before_its_launch_was_repeated_is_bought_no_second_instance() {
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Conflict,
        ErrorKind::RateLimited,
    ] {
        let world = calm(|step| step.launch_retry = Backoff::new(WHILE, WHILE)).await;
        world.cloud.faults().add(Op::Launch, Fault::Fail(kind));
        if kind == ErrorKind::RateLimited {
            // Twice, or it is repeated at once.
            world.cloud.faults().add(Op::Launch, Fault::Fail(kind));
        }
        let pod = world.source.run(samples::demand("web"));
        until(&world, "the launch failed", || {
            world
                .source
                .report(&pod)
                .is_some_and(|report| report.message.contains("injected"))
        })
        .await;
        let calls = world.cloud.launches();
        is_over_elsewhere(&world, &pod).await;
        costs_nothing(&world, &pod).await;
        assert_eq!(
            (world.cloud.launches(), world.cloud.ever_made()),
            (calls, 0),
            "{kind:?}"
        );
        assert_eq!(held_back(&world, HeldBack::Withdrawn), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_while_its_first_record_was_being_stored_costs_nothing() {
    // Stored at the end of that time, or at its beginning with an answer that comes late.
    for fault in [Fault::Slow(WHILE), Fault::LateReply(WHILE)] {
        let world = calm(|_| ()).await;
        world.store.faults().add(StoreOp::Create, fault.clone());
        let pod = world.source.run(samples::demand("web"));
        until(&world, "it is being stored", || world.store.faults().is_empty()).await;
        ends_elsewhere(&world, &pod).await;
        until(&world, "it is stored", || !world.store.cells().is_empty()).await;
        costs_nothing(&world, &pod).await;
        assert_eq!(world.cloud.launches(), 0, "{fault:?}");
        assert_eq!(held_back(&world, HeldBack::Withdrawn), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_during_the_last_look_before_its_launch_costs_nothing() {
    let world = calm(|_| ()).await;
    world.store.faults().add(StoreOp::Create, Fault::Slow(WHILE));
    // It is still wanted when that is read, and not any more when the answer comes.
    let look = Fault::LateReply(Duration::from_secs(3));
    world.source.faults().add(SourceOp::Presence, look);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "it is looked at", || world.source.faults().is_empty()).await;
    world.source.delete(&pod, SOON);
    until(&world, "it is released", || !world.source.exists(&pod)).await;
    costs_nothing(&world, &pod).await;
    assert_eq!(world.cloud.launches(), 0);
    assert_eq!(invariants::nothing_left(&world), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_cannot_be_looked_at_once_more_is_not_sent_blindly() {
    let world = calm(|_| ()).await;
    world.store.faults().add(StoreOp::Create, Fault::Slow(WHILE));
    let unread = Fault::Fail(ErrorKind::Unavailable);
    world.source.faults().add(SourceOp::Presence, unread);
    let ended = world.source.run(samples::demand("ended"));
    until(&world, "it is being stored", || world.store.faults().is_empty()).await;
    ends_elsewhere(&world, &ended).await;
    until(&world, "it could not be read", || {
        world.source.faults().is_empty()
    })
    .await;
    costs_nothing(&world, &ended).await;
    assert_eq!(world.cloud.launches(), 0);

    // One that is still wanted is only late.
    world.store.faults().add(StoreOp::Create, Fault::Slow(WHILE));
    let unread = Fault::Fail(ErrorKind::Unavailable);
    world.source.faults().add(SourceOp::Presence, unread);
    let kept = world.source.run(samples::demand("kept"));
    until(&world, "the other runs", || {
        phase(&world, &kept) == Some(Phase::Running)
    })
    .await;
    assert!(world.source.faults().is_empty(), "it could not be read");
    assert_eq!(world.cloud.ever_made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_launch_whose_record_was_removed_while_it_waited_is_sent_only_when_the_record_stands_again() {
    let world = calm(|step| step.launch_retry = Backoff::new(WHILE, WHILE)).await;
    let failure = Fault::Fail(ErrorKind::Conflict);
    world.cloud.faults().add(Op::Launch, failure);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "the launch failed", || world.cloud.launches() == 1).await;
    let name = world.store.records()[0].name.clone();
    world.store.delete_by_hand(&name);
    // What is known of an instance is stored too late to make up for it.
    world.store.faults().add(StoreOp::Update, Fault::Slow(WHILE));
    let unrecorded = world.wait_until(LATER, || {
        world.cloud.ever_made() > 0 && !is_recorded(&world, &pod)
    });
    assert!(
        !unrecorded.await,
        "an instance that no record names is lost in a crash"
    );
    assert_eq!(phase(&world, &pod), Some(Phase::Running));
    assert_eq!((world.cloud.launches(), world.cloud.ever_made()), (2, 1));
    assert_eq!(held_back(&world, HeldBack::Withdrawn), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_whose_place_another_controller_has_put_another_is_not_paid_for_as_well() {
    let world = calm(|step| step.launch_retry = Backoff::new(WHILE, WHILE)).await;
    let failure = Fault::Fail(ErrorKind::Conflict);
    world.cloud.faults().add(Op::Launch, failure);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "the launch failed", || world.cloud.launches() == 1).await;
    let first = world.store.records()[0].clone();
    let (cluster, node) = (first.cluster, first.node);
    let token = LaunchToken::derive(&cluster, &node, &pod, 2, &first.offering);
    let second = CellRecord::intent(
        first.pod,
        node,
        cluster,
        2,
        token.clone(),
        first.offering,
        first.price,
        world.clock.now(),
    );
    world.store.put_by_hand(&second);
    until(&world, "it runs", || phase(&world, &pod) == Some(Phase::Running)).await;
    world.wait_until(LATER, || false).await;
    let calls = world.cloud.calls();
    let launched = calls.into_iter().filter_map(|call| match call {
        CloudCall::Launch(token, _) => Some(token),
        CloudCall::Terminate(_) | CloudCall::Get(_) | CloudCall::List => None,
    });
    assert_eq!(launched.collect::<Vec<_>>(), [first.token, token]);
    assert_eq!(world.cloud.ever_made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_the_record_of_its_end_is_being_removed_does_not_stay_for_ever() {
    let mut world = calm(|_| ()).await;
    let pod = world.source.run_once(samples::demand("job"));
    let ends = PodScript::ends(Duration::from_secs(5), 0);
    world.runtime.script(&pod, ends);
    world.cloud.set_terminate_delay(SOON);
    until(&world, "it ended", || {
        let report = world.source.report(&pod);
        report.is_some_and(|report| report.phase == PodPhase::Succeeded)
    })
    .await;
    // To a controller that takes over now the source says nothing of a pod that has ended: it counts as gone.
    world.crash().await;
    world.start().expect("starts");
    world.store.faults().add(StoreOp::Remove, Fault::Slow(WHILE));
    let removing = world.wait_until(LATER, || world.store.faults().is_empty());
    assert!(removing.await, "its record is being removed");
    assert!(is_recorded(&world, &pod));
    world.source.delete(&pod, SOON);
    let released = world.wait_until(LATER, || !world.source.exists(&pod));
    assert!(released.await, "the deletion was lost");
    until(&world, "nothing is left", || {
        invariants::nothing_left(&world).is_ok()
    })
    .await;
}

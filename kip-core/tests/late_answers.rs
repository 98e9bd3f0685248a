//! The cloud says that there is no instance while it may not know it yet, and that is heard or answered late. It proves no more for that.

use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::ids::PodUid;
use kip_core::machine::Phase;
use kip_core::model::Instance;
use kip_testkit::{Fault, Op, StoreOp, World, invariants, samples};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(1800);
/// How long the cloud may not know of an instance that it has launched.
const LAG: Duration = Duration::from_secs(20);
/// Longer than that, and shorter than a call may take.
const LONG: Duration = Duration::from_secs(40);

/// A world with a lagging cloud in which a driver runs that has swept once, and will not for half a minute.
async fn lagging() -> World {
    let mut world = World::selling(samples::offerings(), LAG);
    let handle = world.start().expect("starts");
    until(&world, "it is up", || handle.is_recovered()).await;
    world.wait_until(Duration::from_secs(1), || false).await;
    world
}

async fn until(world: &World, what: &str, holds: impl FnMut() -> bool) {
    assert!(world.wait_until(SOON, holds).await, "not reached: {what}");
}

/// Whether the only pod there is runs, in this attempt.
fn runs(world: &World, attempt: u32) -> bool {
    let all = world.handle().expect("runs").snapshot();
    all.iter().any(|cell| {
        let record = cell.record.as_ref();
        cell.phase == Phase::Running && record.is_some_and(|record| record.attempt == attempt)
    })
}

/// An instance that no record claims: nobody would end it if the sweeps did not come to suspect it.
fn unowned(world: &World) -> Option<Instance> {
    let records = world.store.records();
    let all = world.cloud.instances();
    all.into_iter().find(|instance| {
        !records.iter().any(|record| {
            let replaced = record.replaces.as_ref().map(|replaced| &replaced.token);
            [Some(&record.token), replaced]
                .into_iter()
                .flatten()
                .any(|token| instance.token.as_ref() == Some(token))
        })
    })
}

/// A pod runs and is silent, and its instance is taken back: it can only be terminated, and the cloud does not know it yet.
async fn interrupted_in_silence(world: &World) {
    world.source.run(samples::demand("web"));
    until(world, "it runs", || runs(world, 1)).await;
    let first = world.cloud.instances()[0].id.clone();
    world.runtime.set_silent(&first, true);
    world.cloud.interrupt(&first, world.clock.now(), "spot");
    until(world, "the next attempt is recorded", || {
        world.store.records()[0].attempt == 2
    })
    .await;
}

/// The pod moves to its second instance, and the first is ended before.
async fn moves_once(world: &World) {
    assert!(world.wait_until(LATER, || runs(world, 2)).await);
    invariants::never_doubled(world).expect("never doubled");
    assert_eq!(
        world.cloud.instances().len(),
        1,
        "the first is not paid for any longer"
    );
    let left = world.wait_until(LATER, || unowned(world).is_some());
    assert!(!left.await, "{:?}", unowned(world));
    assert_eq!(world.cloud.ever_made(), 2);
}

/// A launch was answered by an error although it made an instance, and cannot be repeated: the cloud is asked for its token, and does not
/// know it yet. The answer takes so long.
async fn looked_for(world: &World, answer: Duration) -> PodUid {
    for fault in [
        Fault::LostReply(ErrorKind::Timeout),
        Fault::Fail(ErrorKind::InsufficientCapacity),
    ] {
        world.cloud.faults().add(Op::Launch, fault);
    }
    world.cloud.faults().add(Op::List, Fault::LateReply(answer));
    let pod = world.source.run(samples::demand("web"));
    until(world, "it is looked for", || world.cloud.faults().is_empty()).await;
    assert_eq!(world.cloud.ever_made(), 1);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_run_twice_because_an_early_not_found_was_read_after_a_slow_write() {
    let world = lagging().await;
    let began = world.clock.now();
    let not_found = Fault::LateFail(LAG / 4, ErrorKind::NotFound);
    world.cloud.faults().add(Op::Terminate, not_found);
    // The second instance comes, and its record is being written, when that has been asked and is not answered yet.
    for launch in [Fault::Slow(Duration::ZERO), Fault::Slow(LAG * 2 / 5)] {
        world.cloud.faults().add(Op::Launch, launch);
    }
    interrupted_in_silence(&world).await;
    world.store.faults().add(StoreOp::Update, Fault::Slow(LONG));
    until(&world, "the cloud has been asked, and the write begun", || {
        world.cloud.faults().is_empty() && world.store.faults().is_empty()
    })
    .await;
    let took = world.clock.now().duration_since(began).unsigned_abs();
    assert!(
        took + LAG / 4 < LAG,
        "the answer comes within the window: {took:?}"
    );
    moves_once(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_run_twice_because_an_early_not_found_took_long_to_come() {
    let world = lagging().await;
    let not_found = Fault::LateFail(LONG, ErrorKind::NotFound);
    world.cloud.faults().add(Op::Terminate, not_found);
    interrupted_in_silence(&world).await;
    moves_once(&world).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_not_paid_for_unowned_because_an_early_empty_list_was_read_after_a_slow_write() {
    let world = lagging().await;
    let pod = looked_for(&world, Duration::from_secs(3)).await;
    // Its record is being written when that answer comes, and for a long time after.
    world.store.faults().add(StoreOp::Update, Fault::Slow(LONG));
    world.source.delete(&pod, Duration::ZERO);
    until(&world, "the write begins", || world.store.faults().is_empty()).await;
    let left = world.wait_until(LATER, || unowned(&world).is_some());
    assert!(!left.await, "{:?}", unowned(&world));
    assert_eq!(invariants::nothing_left(&world), Ok(()));
    assert_eq!(world.cloud.ever_made(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_not_paid_for_unowned_because_an_early_empty_list_took_long_to_come() {
    let world = lagging().await;
    looked_for(&world, LONG).await;
    let left = world.wait_until(LATER, || unowned(&world).is_some());
    assert!(!left.await, "{:?}", unowned(&world));
    assert!(runs(&world, 1), "on the instance that was there all the time");
    assert_eq!(world.cloud.ever_made(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_boots_is_not_ended_because_an_early_not_found_took_long_to_come() {
    let world = lagging().await;
    world.cloud.set_boot_delay(LONG * 2);
    world.cloud.faults().add(Op::Get, Fault::LateReply(LONG));
    world.source.run(samples::demand("web"));
    let running = world.wait_until(LATER, || runs(&world, 1));
    assert!(running.await, "{:?}", world.cloud.calls());
    assert_eq!(world.cloud.ever_made(), 1);
}

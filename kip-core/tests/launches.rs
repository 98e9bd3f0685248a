//! Launches when not all can go at once or at all: dry offerings, throttling, deletion and shutdown while they wait.

use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::driver::{DriverMetrics, HeldBack, LaunchOutcome};
use kip_core::ids::PodUid;
use kip_core::model::PodPhase;
use kip_testkit::{CloudCall, Fault, Op, World, invariants, samples};

const SOON: Duration = Duration::from_secs(30);

fn is_running(world: &World, pod: &PodUid) -> bool {
    world
        .source
        .report(pod)
        .is_some_and(|report| report.phase == PodPhase::Running)
}

async fn all_run(world: &World, pods: &[PodUid], limit: Duration) {
    let all = world.wait_until(limit, || pods.iter().all(|pod| is_running(world, pod)));
    assert!(all.await, "not all pods run within {limit:?}");
}

fn many(world: &World, count: usize) -> Vec<PodUid> {
    let run = |n| world.source.run(samples::demand(&format!("pod-{n}")));
    (0..count).map(run).collect()
}

fn metrics(world: &World) -> DriverMetrics {
    world.handle().expect("runs").metrics()
}

/// Launch calls at an offering.
fn launches_at(world: &World, name: &str) -> usize {
    let calls = world.cloud.calls();
    let at = |call: &&CloudCall| matches!(call, CloudCall::Launch(_, offering) if offering.instance_type.as_str() == name);
    calls.iter().filter(at).count()
}

/// Lets the next launches be answered only after so long.
fn slow_launches(world: &World, count: usize, delay: Duration) {
    for _ in 0..count {
        world.cloud.faults().add(Op::Launch, Fault::Slow(delay));
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_a_dry_offering_loses_a_few_calls_and_runs_elsewhere_within_seconds() {
    let mut world = World::new();
    world.cloud.set_capacity(&samples::offering_id("small"), Some(0));
    slow_launches(&world, 4, Duration::from_secs(1));
    world.start().expect("starts");
    let pods = many(&world, 200);
    all_run(&world, &pods, Duration::from_secs(10)).await;
    assert_eq!(launches_at(&world, "small"), 4, "not two hundred");
    assert_eq!(world.cloud.launches(), 204);
    let metrics = metrics(&world);
    assert_eq!(metrics.wasted_launches, 4);
    assert_eq!(metrics.launches.get(&LaunchOutcome::NoCapacity), Some(&4));
    assert_eq!(
        metrics.held_back.get(&HeldBack::Closed),
        Some(&196),
        "sent elsewhere without a call"
    );
    assert_eq!(metrics.offerings_closed, 1);
    invariants::never_doubled(&world).expect("never doubled");
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_nothing_else_is_woken_when_its_offering_opens_not_minutes_later() {
    let only = samples::offerings()
        .into_iter()
        .filter(|o| o.id == samples::offering_id("small"));
    let mut world = World::selling(only.collect(), Duration::ZERO);
    world.cloud.set_capacity(&samples::offering_id("small"), Some(0));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    let waits = world.wait_until(SOON, || {
        world.source.report(&pod).is_some_and(|r| r.reason == "NoFit")
    });
    assert!(waits.await, "it says why it waits");
    world.cloud.set_capacity(&samples::offering_id("small"), None);
    let began = world.clock.now();
    all_run(&world, std::slice::from_ref(&pod), Duration::from_secs(120)).await;
    let took = world.clock.now().duration_since(began).unsigned_abs();
    assert!(took <= Duration::from_secs(35), "{took:?}");
    assert_eq!(world.cloud.launches(), 2);
    let told = world
        .source
        .notices(&pod)
        .iter()
        .filter(|n| n.reason == "NoFit")
        .count();
    assert_eq!(told, 1, "once, not each time it looks");
}

#[tokio::test(start_paused = true)]
async fn launches_that_wait_for_their_turn_do_not_begin_once_a_shutdown_is_asked_for() {
    let mut world = World::new();
    slow_launches(&world, 20, Duration::from_secs(5));
    world.start().expect("starts");
    let pods = many(&world, 20);
    assert!(
        world.wait_until(SOON, || world.cloud.launches() == 4).await,
        "the first window"
    );
    assert_eq!(metrics(&world).launch_queue_length, 16);
    world.shut_down().await;
    assert_eq!(world.cloud.launches(), 4, "none of the sixteen that waited");
    world.cloud.faults().clear();
    world.start().expect("starts");
    all_run(&world, &pods, Duration::from_secs(120)).await;
    assert_eq!(
        world.cloud.ever_made(),
        20,
        "the next controller goes on from the records"
    );
    invariants::never_doubled(&world).expect("never doubled");
}

#[tokio::test(start_paused = true)]
async fn a_launch_whose_pod_is_deleted_while_it_waits_is_never_sent() {
    let mut world = World::new();
    slow_launches(&world, 4, Duration::from_secs(15));
    world.start().expect("starts");
    let pods = many(&world, 6);
    assert!(world.wait_until(SOON, || world.cloud.launches() == 4).await);
    let waiting: Vec<PodUid> = {
        let snapshot = world.handle().expect("runs").snapshot();
        let launched: Vec<_> = world.cloud.calls();
        let is_sent = |token: &kip_core::ids::LaunchToken| {
            launched
                .iter()
                .any(|call| matches!(call, CloudCall::Launch(sent, _) if sent == token))
        };
        snapshot
            .iter()
            .filter(|cell| cell.record.as_ref().is_some_and(|record| !is_sent(&record.token)))
            .map(|cell| cell.pod.uid.clone())
            .collect()
    };
    assert_eq!(waiting.len(), 2);
    for pod in &waiting {
        world.source.delete(pod, SOON);
    }
    let gone = world.wait_until(Duration::from_secs(5), || {
        waiting.iter().all(|pod| !world.source.exists(pod))
    });
    assert!(gone.await, "at once, not when its turn comes");
    let rest: Vec<PodUid> = pods.into_iter().filter(|pod| !waiting.contains(pod)).collect();
    all_run(&world, &rest, Duration::from_secs(60)).await;
    assert_eq!(world.cloud.launches(), 4);
    assert_eq!(metrics(&world).held_back.get(&HeldBack::Withdrawn), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn throttled_launches_are_made_once_more_and_all_pods_run() {
    let mut world = World::new();
    for _ in 0..3 {
        world
            .cloud
            .faults()
            .add(Op::Launch, Fault::Fail(ErrorKind::RateLimited));
    }
    world.start().expect("starts");
    let pods = many(&world, 30);
    all_run(&world, &pods, Duration::from_secs(120)).await;
    assert_eq!(
        world.cloud.launches(),
        33,
        "each refused call once more, and no other"
    );
    let metrics = metrics(&world);
    assert_eq!(metrics.throttled.get("launch"), Some(&3));
    assert!(metrics.governor_rates.contains_key("launch"));
    assert!(
        !metrics.governor_rates.contains_key("terminate"),
        "nobody else pays for it"
    );
}

#[tokio::test(start_paused = true)]
async fn terminates_go_on_while_launches_are_throttled() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    all_run(&world, std::slice::from_ref(&pod), SOON).await;
    for _ in 0..50 {
        world
            .cloud
            .faults()
            .add(Op::Launch, Fault::Fail(ErrorKind::RateLimited));
    }
    let _waiting = many(&world, 20);
    assert!(
        world
            .wait_until(SOON, || metrics(&world).throttled.contains_key("launch"))
            .await
    );
    world.source.delete(&pod, SOON);
    let gone = world.wait_until(Duration::from_secs(10), || world.cloud.instances().is_empty());
    assert!(gone.await, "what costs money is ended all the same");
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_is_never_answered_holds_up_no_other_pod_for_long() {
    let mut world = World::new();
    for _ in 0..4 {
        world.cloud.faults().add(Op::Launch, Fault::Hang);
    }
    world.start().expect("starts");
    let pods = many(&world, 12);
    let others = world.wait_until(Duration::from_secs(40), || {
        pods.iter().filter(|pod| is_running(&world, pod)).count() == 8
    });
    assert!(others.await);
}

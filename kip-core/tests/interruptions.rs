//! Interruption notices: those that come from the agent, those that come twice, and those that did not arrive.

use std::time::Duration;

use kip_core::driver::DriverHandle;
use kip_core::ids::{InstanceId, PodUid};
use kip_core::machine::Phase;
use kip_core::model::{CapacityType, InstanceNotice, NoticeKind, PodPhase};
use kip_core::provider::{CloudProvider as _, InterruptionNotice};
use kip_testkit::{World, samples};

const SOON: Duration = Duration::from_secs(30);

/// A world in which a pod runs, and the spot instance it runs on.
async fn running(restartable: bool) -> (World, DriverHandle, PodUid, InstanceId) {
    running_on(CapacityType::Spot, restartable).await
}

/// The same with an instance of this kind.
async fn running_on(capacity: CapacityType, restartable: bool) -> (World, DriverHandle, PodUid, InstanceId) {
    let mut world = World::new();
    let mut offerings = samples::offerings();
    for offering in &mut offerings {
        offering.id.capacity_type = capacity;
    }
    world.cloud.set_offerings(offerings);
    let handle = world.start().expect("starts");
    let mut demand = samples::demand("web");
    demand.capacity_types = [capacity].into();
    let pod = if restartable {
        world.source.run(demand)
    } else {
        world.source.run_once(demand)
    };
    assert!(world.wait_until(SOON, || runs(&world, &pod, None)).await);
    let instance = world.cloud.instances()[0].id.clone();
    (world, handle, pod, instance)
}

/// Whether the pod runs, and not on this instance.
fn runs(world: &World, pod: &PodUid, not_on: Option<&InstanceId>) -> bool {
    let report = world.source.report(pod);
    report.is_some_and(|report| {
        report.phase == PodPhase::Running && report.instance.is_some() && report.instance.as_ref() != not_on
    })
}

fn notice(world: &World, kind: NoticeKind, in_future: Duration) -> InstanceNotice {
    InstanceNotice {
        kind,
        at: world.in_future(in_future),
        reason: "the cloud says so".into(),
    }
}

fn told(world: &World, pod: &PodUid, reason: &str) -> usize {
    let notices = world.source.notices(pod);
    notices.iter().filter(|notice| notice.reason == reason).count()
}

fn counted(handle: &DriverHandle, kind: NoticeKind) -> u64 {
    handle.metrics().notices.get(&kind).copied().unwrap_or(0)
}

/// Where no queue is set up the agent is the only one who hears of it.
#[tokio::test(start_paused = true)]
async fn a_notice_only_the_agent_hears_moves_the_pod_before_the_deadline() {
    let (world, handle, pod, instance) = running(true).await;
    let notice = notice(&world, NoticeKind::Interruption, Duration::from_secs(120));
    let deadline = notice.at;
    world.runtime.announce(&instance, vec![notice]);
    let moved = world.wait_until(Duration::from_secs(120), || runs(&world, &pod, Some(&instance)));
    assert!(moved.await, "{:?}", world.source.report(&pod));
    assert!(world.clock.now() < deadline);
    assert_eq!(counted(&handle, NoticeKind::Interruption), 1);
    assert_eq!(world.runtime.doubled(), []);
}

/// Agent and queue both tell: a second replacement would be a second instance paid for nothing.
#[tokio::test(start_paused = true)]
async fn a_notice_that_comes_by_agent_and_by_queue_replaces_once() {
    let (world, handle, pod, instance) = running(true).await;
    let notice = notice(&world, NoticeKind::Interruption, Duration::from_secs(120));
    world.runtime.announce(&instance, vec![notice.clone()]);
    for _ in 0..3 {
        world.cloud.interrupt(&instance, notice.at, "spot");
    }
    let moved = world.wait_until(Duration::from_secs(60), || runs(&world, &pod, Some(&instance)));
    assert!(moved.await, "{:?}", world.source.report(&pod));
    world.cloud.interrupt(&instance, notice.at, "spot");
    let calm = world.wait_until(Duration::from_secs(60), || world.cloud.instances().len() == 1);
    assert!(calm.await);
    assert_eq!(world.cloud.ever_made(), 2);
    assert_eq!(told(&world, &pod, "Interrupted"), 1);
    assert_eq!(counted(&handle, NoticeKind::Interruption), 1);
}

/// EC2 announces maintenance weeks ahead.
#[tokio::test(start_paused = true)]
async fn a_maintenance_far_ahead_is_told_at_once_and_acted_on_when_it_is_near() {
    let (world, handle, pod, instance) = running(true).await;
    let maintenance = notice(&world, NoticeKind::Maintenance, Duration::from_secs(3600));
    let begins = maintenance.at;
    world.runtime.announce(&instance, vec![maintenance]);
    let is_told = world.wait_until(SOON, || told(&world, &pod, "MaintenanceScheduled") == 1);
    assert!(is_told.await);
    let moved = world.wait_until(Duration::from_secs(2 * 3600), || {
        runs(&world, &pod, Some(&instance))
    });
    assert!(moved.await, "{:?}", world.source.report(&pod));
    let ahead = begins.duration_since(world.clock.now()).as_secs();
    assert!((1..600).contains(&ahead), "{ahead} s before it begins");
    assert_eq!(
        told(&world, &pod, "MaintenanceScheduled"),
        1,
        "not with each report"
    );
    assert_eq!(counted(&handle, NoticeKind::Maintenance), 1);
}

#[tokio::test(start_paused = true)]
async fn a_maintenance_that_was_called_off_ends_nothing() {
    let (world, _handle, pod, instance) = running(true).await;
    let maintenance = notice(&world, NoticeKind::Maintenance, Duration::from_secs(3600));
    world.runtime.announce(&instance, vec![maintenance]);
    let is_told = world.wait_until(SOON, || told(&world, &pod, "MaintenanceScheduled") == 1);
    assert!(is_told.await);
    world.runtime.announce(&instance, Vec::new());
    let moved = world.wait_until(Duration::from_secs(2 * 3600), || world.cloud.ever_made() > 1);
    assert!(!moved.await, "{:?}", world.source.report(&pod));
}

/// A job that runs once may well be done before its instance is taken: it is left as long as may be.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_started_again_is_left_until_the_last_minutes() {
    let (world, _handle, pod, instance) = running(false).await;
    let maintenance = notice(&world, NoticeKind::Maintenance, Duration::from_secs(1800));
    let begins = maintenance.at;
    world.runtime.announce(&instance, vec![maintenance]);
    let ended = world.wait_until(Duration::from_secs(3600), || {
        let report = world.source.report(&pod);
        report.is_some_and(|report| report.phase == PodPhase::Failed)
    });
    assert!(ended.await, "{:?}", world.source.report(&pod));
    let ahead = begins.duration_since(world.clock.now()).as_secs();
    assert!((1..=120).contains(&ahead), "{ahead} s before it begins");
}

#[tokio::test(start_paused = true)]
async fn a_recommendation_to_move_is_told_once_and_ends_nothing() {
    let (world, handle, pod, instance) = running(true).await;
    let rebalance = notice(&world, NoticeKind::Rebalance, Duration::ZERO);
    let by_queue = InterruptionNotice::of_kind(NoticeKind::Rebalance, instance.clone(), rebalance.at, "move");
    world.runtime.announce(&instance, vec![rebalance]);
    world.cloud.announce(by_queue);
    let is_told = world.wait_until(SOON, || told(&world, &pod, "RebalanceRecommended") == 1);
    assert!(is_told.await);
    let moved = world.wait_until(Duration::from_secs(600), || world.cloud.ever_made() > 1);
    assert!(!moved.await, "{:?}", world.source.report(&pod));
    assert_eq!(told(&world, &pod, "RebalanceRecommended"), 1);
    assert_eq!(counted(&handle, NoticeKind::Rebalance), 1);
}

/// Otherwise whoever takes an agent over has instance after instance bought, each of them moved from at once.
#[tokio::test(start_paused = true)]
async fn an_agent_is_not_believed_that_an_instance_is_taken_back_which_no_cloud_takes_back() {
    let (world, handle, pod, instance) = running_on(CapacityType::OnDemand, true).await;
    let notice = notice(&world, NoticeKind::Interruption, Duration::from_secs(120));
    world.runtime.announce(&instance, vec![notice.clone()]);
    let is_told = world.wait_until(SOON, || told(&world, &pod, "InterruptionDoubted") == 1);
    assert!(is_told.await);
    assert_eq!(counted(&handle, NoticeKind::Interruption), 1);
    let moved = world.wait_until(Duration::from_secs(600), || world.cloud.ever_made() > 1);
    assert!(!moved.await, "{:?}", world.source.report(&pod));
    assert_eq!(told(&world, &pod, "InterruptionDoubted"), 1);
    // The cloud's own word counts.
    world.cloud.interrupt(&instance, notice.at, "stopped by hand");
    let moved = world.wait_until(Duration::from_secs(60), || runs(&world, &pod, Some(&instance)));
    assert!(moved.await, "{:?}", world.source.report(&pod));
}

/// The API server and the controller's memory belong to all pods.
#[tokio::test(start_paused = true)]
async fn an_agent_that_makes_announcements_up_is_soon_listened_to_no_more() {
    let (world, handle, pod, instance) = running(true).await;
    for round in 0..10_u64 {
        let made_up = (0..16).map(|n| {
            let days = Duration::from_secs(86_400 * (1 + round * 16 + n));
            notice(&world, NoticeKind::LiveMaintenance, days)
        });
        world.runtime.announce(&instance, made_up.collect());
        let next_round = world.clock.now() + Duration::from_secs(30);
        world
            .wait_until(SOON * 2, || world.clock.now() >= next_round)
            .await;
    }
    assert_eq!(told(&world, &pod, "MaintenanceScheduled"), 32);
    assert_eq!(counted(&handle, NoticeKind::LiveMaintenance), 32);
    // It still moves when it must.
    let begins = notice(&world, NoticeKind::Maintenance, Duration::from_secs(60));
    world.runtime.announce(&instance, vec![begins]);
    let moved = world.wait_until(Duration::from_secs(60), || runs(&world, &pod, Some(&instance)));
    assert!(moved.await, "{:?}", world.source.report(&pod));
}

/// EC2 tells of every instance that ends, also when Kip ended it: that is no interruption, and nobody must count it for one.
#[tokio::test(start_paused = true)]
async fn an_instance_kip_ends_itself_is_not_counted_as_interrupted() {
    let mut world = World::new();
    // Longer than is waited for.
    world.cloud.set_boot_delay(Duration::from_secs(3600));
    world.cloud.set_terminate_delay(Duration::from_secs(120));
    let handle = world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    let is_ending = || {
        let snapshot = handle.snapshot();
        snapshot.iter().any(|cell| cell.phase == Phase::Terminating)
    };
    assert!(world.wait_until(Duration::from_secs(600), is_ending).await);
    let instance = world.cloud.instances()[0].id.clone();
    let now = world.clock.now();
    world
        .cloud
        .interrupt(&instance, now, "EC2 says that it is shutting-down");
    world.cloud.set_boot_delay(Duration::ZERO);
    let again = world.wait_until(Duration::from_secs(300), || runs(&world, &pod, Some(&instance)));
    assert!(again.await, "{:?}", world.source.report(&pod));
    assert_eq!(counted(&handle, NoticeKind::Interruption), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_taken_back_while_its_notice_was_missed_is_replaced_as_if_it_had_been_told() {
    let mut world = World::new();
    let mut offerings = samples::offerings();
    for offering in &mut offerings {
        offering.id.capacity_type = CapacityType::Spot;
    }
    world.cloud.set_offerings(offerings);
    let handle = world.start().expect("starts");
    let mut demand = samples::demand("web");
    demand.capacity_types = [CapacityType::Spot].into();
    let pod = world.source.run(demand);
    let runs = |attempt: u32| {
        handle.snapshot().iter().any(|cell| {
            let record = cell.record.as_ref();
            cell.phase == Phase::Running && record.is_some_and(|record| record.attempt == attempt)
        }) && world
            .source
            .report(&pod)
            .is_some_and(|report| report.phase == PodPhase::Running)
    };
    assert!(world.wait_until(Duration::from_secs(30), || runs(1)).await);

    // The cloud takes it back, slowly. Its notice is lost among many that come at once.
    world.cloud.set_terminate_delay(Duration::from_secs(60));
    let instance = world.cloud.instances()[0].id.clone();
    world.cloud.terminate(&instance).await.expect("accepted");
    for n in 0..200 {
        let other = InstanceId::new(format!("i-of-somebody-{n}"));
        world.cloud.interrupt(&other, world.clock.now(), "spot");
    }
    let replaced = world.wait_until(Duration::from_secs(10), || world.cloud.ever_made() == 2);
    assert!(replaced.await, "not while the old one still exists");
    assert!(world.wait_until(Duration::from_secs(120), || runs(2)).await);
    assert_eq!(world.runtime.doubled(), []);
}

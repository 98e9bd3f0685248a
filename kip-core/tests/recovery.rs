//! The controller dies at any moment and starts again: nothing is lost, doubled or killed.

use std::time::Duration;

use kip_core::ids::{InstanceId, LaunchToken, PodUid};
use kip_core::machine::Phase;
use kip_core::model::{Instance, PodPhase};
use kip_core::provider::tags;
use kip_testkit::{PodScript, World, invariants, samples};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(1800);

fn phase(world: &World, pod: &PodUid) -> Option<PodPhase> {
    world.source.report(pod).map(|report| report.phase)
}

async fn nothing_left_within(world: &World, limit: Duration) -> Result<(), String> {
    let end = world.in_future(limit);
    loop {
        let left = invariants::nothing_left(world);
        if left.is_ok() || world.clock.now() > end {
            return left;
        }
        world.wait_until(Duration::from_millis(200), || false).await;
    }
}

/// One life: a pod that runs until it is deleted, and a batch pod that ends by itself. The driver is crashed at moment `crash`.
/// Answers whether the life was over before that moment.
async fn life(crash: u64, lag: Duration) -> bool {
    let mut world = World::selling(samples::offerings(), lag);
    world.cloud.set_boot_delay(Duration::from_millis(300));
    world.cloud.set_terminate_delay(Duration::from_millis(500));
    world.tripwire.set(crash);
    world.start().expect("starts");
    let web = world.source.run(samples::demand("web"));
    let job = world.source.run_once(samples::demand("job"));
    world
        .runtime
        .script(&job, PodScript::ends(Duration::from_secs(2), 0));

    let mut crashed = false;
    for stage in 0..2 {
        if stage == 1 {
            world.source.delete(&web, Duration::from_secs(5));
            world.source.delete(&job, Duration::from_secs(5));
        }
        let tripwire = world.tripwire.clone();
        let done = async {
            if stage == 0 {
                world
                    .wait_until(LATER, || {
                        phase(&world, &web) == Some(PodPhase::Running)
                            && phase(&world, &job) == Some(PodPhase::Succeeded)
                    })
                    .await
            } else {
                nothing_left_within(&world, LATER).await.is_ok()
            }
        };
        let finished = tokio::select! {
            done = done => Some(done),
            () = tripwire.tripped() => None,
        };
        match finished {
            Some(done) => assert!(
                done,
                "crash at {crash}: stage {stage} is stuck: {:?}",
                world.source.report(&web)
            ),
            None => {
                crashed = true;
                world.crash().await;
                world.tripwire.disarm();
                world.start().expect("starts again");
                if stage == 0 {
                    let done = world
                        .wait_until(LATER, || {
                            phase(&world, &web) == Some(PodPhase::Running)
                                && matches!(phase(&world, &job), Some(PodPhase::Succeeded))
                        })
                        .await;
                    assert!(
                        done,
                        "crash at {crash}: web {:?}, job {:?}",
                        world.source.report(&web),
                        world.source.report(&job)
                    );
                }
            }
        }
    }
    let left = nothing_left_within(&world, LATER).await;
    assert_eq!(left, Ok(()), "crash at {crash}");
    assert_eq!(invariants::never_doubled(&world), Ok(()), "crash at {crash}");
    assert_eq!(
        world.cloud.ever_made(),
        2,
        "crash at {crash}: a crash is no reason to buy again"
    );
    !crashed
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_or_after_any_effect_loses_and_doubles_nothing() {
    for lag in [Duration::ZERO, Duration::from_secs(2)] {
        let mut crash = 0;
        while !life(crash, lag).await {
            crash += 1;
            assert!(crash < 1000, "a life has no thousand effects");
        }
        assert!(crash > 40, "the crashes reached the end of the life: {crash}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_pod_is_adopted_untouched() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run_once(samples::demand("web"));
    assert!(
        world
            .wait_until(SOON, || phase(&world, &pod) == Some(PodPhase::Running))
            .await
    );
    world.crash().await;
    let handle = world.start().expect("starts");
    assert!(
        world
            .wait_until(SOON, || handle
                .report(&pod)
                .is_some_and(|r| r.phase == PodPhase::Running && r.reason.is_empty()))
            .await
    );
    assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (1, 1));
    assert_eq!(handle.metrics().adopted, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ended_while_the_source_is_silent_however_long() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    assert!(
        world
            .wait_until(SOON, || phase(&world, &pod) == Some(PodPhase::Running))
            .await
    );
    world.crash().await;
    // A driver whose source never lists a pod and never says that it has listed them.
    let driver = world.driver().expect("builds");
    let handle = driver.handle();
    let task = tokio::spawn(driver.run(std::future::pending()));
    assert!(
        world
            .wait_until(SOON, || handle
                .snapshot()
                .iter()
                .any(|cell| cell.phase == Phase::Running))
            .await
    );
    assert!(
        !world
            .wait_until(Duration::from_secs(7200), || world.cloud.instances().is_empty())
            .await
    );
    assert_eq!(world.cloud.ever_made(), 1);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_cell_whose_pod_went_while_the_controller_was_away_is_terminated_after_two_sweeps() {
    let mut world = World::new();
    world.start().expect("starts");
    let kept = world.source.run(samples::demand("kept"));
    let gone = world.source.run(samples::demand("gone"));
    let running = |pod: &PodUid| phase(&world, pod) == Some(PodPhase::Running);
    assert!(world.wait_until(SOON, || running(&kept) && running(&gone)).await);
    world.crash().await;
    world.source.force_delete(&gone);
    world.start().expect("starts");
    assert!(
        world
            .wait_until(LATER, || world.cloud.instances().len() == 1)
            .await
    );
    assert!(
        !world
            .wait_until(LATER, || world.cloud.instances().len() != 1)
            .await,
        "the other stays"
    );
    assert_eq!(phase(&world, &kept), Some(PodPhase::Running));
}

#[tokio::test(start_paused = true)]
async fn a_lost_record_store_does_not_lose_the_pods_because_instances_carry_tags() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run_once(samples::demand("web"));
    assert!(
        world
            .wait_until(SOON, || phase(&world, &pod) == Some(PodPhase::Running))
            .await
    );
    world.crash().await;
    for record in world.store.records() {
        world.store.delete_by_hand(&record.name);
    }
    let handle = world.start().expect("starts");
    assert!(
        world
            .wait_until(SOON, || handle
                .report(&pod)
                .is_some_and(|r| r.phase == PodPhase::Running))
            .await
    );
    assert!(
        !world
            .wait_until(LATER, || world.cloud.instances().len() != 1)
            .await
    );
    assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_instance_nobody_remembers_is_terminated_and_a_foreign_one_is_not() {
    let mut world = World::new();
    let handle = world.start().expect("starts");
    world.cloud.plant(launched_by_kip(&world, "i-orphan", "ghost", 1));
    for (id, tag, value) in [
        ("i-another-node", tags::NODE, "another-node"),
        ("i-forged-token", tags::TOKEN, "forged"),
        ("i-forged-pod", tags::POD_UID, "uid-another"),
    ] {
        let mut instance = launched_by_kip(&world, id, "ghost", 1);
        instance.tags.insert(tag.into(), value.into());
        instance.token = None;
        world.cloud.plant(instance);
    }
    assert!(
        world
            .wait_until(LATER, || world.cloud.instances().len() == 3)
            .await
    );
    assert!(
        !world
            .wait_until(LATER, || world.cloud.instances().len() < 3)
            .await
    );
    assert_eq!(
        handle.metrics().foreign,
        2,
        "and its owner can see that they are there"
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_instances_of_a_pod_whose_record_is_lost_the_newer_is_kept_and_the_older_goes_first() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    let script = PodScript {
        stops_after: Duration::from_secs(3600),
        ..PodScript::default()
    };
    world.runtime.script(&pod, script);
    let running = |world: &World| phase(world, &pod) == Some(PodPhase::Running);
    assert!(world.wait_until(SOON, || running(&world)).await);
    let older = world.cloud.instances()[0].id.clone();
    world.cloud.interrupt(&older, world.in_future(SOON), "spot");
    let replaced = world.wait_until(Duration::from_secs(10), || {
        world.store.records()[0].replaces.is_some()
    });
    assert!(replaced.await, "the next attempt is recorded beside the old one");
    assert!(world.wait_until(SOON, || world.cloud.ever_made() == 2).await);
    world.crash().await;
    assert_eq!(world.cloud.instances().len(), 2);
    for record in world.store.records() {
        world.store.delete_by_hand(&record.name);
    }
    world.start().expect("starts");
    let is_moved = |world: &World| {
        let left = world.cloud.instances();
        left.len() == 1 && left[0].id != older && running(world)
    };
    assert!(
        world.wait_until(LATER, || is_moved(&world)).await,
        "{:?}",
        world.cloud.instances()
    );
    assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (2, 2));
    assert_eq!(invariants::never_doubled(&world), Ok(()));
}

/// What the cloud would show of an instance that a controller of this node launched.
fn launched_by_kip(world: &World, id: &str, pod: &str, attempt: u32) -> Instance {
    let (cluster, node, pod) = (samples::cluster(), samples::node(), samples::pod(pod));
    let offering = samples::offering_id("small");
    let token = LaunchToken::derive(&cluster, &node, &pod.uid, attempt, &offering);
    let mut instance = Instance::new(InstanceId::new(id), "fake:///x", offering, world.clock.now());
    for (tag, value) in [
        (tags::CLUSTER, cluster.as_str()),
        (tags::NODE, node.as_str()),
        (tags::POD_UID, pod.uid.as_str()),
        (tags::POD, &pod.to_string()),
        (tags::ATTEMPT, &attempt.to_string()),
        (tags::TOKEN, token.as_str()),
    ] {
        instance.tags.insert(tag.into(), value.to_owned());
    }
    instance.token = Some(token);
    instance
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_may_run_once_and_lost_its_instance_meanwhile_fails_and_is_not_run_again() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run_once(samples::demand("once"));
    assert!(
        world
            .wait_until(SOON, || phase(&world, &pod) == Some(PodPhase::Running))
            .await
    );
    world.crash().await;
    world.cloud.kill(
        &world
            .source
            .report(&pod)
            .and_then(|r| r.instance)
            .expect("has one"),
    );
    world.start().expect("starts");
    assert!(
        world
            .wait_until(LATER, || phase(&world, &pod) == Some(PodPhase::Failed))
            .await
    );
    assert!(world.source.report(&pod).expect("reported").disruption.is_some());
    assert_eq!(world.cloud.ever_made(), 1);
}

//! The driver in a world of fakes, in virtual time: ordinary lives, and every kind of bad luck.

use std::time::Duration;

use kip_core::ErrorKind;
use kip_core::machine::Phase;
use kip_core::model::{ContainerState, PodPhase};
use kip_testkit::{Fault, HostOp, Op, PodScript, SourceOp, StoreOp, World, invariants, samples};

const SOON: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(1800);

fn phase(world: &World, pod: &kip_core::ids::PodUid) -> Option<PodPhase> {
    world.source.report(pod).map(|report| report.phase)
}

async fn until_phase(world: &World, pod: &kip_core::ids::PodUid, wanted: PodPhase, limit: Duration) {
    let reached = world
        .wait_until(limit, || phase(world, pod) == Some(wanted))
        .await;
    assert!(reached, "not {wanted:?} but {:?}", world.source.report(pod));
}

/// The pod's only instance, as the driver knows it.
fn instance(world: &World, pod: &kip_core::ids::PodUid) -> kip_core::ids::InstanceId {
    let report = world.source.report(pod).expect("reported");
    report.instance.expect("has an instance")
}

/// Deletes all pods and waits until nothing is left of them: what M7 promises.
async fn delete_all_and_check(world: &World, pods: &[kip_core::ids::PodUid]) {
    for pod in pods {
        world.source.delete(pod, Duration::from_secs(30));
    }
    for _ in 0..36_000 {
        if invariants::nothing_left(world).is_ok() {
            break;
        }
        world.wait_until(Duration::from_millis(200), || false).await;
    }
    invariants::nothing_left(world).expect("nothing is left");
    invariants::never_doubled(world).expect("never doubled");
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_deleted_and_leaves_nothing_or_the_bill_grows() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Running, SOON).await;

    let report = world.source.report(&pod).expect("reported");
    assert_eq!(
        report.offering.as_ref().map(|o| o.instance_type.as_str()),
        Some("small"),
        "the cheapest that fits"
    );
    for (name, mark) in [
        ("seen", report.marks.seen_at),
        ("decided", report.marks.decided_at),
        ("launched", report.marks.launched_at),
        ("connected", report.marks.connected_at),
        ("images", report.marks.images_at),
        ("running", report.marks.running_at),
    ] {
        assert!(
            mark.is_some(),
            "{name} is not marked, so nobody can see where the time goes"
        );
    }

    delete_all_and_check(&world, std::slice::from_ref(&pod)).await;
    assert_eq!(world.cloud.launches(), 1);
    let cells = world.store.cells();
    assert_eq!(cells.len(), 1);
    assert_eq!(
        world.store.writes(&cells[0]),
        4,
        "intent, known, told, terminating: no more load on the API than that"
    );
    let last = world.source.report(&pod).expect("reported");
    assert!(
        matches!(
            last.runtime.expect("ran").containers[0].state,
            ContainerState::Terminated(_)
        ),
        "exit codes are there"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_pod_ends_by_itself_and_its_instance_is_not_paid_for_any_longer() {
    for (code, wanted) in [(0, PodPhase::Succeeded), (3, PodPhase::Failed)] {
        let mut world = World::new();
        world.start().expect("starts");
        let pod = world.source.run_once(samples::demand("job"));
        world
            .runtime
            .script(&pod, PodScript::ends(Duration::from_secs(5), code));
        until_phase(&world, &pod, wanted, SOON).await;
        assert!(
            world
                .wait_until(SOON, || world.cloud.instances().is_empty())
                .await,
            "the instance goes"
        );
        assert!(
            world.source.exists(&pod),
            "the pod object stays for its owner to read"
        );
        assert!(
            world.source.report(&pod).expect("reported").runtime.is_some(),
            "with its last report"
        );
        delete_all_and_check(&world, &[pod]).await;
        assert_eq!(world.cloud.ever_made(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nothing_says_why_and_starts_once_something_fits() {
    let mut world = World::new();
    world.start().expect("starts");
    let mut demand = samples::demand("huge");
    demand.memory = kip_core::model::Bytes::gib(64);
    let pod = world.source.run(demand);
    let said = world
        .wait_until(SOON, || {
            world
                .source
                .report(&pod)
                .is_some_and(|r| r.reason == "NoFit" && !r.message.is_empty())
        })
        .await;
    assert!(said, "{:?}", world.source.report(&pod));
    assert!(
        world
            .source
            .notices(&pod)
            .iter()
            .any(|n| n.warning && n.reason == "NoFit")
    );
    let mut offerings = samples::offerings();
    let mut big = offerings[2].clone();
    big.id = samples::offering_id("huge");
    big.memory = kip_core::model::Bytes::gib(128);
    offerings.push(big);
    world.cloud.set_offerings(offerings);
    until_phase(&world, &pod, PodPhase::Running, LATER).await;
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_user_hears_that_a_little_less_would_be_much_cheaper_and_an_elastic_pod_takes_it() {
    let mut world = World::new();
    let handle = world.start().expect("starts");
    let demand = |name: &str, elastic: bool| {
        let mut demand = samples::demand(name);
        demand.memory = kip_core::model::Bytes::mib(3900); // `small` has room for 3832 MiB.
        demand.elastic = elastic;
        demand
    };
    let pods =
        [("rigid", false), ("elastic", true)].map(|(name, elastic)| world.source.run(demand(name, elastic)));
    let offering = |pod| {
        let offering = world.source.report(pod).and_then(|report| report.offering);
        offering.map(|offering| offering.instance_type.to_string())
    };
    let told = |pod, reason: &str| {
        let notices = world.source.notices(pod).into_iter();
        let mut messages = notices
            .filter(|notice| notice.reason == reason)
            .map(|notice| notice.message);
        messages.next()
    };
    for pod in &pods {
        until_phase(&world, pod, PodPhase::Running, SOON).await;
    }
    assert_eq!(
        pods.each_ref().map(offering),
        [Some("medium".to_owned()), Some("small".to_owned())]
    );
    let advice = told(&pods[0], "SizingAdvice").expect("advised");
    assert!(
        advice.contains("small/z1/on-demand") && advice.contains("50 %"),
        "{advice}"
    );
    assert_eq!(told(&pods[1], "SizingAdvice"), None);
    let placed = told(&pods[1], "Placed").expect("placed");
    assert!(placed.contains("smaller than the pod asks for"), "{placed}");
    assert_eq!(handle.metrics().advised, 1);
    delete_all_and_check(&world, &pods).await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_offering_sends_the_pod_elsewhere_at_once_not_after_a_back_off() {
    let mut world = World::new();
    world.cloud.set_capacity(&samples::offering_id("small"), Some(0));
    world.start().expect("starts");
    let pods: Vec<_> = ["a", "b"]
        .map(|name| world.source.run(samples::demand(name)))
        .into();
    for pod in &pods {
        until_phase(&world, pod, PodPhase::Running, Duration::from_secs(2)).await;
        let offering = world.source.report(pod).and_then(|r| r.offering).expect("bought");
        assert_eq!(offering, samples::offering_id("medium"));
    }
    delete_all_and_check(&world, &pods).await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_whose_reply_was_lost_is_found_again_and_not_bought_twice() {
    for kind in [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Unexpected] {
        let mut world = World::new();
        world.cloud.faults().add(Op::Launch, Fault::LostReply(kind));
        world.start().expect("starts");
        let pod = world.source.run(samples::demand("web"));
        until_phase(&world, &pod, PodPhase::Running, SOON).await;
        assert_eq!(world.cloud.ever_made(), 1, "after {kind:?}");
        delete_all_and_check(&world, &[pod]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_its_launch_reply_is_lost_leaves_no_instance() {
    let mut world = World::selling(samples::offerings(), Duration::from_secs(20));
    world
        .cloud
        .faults()
        .add(Op::Launch, Fault::LostReply(ErrorKind::Timeout));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    assert!(world.wait_until(SOON, || world.cloud.launches() == 1).await);
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_at_any_moment_of_its_life_leaves_nothing() {
    for millis in [0, 1, 20, 60, 150, 400, 1_000, 1_900, 2_050, 2_200, 5_000] {
        for force in [false, true] {
            let mut world = World::selling(samples::offerings(), Duration::from_secs(1));
            world.cloud.set_boot_delay(Duration::from_secs(2));
            world.cloud.set_terminate_delay(Duration::from_secs(3));
            world
                .cloud
                .faults()
                .add(Op::Launch, Fault::Slow(Duration::from_millis(100)));
            world.start().expect("starts");
            let pod = world.source.run(samples::demand("web"));
            world.wait_until(Duration::from_millis(millis), || false).await;
            if force {
                world.source.force_delete(&pod);
            }
            delete_all_and_check(&world, &[pod]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pod_object_goes_when_the_instance_is_on_its_way_out_not_minutes_later() {
    let mut world = World::new();
    world.cloud.set_terminate_delay(Duration::from_secs(120));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    world.source.delete(&pod, Duration::from_secs(30));
    assert!(
        world
            .wait_until(Duration::from_secs(5), || !world.source.exists(&pod))
            .await,
        "kubectl delete hangs"
    );
    assert_eq!(
        world.cloud.instances().len(),
        1,
        "and the instance is still pursued"
    );
    assert!(
        world
            .wait_until(LATER, || world.cloud.instances().is_empty())
            .await
    );
    delete_all_and_check(&world, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_the_stop_is_given_its_grace_and_no_more() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("stubborn"));
    let script = PodScript {
        stops_after: Duration::from_secs(3600),
        ..PodScript::default()
    };
    world.runtime.script(&pod, script);
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    let began = world.clock.now();
    world.source.delete(&pod, Duration::from_secs(10));
    assert!(world.wait_until(LATER, || !world.source.exists(&pod)).await);
    let took = Duration::try_from(world.clock.now().duration_since(began)).expect("forward");
    assert!((10..14).contains(&took.as_secs()), "took {took:?}");
    let last = world.source.report(&pod).expect("reported");
    assert_eq!(last.phase, PodPhase::Failed);
    delete_all_and_check(&world, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_keeps_its_workload_as_long_as_the_instance_exists() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    let id = instance(&world, &pod);
    world.runtime.set_silent(&id, true);
    assert!(
        world
            .wait_until(SOON * 2, || world
                .source
                .report(&pod)
                .is_some_and(|r| r.reason == "AgentSilent"))
            .await
    );
    // An hour of silence: the partition is the network's, the pod may be serving all the while.
    assert!(
        !world
            .wait_until(Duration::from_secs(3600), || world.cloud.ever_made() > 1)
            .await
    );
    assert_eq!(world.cloud.instances().len(), 1);
    world.runtime.set_silent(&id, false);
    assert!(
        world
            .wait_until(SOON * 2, || world
                .source
                .report(&pod)
                .is_some_and(|r| r.reason.is_empty()))
            .await
    );
    assert_eq!(world.runtime.starts(&pod), 1);
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_instance_vanished_starts_again_elsewhere_if_it_may() {
    let mut world = World::new();
    world.start().expect("starts");
    let (again, once) = (
        world.source.run(samples::demand("again")),
        world.source.run_once(samples::demand("once")),
    );
    until_phase(&world, &again, PodPhase::Running, SOON).await;
    until_phase(&world, &once, PodPhase::Running, SOON).await;
    let before = instance(&world, &again);
    world.cloud.kill(&before);
    world.cloud.kill(&instance(&world, &once));
    until_phase(&world, &once, PodPhase::Failed, LATER).await;
    assert!(
        world.source.report(&once).expect("reported").disruption.is_some(),
        "its owner sees it was not the workload"
    );
    let moved = world
        .wait_until(LATER, || {
            phase(&world, &again) == Some(PodPhase::Running) && instance(&world, &again) != before
        })
        .await;
    assert!(moved, "{:?}", world.source.report(&again));
    assert_eq!(world.cloud.ever_made(), 3);
    delete_all_and_check(&world, &[again, once]).await;
}

#[tokio::test(start_paused = true)]
async fn an_interruption_notice_is_used_to_stop_in_order_and_move() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("spot"));
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    let before = instance(&world, &pod);
    world
        .cloud
        .interrupt(&before, world.in_future(Duration::from_secs(120)), "spot");
    let moved = world
        .wait_until(LATER, || {
            phase(&world, &pod) == Some(PodPhase::Running) && instance(&world, &pod) != before
        })
        .await;
    assert!(moved, "{:?}", world.source.report(&pod));
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_never_boots_is_replaced_and_the_fifth_is_the_last() {
    let mut world = World::new();
    world.cloud.set_boot_delay(Duration::from_secs(86_400));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Failed, Duration::from_secs(7200)).await;
    let report = world.source.report(&pod).expect("reported");
    assert_eq!(report.reason, "BootFailed");
    assert_eq!(
        world.cloud.ever_made(),
        5,
        "a broken image must not cost money for ever"
    );
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_image_waits_on_its_cell_and_never_costs_a_second_instance() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("typo"));
    let script = PodScript {
        waits_as: Some("ImagePullBackOff".into()),
        ..PodScript::default()
    };
    world.runtime.script(&pod, script);
    let waits = world.wait_until(SOON, || {
        let report = world.source.report(&pod).and_then(|report| report.runtime);
        report.is_some_and(|r| matches!(&r.containers[0].state, ContainerState::Waiting { reason, .. } if reason == "ImagePullBackOff"))
    });
    assert!(waits.await);
    assert!(
        !world
            .wait_until(Duration::from_secs(7200), || world.cloud.ever_made() > 1)
            .await
    );
    assert_eq!(phase(&world, &pod), Some(PodPhase::Pending));
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn an_active_deadline_ends_the_pod_wherever_it_is() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run_for(samples::demand("long"), 60);
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    until_phase(&world, &pod, PodPhase::Failed, Duration::from_secs(120)).await;
    assert_eq!(
        world.source.report(&pod).expect("reported").reason,
        "DeadlineExceeded"
    );
    assert!(
        world
            .wait_until(SOON, || world.cloud.instances().is_empty())
            .await
    );
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_pod_is_updated_in_place() {
    let mut world = World::new();
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    world
        .runtime
        .faults()
        .add(HostOp::Update, Fault::Fail(ErrorKind::Unavailable));
    world.source.change(&pod);
    assert!(world.wait_until(SOON, || world.runtime.updates(&pod) == 1).await);
    assert_eq!(world.cloud.ever_made(), 1);
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_failing_once_delays_a_pod_and_does_no_harm() {
    let mut world = World::new();
    for op in [Op::Launch, Op::Terminate, Op::Get, Op::List, Op::Offerings] {
        world.cloud.faults().add(op, Fault::Fail(ErrorKind::Unavailable));
    }
    for op in [HostOp::Watch, HostOp::Deploy, HostOp::Stop] {
        world
            .runtime
            .faults()
            .add(op, Fault::LostReply(ErrorKind::Timeout));
    }
    for op in [SourceOp::Manifest, SourceOp::Publish, SourceOp::Release] {
        world.source.faults().add(op, Fault::Fail(ErrorKind::Unavailable));
    }
    for op in [StoreOp::Create, StoreOp::Update, StoreOp::Remove, StoreOp::List] {
        world.store.faults().add(op, Fault::LostReply(ErrorKind::Timeout));
    }
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    until_phase(&world, &pod, PodPhase::Running, LATER).await;
    assert_eq!(world.cloud.ever_made(), 1);
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_pods_at_once_run_within_seconds_each_on_its_own_instance() {
    let mut world = World::new();
    let handle = world.start().expect("starts");
    let pods: Vec<_> = (0..200)
        .map(|n| world.source.run(samples::demand(&format!("pod-{n}"))))
        .collect();
    let all = world
        .wait_until(Duration::from_secs(10), || {
            pods.iter()
                .all(|pod| phase(&world, pod) == Some(PodPhase::Running))
        })
        .await;
    assert!(all);
    assert_eq!(world.cloud.instances().len(), 200);
    assert_eq!(handle.metrics().pods.get(&Phase::Running), Some(&200));
    assert_eq!(handle.metrics().launch_to_running.count(), 200);
    delete_all_and_check(&world, &pods).await;
    assert_eq!(world.cloud.launches(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_credential_problem_makes_pods_wait_and_say_so_instead_of_failing_them() {
    let mut world = World::new();
    world
        .cloud
        .faults()
        .add(Op::Launch, Fault::Fail(ErrorKind::PermissionDenied));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    assert!(
        world
            .wait_until(SOON * 2, || world
                .source
                .report(&pod)
                .is_some_and(|r| r.reason == "BackingOff"))
            .await
    );
    until_phase(&world, &pod, PodPhase::Running, LATER).await;
    delete_all_and_check(&world, &[pod]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_a_launch_under_way_store_its_id() {
    let mut world = World::new();
    world
        .cloud
        .faults()
        .add(Op::Launch, Fault::Slow(Duration::from_secs(5)));
    world.start().expect("starts");
    let pod = world.source.run(samples::demand("web"));
    assert!(world.wait_until(SOON, || world.cloud.launches() == 1).await);
    world.shut_down().await;
    let records = world.store.records();
    assert!(
        records[0].instance.is_some(),
        "or the next controller has to search for what was bought"
    );
    world.start().expect("starts");
    until_phase(&world, &pod, PodPhase::Running, SOON).await;
    assert_eq!(world.cloud.ever_made(), 1);
    delete_all_and_check(&world, &[pod]).await;
}

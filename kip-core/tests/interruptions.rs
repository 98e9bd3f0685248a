//! Interruption notices that did not arrive.

use std::time::Duration;

use kip_core::ids::InstanceId;
use kip_core::machine::Phase;
use kip_core::model::{CapacityType, PodPhase};
use kip_core::provider::CloudProvider as _;
use kip_testkit::{World, samples};

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

//! Embeds Kip's driver in a program of one's own: a sizer of our making, and fakes in place of cloud, hosts and Kubernetes. The clock is
//! virtual, so the hour this takes is over in milliseconds. The same shape makes a test; with real implementations of the
//! traits it makes a controller.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use examples::Thrifty;
use kip_core::ErrorKind;
use kip_core::driver::Kip;
use kip_core::model::{Bytes, PodPhase, Price};
use kip_testkit::{Fault, Op, PodScript, World, samples};
use tokio::sync::oneshot;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tokio::time::pause();
    let world = World::new();
    let driver = Kip::builder(Arc::new(world.cloud.clone()))
        .identity(samples::cluster(), samples::node())
        .runtime(Arc::new(world.runtime.clone()))
        .source(Arc::new(world.source.clone()))
        .store(Arc::clone(&world.store) as Arc<_>)
        .clock(Arc::clone(&world.clock))
        .sizer(Box::new(Thrifty::new(Price(20_000))))
        .build()?;
    world.source.attach(driver.handle());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(driver.run(async {
        // A sender that is dropped means the same.
        let _ = stopped.await;
    }));

    // The cloud has no capacity the first time: the pod gets a cell all the same.
    world
        .cloud
        .faults()
        .add(Op::Launch, Fault::Fail(ErrorKind::InsufficientCapacity));
    let batch = world.source.run_once(samples::demand("batch"));
    world
        .runtime
        .script(&batch, PodScript::ends(Duration::from_secs(90), 0));
    let mut greedy = samples::demand("greedy");
    greedy.memory = Bytes::gib(12);
    let greedy = world.source.run(greedy);

    let phase = |pod| world.source.report(pod).map(|report| report.phase);
    let ended = world
        .wait_until(HOUR, || phase(&batch) == Some(PodPhase::Succeeded))
        .await;
    ensure!(
        ended,
        "the batch pod did not end: {:?}",
        world.source.report(&batch)
    );
    for (name, pod) in [("batch", &batch), ("greedy", &greedy)] {
        for notice in world.source.notices(pod) {
            println!("{name}: {} - {}", notice.reason, notice.message);
        }
        println!("{name}: {:?}", phase(pod));
    }
    ensure!(
        phase(&greedy) == Some(PodPhase::Pending),
        "the greedy pod was given what is too dear"
    );

    // Nothing that costs money is left once the pod has ended.
    let empty = world
        .wait_until(HOUR, || world.cloud.instances().is_empty())
        .await;
    ensure!(empty, "left: {:?}", world.cloud.instances());
    println!("instances left: none, launches: {}", world.cloud.launches());
    drop(stop);
    running.await?;
    Ok(())
}

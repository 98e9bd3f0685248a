//! What the whole driver costs in calls of EC2's API: every one is a share of a limit that the account's other users need too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use kip_core::driver::{CellStore as _, Kip, MemoryCellStore};
use kip_core::ids::PodUid;
use kip_testkit::{FakeSource, Tripwire, samples};
use tokio::sync::oneshot;

use crate::driver::{NoHosts, PATIENCE, until};
use crate::fake::{FakeEc2, Leads as _};

/// Calls so far beside RunInstances, those that opened the cloud, and the list of all instances that a node asks for every 30 seconds
/// however many pods it has.
fn others(ec2: &FakeEc2) -> usize {
    let lists = ec2
        .calls("DescribeInstances")
        .iter()
        .filter(|call| call.get("Filter.1.Name") == Some("instance-state-name"))
        .count();
    let all: usize = ["DescribeInstances", "DescribeSubnets", "TerminateInstances"]
        .iter()
        .map(|action| ec2.calls(action).len())
        .sum();
    all - lists - 1
}

/// Launches pods, waits until all their hosts were dialled, ends them, and waits until nothing is left. Answers the calls beside
/// RunInstances until then, and until the end.
async fn calls_for(pods: usize) -> Result<(usize, usize)> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let (source, hosts) = (FakeSource::new(Tripwire::default()), Arc::new(NoHosts::default()));
    let store = Arc::new(MemoryCellStore::default());
    let driver = Kip::builder(Arc::new(cloud))
        .identity(samples::cluster(), samples::node())
        .runtime(Arc::clone(&hosts) as Arc<_>)
        .source(Arc::new(source.clone()))
        .store(Arc::clone(&store) as Arc<_>)
        .build()?;
    source.attach(driver.handle());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(driver.run(async {
        // A sender that is dropped means the same.
        let _ = stopped.await;
    }));
    let uids: Vec<PodUid> = (0..pods)
        .map(|i| source.run(samples::demand(&format!("pod-{i}"))))
        .collect();
    until("every host is dialled", || {
        hosts.dialled.load(Ordering::Relaxed) >= pods
    })
    .await?;
    let launched = others(&ec2);
    for uid in &uids {
        source.delete(uid, Duration::ZERO);
    }
    until("nothing is left", || {
        ec2.state().alive().is_empty() && source.is_empty()
    })
    .await?;
    // A record goes when EC2 has said that its instance is gone.
    let confirmed = async {
        while !store.list().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, kip_core::Error>(())
    };
    tokio::time::timeout(PATIENCE, confirmed).await??;
    let runs = ec2.calls("RunInstances").len();
    ensure!(runs == pods, "{runs} RunInstances for {pods} pods");
    drop(stop);
    running.await?;
    Ok((launched, others(&ec2)))
}

#[tokio::test]
async fn a_pod_launched_singly_costs_at_most_two_calls() -> Result<()> {
    let (launched, ended) = calls_for(1).await?;
    println!("1 pod: {launched} calls beside RunInstances until it is dialled, {ended} until it is gone");
    ensure!(launched + 1 <= 2, "{} calls", launched + 1);
    Ok(())
}

/// From the launch until the instance is gone.
#[tokio::test]
async fn a_burst_of_two_hundred_pods_costs_few_calls_beside_the_launches() -> Result<()> {
    const PODS: usize = 200;
    let (launched, ended) = calls_for(PODS).await?;
    println!(
        "{PODS} pods: {launched} calls beside RunInstances until all are dialled, {ended} until all are gone"
    );
    ensure!(ended * 10 <= PODS * 3, "{ended} calls");
    Ok(())
}

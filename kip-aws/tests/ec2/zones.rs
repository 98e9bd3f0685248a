//! A zone without addresses: what that costs the pods that want to be there.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kip_core::driver::{Kip, MemoryCellStore};
use kip_core::ids::Zone;
use kip_testkit::{FakeSource, Tripwire, samples};
use tokio::sync::oneshot;

use crate::driver::{NoHosts, until};
use crate::fake::{FakeEc2, Leads as _};

/// The pod's volume is in the zone, which is full; another zone is not. It must not climb the price list of its own: no type has an address.
#[tokio::test]
async fn a_pod_that_must_be_in_a_full_zone_buys_no_dearer_type_there_and_others_go_to_another_zone()
-> Result<()> {
    let ec2 = FakeEc2::start().await?;
    for subnet in ["subnet-a", "subnet-a2"] {
        ec2.state()
            .subnets
            .insert(subnet.into(), ("us-east-1a".into(), 0));
    }
    let cloud = ec2.open(ec2.config()).await?;
    let source = FakeSource::new(Tripwire::default());
    let driver = Kip::builder(Arc::new(cloud))
        .identity(samples::cluster(), samples::node())
        .runtime(Arc::new(NoHosts::default()))
        .source(Arc::new(source.clone()))
        .store(Arc::new(MemoryCellStore::default()))
        .build()?;
    let handle = driver.handle();
    source.attach(handle.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(driver.run(async {
        // A sender that is dropped means the same.
        let _ = stopped.await;
    }));
    let mut pinned = samples::demand("pinned");
    pinned.zones = [Zone::new("us-east-1a")].into();
    source.run(pinned);
    until("the zone is closed", || handle.metrics().zones_closed == 1).await?;
    source.run(samples::demand("free"));
    until("the other pod has an instance", || ec2.state().alive().len() == 1).await?;
    ensure!(
        handle.metrics().offerings_closed == 0,
        "types were taken for sold out"
    );
    let launches = ec2.calls("RunInstances");
    ensure!(launches.len() == 1 && launches[0].get("NetworkInterface.1.SubnetId") == Some("subnet-b"));
    ensure!(
        launches[0].get("InstanceType") == Some("t4g.small"),
        "not the cheapest"
    );
    drop(stop);
    running.await?;
    Ok(())
}

//! A zone without addresses: what that costs the pods that want to be there.

use anyhow::{Result, ensure};
use kip_core::driver::LaunchOutcome;
use kip_core::ids::Zone;
use kip_testkit::samples;

use crate::driver::until;
use crate::fake::{FakeEc2, Leads as _};
use crate::running::Running;

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
    let running = Running::start(cloud)?;
    let (source, handle) = (&running.source, &running.handle);
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
    running.end().await
}

/// One of the zone's subnets fills up behind Kip's back: the other one is taken, and neither zone nor type is given up.
#[tokio::test]
async fn a_full_subnet_closes_no_zone_in_which_another_has_room() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    ec2.state()
        .subnets
        .insert("subnet-a".into(), ("us-east-1a".into(), 0));
    let running = Running::start(cloud)?;
    let mut pinned = samples::demand("pinned");
    pinned.zones = [Zone::new("us-east-1a")].into();
    running.source.run(pinned);
    until("the pod has an instance", || ec2.state().alive().len() == 1).await?;
    let metrics = running.handle.metrics();
    ensure!(metrics.zones_closed == 0 && metrics.offerings_closed == 0);
    // A zone that was closed is open again by now, if somebody waited for it.
    let refused = metrics.launches.get(&LaunchOutcome::NoCapacity);
    ensure!(refused.copied().unwrap_or_default() == 0, "the zone was closed");
    let launches = ec2.calls("RunInstances");
    let ways: Vec<_> = launches
        .iter()
        .map(|call| (call.get("InstanceType"), call.get("NetworkInterface.1.SubnetId")))
        .collect();
    ensure!(
        ways == [
            (Some("t4g.small"), Some("subnet-a")),
            (Some("t4g.small"), Some("subnet-a2"))
        ],
        "{ways:?}"
    );
    running.end().await
}

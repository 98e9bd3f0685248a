//! Repeated launches: whatever has changed since the first call, its instance is found, and nothing is concluded too early.

use std::time::Duration;

use anyhow::{Result, ensure};
use kip_aws::AwsCloud;
use kip_core::model::CapacityType;
use kip_core::provider::CloudProvider as _;
use kip_core::{ErrorKind, Retry};

use crate::behaviour::request;
use crate::fake::{FakeEc2, Fault, Leads as _, offering};

const ZONE: &str = "us-east-1a";

/// Makes another subnet the emptiest of the zone, so that a new process launches differently.
fn change_the_way(ec2: &FakeEc2) {
    ec2.state()
        .subnets
        .insert("subnet-a2".into(), (ZONE.into(), 9000));
}

/// EC2 refuses the token, and does not show the instance yet: taken for another's, a good instance would be ended.
#[tokio::test]
async fn a_repeat_by_another_process_waits_until_ec2_shows_the_first_instance() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.list_lag = Duration::from_secs(20);
    let first = ec2.open(config.clone()).await?.launch(request("t")).await?;
    ec2.state().lag = Duration::from_millis(700);
    change_the_way(&ec2);
    let again = ec2.open(config).await?.launch(request("t")).await?;
    ensure!(again.id == first.id);
    ensure!(ec2.state().instances.len() == 1);
    Ok(())
}

/// Whoever cannot look knows nothing: the machine must not begin another attempt beside an instance that runs.
#[tokio::test]
async fn a_repeat_that_cannot_look_says_that_it_may_have_happened() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.open(ec2.config()).await?.launch(request("t")).await?;
    change_the_way(&ec2);
    let restarted = ec2.open(ec2.config()).await?;
    for (code, status) in [("UnauthorizedOperation", 403), ("RequestLimitExceeded", 503)] {
        ec2.fail("DescribeInstances", [Fault::Refused(code, status)]);
        let error = restarted.launch(request("t")).await.unwrap_err();
        ensure!(
            error.kind() == ErrorKind::Unavailable && error.is_ambiguous(),
            "{error:?}"
        );
        ensure!(error.chain().to_string().contains(code), "{error:?}");
    }
    Ok(())
}

/// A new configuration, without the zone, the type or an address left: the instance of before is there all the same.
#[tokio::test]
async fn a_repeat_that_would_be_refused_now_finds_the_first_instance() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let config = ec2.config();
    let first = ec2.open(config.clone()).await?.launch(request("t")).await?;

    let mut without_zone = config.clone();
    without_zone.subnet_ids = vec!["subnet-b".into()];
    let without_type = AwsCloud::builder(config.clone()).offerings(
        crate::fake::offerings()
            .into_iter()
            .filter(|offered| offered.id.instance_type.as_str() == "c7i.large")
            .collect(),
    );
    for cloud in [ec2.open(without_zone).await?, without_type.open().await?] {
        ensure!(cloud.launch(request("t")).await?.id == first.id);
    }
    for subnet in ec2.state().subnets.values_mut() {
        subnet.1 = 0;
    }
    ensure!(ec2.open(config).await?.launch(request("t")).await?.id == first.id);
    ensure!(
        ec2.calls("RunInstances").len() == 1,
        "what is known to be refused was sent"
    );
    Ok(())
}

#[tokio::test]
async fn a_launch_of_what_is_not_sold_any_more_sends_the_pod_elsewhere() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.list_lag = Duration::from_millis(300);
    let cloud = ec2.open(config).await?;
    for (instance_type, zone) in [("m5.large", ZONE), ("t3.small", "us-east-1f")] {
        let mut request = request(instance_type);
        request.offering = offering(instance_type, zone, CapacityType::OnDemand);
        let error = cloud.launch(request).await.unwrap_err();
        ensure!(error.retry() == Retry::Elsewhere, "{error:?}");
        ensure!(!error.is_ambiguous(), "{error:?}");
    }
    ensure!(ec2.calls("RunInstances").is_empty());
    Ok(())
}

/// EC2 keeps the token of a launch that it had no room for. There is no instance, and none is made of it.
#[tokio::test]
async fn a_token_that_a_refused_launch_left_behind_makes_no_instance() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().capacity.insert(("t3.small".into(), ZONE.into()), 0);
    let mut config = ec2.config();
    config.list_lag = Duration::from_millis(300);
    let error = ec2
        .open(config.clone())
        .await?
        .launch(request("t"))
        .await
        .unwrap_err();
    ensure!(error.retry() == Retry::Elsewhere, "{error:?}");
    ec2.state().capacity.clear();
    change_the_way(&ec2);
    let error = ec2.open(config).await?.launch(request("t")).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::AlreadyExists, "{error:?}");
    ensure!(ec2.state().instances.is_empty());
    Ok(())
}

//! Where instances go when the configuration leaves it open.

use anyhow::{Result, ensure};
use kip_aws::{AwsCloud, AwsConfig};
use kip_core::ErrorKind;
use kip_core::ids::{ClusterUid, NodeName};
use kip_testkit::ec2::Vpc;

use crate::fake::{FakeEc2, Leads as _, offerings};

async fn open(config: AwsConfig) -> kip_core::Result<AwsCloud> {
    let builder = AwsCloud::builder(config)
        .offerings(offerings())
        .owner(&ClusterUid::new("c"), &NodeName::new("kip-0"));
    Box::pin(builder.open()).await
}

/// An EC2 whose default VPC, `vpc-0`, has no subnets: what goes there fails, and says so.
async fn two_vpcs() -> Result<(FakeEc2, AwsConfig)> {
    let ec2 = FakeEc2::start().await?;
    let default = Vpc {
        cidrs: vec!["172.31.0.0/16".into()],
        is_default: true,
    };
    {
        let mut state = ec2.state();
        state.vpcs.insert("vpc-0".into(), default);
        state.vpcs.values_mut().last().expect("vpc-1").is_default = false;
    }
    let mut config = ec2.config();
    config.vpc_id = None;
    Ok((ec2, config))
}

fn vpc_of_group(ec2: &FakeEc2) -> Option<String> {
    ec2.state()
        .security_groups
        .values()
        .next()
        .map(|group| group.vpc.clone())
}

/// Cells in another VPC than the cluster's cannot be reached by anybody.
#[tokio::test]
async fn cells_go_to_the_vpc_that_kip_runs_in() -> Result<()> {
    let (ec2, config) = two_vpcs().await?;
    ec2.state().homes = vec!["vpc-1".into(), "vpc-1".into()];
    open(config).await?;
    ensure!(vpc_of_group(&ec2).as_deref() == Some("vpc-1"));
    Ok(())
}

#[tokio::test]
async fn off_aws_or_where_the_metadata_service_is_closed_the_default_vpc_is_taken() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.vpc_id = None;
    open(config.clone()).await?;
    ensure!(vpc_of_group(&ec2).as_deref() == Some("vpc-1"));
    // From a VPC of another region, nothing can be told.
    ec2.state().homes = vec!["vpc-far".into()];
    open(config).await?;
    Ok(())
}

#[tokio::test]
async fn the_default_vpc_is_taken_when_it_is_asked_for() -> Result<()> {
    let (ec2, mut config) = two_vpcs().await?;
    ec2.state().homes = vec!["vpc-1".into()];
    config.vpc_id = Some("Default".into());
    let error = open(config).await.map(|_| ()).unwrap_err();
    ensure!(
        error.kind() == ErrorKind::ConfigInvalid && error.to_string().contains("vpc-0"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn subnets_that_are_named_say_which_vpc_it_is() -> Result<()> {
    let (ec2, mut config) = two_vpcs().await?;
    ec2.state().homes = vec!["vpc-0".into()];
    config.subnet_ids = vec!["subnet-a".into()];
    open(config).await?;
    ensure!(vpc_of_group(&ec2).as_deref() == Some("vpc-1"));
    Ok(())
}

#[tokio::test]
async fn a_machine_in_two_vpcs_is_asked_which() -> Result<()> {
    let (ec2, config) = two_vpcs().await?;
    ec2.state().homes = vec!["vpc-0".into(), "vpc-1".into()];
    let error = open(config).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    ensure!(
        error.kind() == ErrorKind::ConfigInvalid && text.contains("vpc_id") && text.contains("vpc-0, vpc-1"),
        "{error:?}"
    );
    ensure!(vpc_of_group(&ec2).is_none());
    Ok(())
}

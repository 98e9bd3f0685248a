//! What is kept in order beside the instances: routes, and what is left over.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kip_aws::{AwsCloud, AwsConfig};
use kip_core::ErrorKind;
use kip_core::ids::{ClusterUid, InstanceId, NodeName};
use kip_core::model::CapacityType;
use kip_core::provider::{CloudProvider as _, LaunchRequest, tags};

use crate::behaviour::request;
use crate::fake::{FakeEc2, Fault, Leads as _, offering, offerings};

/// How long something may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const NET: &str = "10.9.0.0/16";

async fn open(mut config: AwsConfig) -> Result<AwsCloud> {
    config.upkeep_interval = Duration::from_millis(50);
    let builder = AwsCloud::builder(config)
        .offerings(offerings())
        .owner(&ClusterUid::new("c"), &NodeName::new("kip-0"));
    Ok(Box::pin(builder.open()).await?)
}

fn routed(token: &str) -> LaunchRequest {
    let mut request = request(token).with_tag(tags::NODE, "kip-0");
    request.options.routes.insert(NET.to_owned());
    request
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .with_context(|| what.to_owned())
}

fn target(ec2: &FakeEc2, table: &str) -> Option<String> {
    ec2.state().route_tables[table].routes.get(NET).cloned()
}

/// A VPN gateway in a pod is of no use when its peers' packets do not reach it.
#[tokio::test]
async fn the_ranges_of_a_pod_lead_to_its_cell_while_it_is_there() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = open(ec2.config()).await?;
    let first = cloud.launch(routed("t1")).await?.id.to_string();
    until("the route", || target(&ec2, "rtb-main").as_ref() == Some(&first)).await?;
    ensure!(ec2.state().forwarding.contains(&first));
    ensure!(target(&ec2, "rtb-b").is_none());

    let mut elsewhere = routed("t2");
    elsewhere.offering = offering("t3.small", "us-east-1b", CapacityType::OnDemand);
    let second = cloud.launch(elsewhere).await?.id.to_string();
    until("the route of the other subnet's own table", || {
        target(&ec2, "rtb-b").as_ref() == Some(&second)
    })
    .await?;

    cloud.terminate(&InstanceId::new(&first)).await?;
    until("the end of the route", || target(&ec2, "rtb-main").is_none()).await?;
    ensure!(target(&ec2, "rtb-b").as_ref() == Some(&second));
    ensure!(
        ec2.state().route_tables["rtb-main"].routes.len() == 2,
        "nothing else is touched"
    );
    Ok(())
}

/// An instance is paid for from its launch on: that something after it fails must not lose it.
#[tokio::test]
async fn a_route_that_fails_at_first_is_made_later_and_the_launch_is_not_lost() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = open(ec2.config()).await?;
    ec2.fail(
        "CreateRoute",
        [Fault::Refused("RequestLimitExceeded", 503), Fault::LostReply],
    );
    ec2.fail(
        "ModifyInstanceAttribute",
        [Fault::Refused("IncorrectInstanceState", 400)],
    );
    ec2.fail("DescribeRouteTables", [Fault::Refused("InternalError", 500)]);
    let id = cloud.launch(routed("t1")).await?.id.to_string();
    until("the route", || {
        target(&ec2, "rtb-main").as_ref() == Some(&id) && ec2.state().forwarding.contains(&id)
    })
    .await?;
    Ok(())
}

/// The controller that launched may have ended before the route was there, and the next one has to see to it.
#[tokio::test]
async fn the_next_controller_makes_the_routes_that_are_missing() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().denied_actions.insert("CreateRoute".into());
    let cloud = open(ec2.config()).await?;
    let id = cloud.launch(routed("t1")).await?.id.to_string();
    until("an attempt", || !ec2.calls("CreateRoute").is_empty()).await?;
    drop(cloud);
    ec2.state().denied_actions.clear();
    let _next = open(ec2.config()).await?;
    until("the route", || target(&ec2, "rtb-main").as_ref() == Some(&id)).await
}

/// A cell that ended by itself, as one that was interrupted: what its pod's peers send would go nowhere for ever, and a route to another place
/// for the same range could not be made.
#[tokio::test]
async fn a_route_to_a_cell_that_is_gone_is_removed_and_other_dead_routes_are_not() -> Result<()> {
    const OTHERS: &str = "10.8.0.0/16";
    let ec2 = FakeEc2::start().await?;
    let cloud = open(ec2.config()).await?;
    let id = cloud.launch(routed("t1")).await?.id.to_string();
    until("the route", || target(&ec2, "rtb-main").as_ref() == Some(&id)).await?;
    {
        let mut state = ec2.state();
        let main = state.route_tables.get_mut("rtb-main").context("the main table")?;
        main.routes.insert(OTHERS.into(), "i-0000000000000dead".into());
        // It is gone at once, and soon forgotten: EC2 shows only that an interface is not there.
        state.instances.remove(&id).context("the instance")?;
    }
    until("the end of the route", || target(&ec2, "rtb-main").is_none()).await?;
    ensure!(ec2.state().route_tables["rtb-main"].routes.contains_key(OTHERS));
    let looked = ec2.calls("DescribeInstances").len();
    let tables = || ec2.calls("DescribeRouteTables").len();
    let seen = tables();
    until("a few looks", || {
        ec2.calls("DescribeInstances").len() > looked + 4
    })
    .await?;
    ensure!(
        tables() <= seen + 2,
        "a cluster without routes pays for them in calls"
    );
    Ok(())
}

/// A controller that was not there when the cell before ended: the pod asks for exactly this range, and nobody else gets its packets.
#[tokio::test]
async fn a_dead_route_that_nobody_knows_is_turned_to_the_cell_that_asks_for_it() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state()
        .route_tables
        .get_mut("rtb-main")
        .context("the main table")?
        .routes
        .insert(NET.into(), "i-0000000000000dead".into());
    let cloud = open(ec2.config()).await?;
    let id = cloud.launch(routed("t1")).await?.id.to_string();
    until("the route", || target(&ec2, "rtb-main").as_ref() == Some(&id)).await
}

#[tokio::test]
async fn a_route_of_somebody_else_is_left_alone() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state()
        .route_tables
        .get_mut("rtb-main")
        .context("the main table")?
        .routes
        .insert(NET.into(), "vgw-1".into());
    let cloud = open(ec2.config()).await?;
    let id = cloud.launch(routed("t1")).await?.id.to_string();
    until("the cell to forward", || ec2.state().forwarding.contains(&id)).await?;
    let looked = ec2.calls("DescribeRouteTables").len();
    until("another look", || {
        ec2.calls("DescribeRouteTables").len() > looked + 1
    })
    .await?;
    cloud.terminate(&InstanceId::new(&id)).await?;
    let looked = ec2.calls("DescribeInstances").len();
    until("another look", || {
        ec2.calls("DescribeInstances").len() > looked + 1
    })
    .await?;
    ensure!(target(&ec2, "rtb-main").as_deref() == Some("vgw-1"));
    ensure!(ec2.calls("ReplaceRoute").is_empty() && ec2.calls("DeleteRoute").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_range_that_cannot_be_routed_costs_no_instance() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = open(ec2.config()).await?;
    let mut wrong = routed("t1");
    wrong.options.routes.insert("10.9".into());
    let error = cloud.launch(wrong).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::InvalidRequest, "{error:?}");
    ensure!(ec2.calls("RunInstances").is_empty());
    Ok(())
}

#[tokio::test]
async fn interfaces_that_are_left_over_are_removed_and_other_peoples_are_not() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let own = [(tags::CLUSTER, "c"), (tags::NODE, "kip-0")];
    let others = [(tags::CLUSTER, "c"), (tags::NODE, "kip-1")];
    for (id, tags) in [("eni-own", own), ("eni-others", others)] {
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        ec2.state()
            .left_interfaces
            .insert(id.into(), tags.into_iter().collect());
    }
    let _cloud = open(ec2.config()).await?;
    until("the interface to go", || {
        !ec2.state().left_interfaces.contains_key("eni-own")
    })
    .await?;
    ensure!(
        ec2.calls("DescribeNetworkInterfaces").len() > 2,
        "it was removed at first sight"
    );
    let looked = ec2.calls("DescribeNetworkInterfaces").len();
    until("another look", || {
        ec2.calls("DescribeNetworkInterfaces").len() > looked + 1
    })
    .await?;
    ensure!(ec2.state().left_interfaces.contains_key("eni-others"));
    Ok(())
}

/// A cluster without routes must not pay for them in calls.
#[tokio::test]
async fn without_routes_nobody_asks_for_route_tables() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = open(ec2.config()).await?;
    cloud.launch(request("t1").with_tag(tags::NODE, "kip-0")).await?;
    until("a few looks", || ec2.calls("DescribeNetworkInterfaces").len() > 3).await?;
    ensure!(ec2.calls("DescribeRouteTables").is_empty());
    Ok(())
}

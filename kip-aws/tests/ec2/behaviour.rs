//! What the provider does when EC2 is full, late, terse or wrong, and how few calls it needs.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::TryStreamExt as _;
use futures::future::{join_all, try_join_all};
use kip_aws::AwsCloud;
use kip_core::ids::{InstanceId, LaunchToken, Zone};
use kip_core::model::{CapacityType, Instance, InstancePhase};
use kip_core::provider::{CloudProvider as _, LaunchRequest, ListOptions, OfferingQuery, UserData, tags};
use kip_core::{ErrorKind, Retry};

use crate::fake::{FakeEc2, Fault, Leads as _, offering};

const ZONE: &str = "us-east-1a";

/// A launch in the first zone.
pub(crate) fn request(token: &str) -> LaunchRequest {
    let offering = offering("t3.small", ZONE, CapacityType::OnDemand);
    LaunchRequest::new(
        LaunchToken::from_stored(token),
        offering,
        UserData::new("#cloud-config\n"),
    )
    .with_tag(tags::CLUSTER, "c")
    .with_tag(tags::TOKEN, token)
}

/// All that is listed.
pub(crate) async fn listed(cloud: &AwsCloud, options: ListOptions) -> kip_core::Result<Vec<Instance>> {
    cloud.list(options).try_collect().await
}

/// The controller restarted between launch and repeat, and an image came out, or another subnet is the emptiest now.
#[tokio::test]
async fn a_repeat_by_another_process_finds_the_instance_although_it_would_launch_differently_now()
-> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.images.ids.clear();
    config.images.filters = vec![("name".into(), vec!["kip-cell-*".into()])];
    let first = ec2.open(config.clone()).await?.launch(request("t")).await?;
    {
        let mut state = ec2.state();
        let newer = ("x86_64", "2026-06-01T00:00:00.000Z");
        state.images.insert("ami-1amd".into(), newer);
        state.subnets.insert("subnet-a2".into(), (ZONE.into(), 9000));
    }
    let restarted = ec2.open(config).await?;
    let again = restarted.launch(request("t")).await?;
    ensure!(again.id == first.id);
    ensure!(ec2.calls("RunInstances")[1].get("ImageId") == Some("ami-1amd"));
    ensure!(ec2.calls("RunInstances")[1].get("NetworkInterface.1.SubnetId") == Some("subnet-a2"));

    let mut other = request("t");
    other.user_data = UserData::new("other");
    let error = restarted.launch(other).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::AlreadyExists, "{error:?}");
    ensure!(ec2.state().instances.len() == 1);
    Ok(())
}

/// EC2 refuses a token whose instance is gone. The machine must learn that it ended, and why, to try again with another.
#[tokio::test]
async fn a_repeat_after_the_instance_ended_says_that_it_ended() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let id = cloud.launch(request("t")).await?.id;
    ec2.state()
        .end(id.as_str(), "Client.VolumeLimitExceeded", "Volume limit exceeded");
    let again = cloud.launch(request("t")).await?;
    ensure!(
        again.id == id && again.phase == InstancePhase::Terminated,
        "{again:?}"
    );
    ensure!(
        again.reason.as_deref() == Some("Volume limit exceeded"),
        "{again:?}"
    );
    Ok(())
}

#[tokio::test]
async fn no_capacity_quota_and_full_subnets_send_the_pod_elsewhere() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    {
        let mut state = ec2.state();
        state.capacity.insert(("t3.small".into(), ZONE.into()), 1);
        state.subnets.insert("subnet-b".into(), ("us-east-1b".into(), 3));
    }
    let cloud = ec2.open(ec2.config()).await?;
    cloud.launch(request("1")).await?;
    let error = cloud.launch(request("2")).await.unwrap_err();
    ensure!(error.retry() == Retry::Elsewhere, "{error:?}");

    let in_b = |token: &str| {
        let mut request = request(token);
        request.offering = offering("t3.small", "us-east-1b", CapacityType::OnDemand);
        request
    };
    cloud.launch(in_b("3")).await?;
    let calls = ec2.calls("RunInstances").len();
    let error = cloud.launch(in_b("4")).await.unwrap_err();
    ensure!(
        error.retry() == Retry::OtherZone && error.kind() == ErrorKind::InsufficientCapacity,
        "{error:?}"
    );
    ensure!(
        ec2.calls("RunInstances").len() == calls,
        "a subnet that is known to be full was asked"
    );

    ec2.state().quota = 2;
    let mut other = request("5");
    other.offering = offering("c7i.large", ZONE, CapacityType::OnDemand);
    let error = cloud.launch(other).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::QuotaExceeded, "{error:?}");
    Ok(())
}

/// The catalogue has the region's prices: a Local Zone would win as the cheapest, and be billed at more.
#[tokio::test]
async fn a_subnet_of_a_local_zone_is_used_only_when_it_is_named() -> Result<()> {
    const LOCAL: &str = "us-east-1-bos-1a";
    let ec2 = FakeEc2::start().await?;
    ec2.state()
        .subnets
        .insert("subnet-local".into(), (LOCAL.into(), 9000));
    let mut named = ec2.config();
    named.subnet_ids = vec!["subnet-local".into()];
    for (config, is_sold) in [(ec2.config(), false), (named, true)] {
        let mut offerings = crate::fake::offerings();
        for offered in &mut offerings {
            if offered.id.zone.as_str() == ZONE {
                offered.id.zone = Zone::new(LOCAL);
            }
        }
        let cloud = AwsCloud::builder(config).offerings(offerings).open().await?;
        let sold = cloud.offerings(&OfferingQuery::default()).await?;
        ensure!(
            sold.iter().any(|offered| offered.id.zone.as_str() == LOCAL) == is_sold,
            "{sold:?}"
        );
    }
    Ok(())
}

/// Others take addresses too: the count that is known here may be wrong.
#[tokio::test]
async fn a_subnet_that_turns_out_full_is_left_for_another_of_the_zone() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    ec2.state().subnets.insert("subnet-a".into(), (ZONE.into(), 0));
    let error = cloud.launch(request("1")).await.unwrap_err();
    ensure!(
        error.kind() == ErrorKind::Conflict && error.retry() == Retry::Never,
        "the other subnet has room, so zone and type stay open: {error:?}"
    );
    cloud.launch(request("2")).await?;
    let subnet = ec2.calls("RunInstances")[1]
        .get("NetworkInterface.1.SubnetId")
        .map(str::to_owned);
    ensure!(subnet.as_deref() == Some("subnet-a2"), "{subnet:?}");
    ec2.state().subnets.insert("subnet-a2".into(), (ZONE.into(), 0));
    let error = cloud.launch(request("3")).await.unwrap_err();
    ensure!(error.retry() == Retry::OtherZone, "{error:?}");
    Ok(())
}

/// The budget: at most 0.3 calls a pod beyond RunInstances in a burst of 200, from launch until it is gone.
#[tokio::test]
async fn a_burst_of_two_hundred_is_watched_and_ended_with_few_calls() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let requests: Vec<LaunchRequest> = (0..200).map(|i| request(&format!("t{i}"))).collect();
    let launched = try_join_all(requests.into_iter().map(|request| cloud.launch(request))).await?;
    let ids: Vec<InstanceId> = launched.into_iter().map(|instance| instance.id).collect();
    let found = try_join_all(ids.iter().map(|id| cloud.get(id))).await?;
    ensure!(found.iter().zip(&ids).all(|(instance, id)| instance.id == *id));
    try_join_all(ids.iter().map(|id| cloud.terminate(id))).await?;
    for result in join_all(ids.iter().map(|id| cloud.terminate(id))).await {
        ensure!(result.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    }
    let calls = ec2.calls("DescribeInstances").len() + ec2.calls("TerminateInstances").len();
    ensure!(ec2.calls("RunInstances").len() == 200);
    ensure!(calls <= 60, "{calls} calls");
    println!("200 pods: {calls} calls beyond RunInstances");
    Ok(())
}

/// EC2 terminates nothing when one of the ids is unknown; nobody else may suffer from that.
#[tokio::test]
async fn an_unknown_instance_in_a_batch_keeps_no_other_alive() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().shutdown = Duration::from_secs(3600);
    let cloud = ec2.open(ec2.config()).await?;
    let mut ids = Vec::new();
    for token in ["1", "2", "3"] {
        ids.push(cloud.launch(request(token)).await?.id);
    }
    ids.push(InstanceId::new("i-0000000000000dead"));
    let results = join_all(ids.iter().map(|id| cloud.terminate(id))).await;
    for (id, result) in ids.iter().zip(&results).take(3) {
        ensure!(result.is_ok(), "{id}: {result:?}");
        ensure!(cloud.get(id).await?.phase == InstancePhase::Terminating);
    }
    let last = results.into_iter().next_back();
    ensure!(last.is_some_and(|result| result.is_err_and(|error| error.kind() == ErrorKind::NotFound)));
    Ok(())
}

/// What is not on a later page is an orphan that is paid for ever.
#[tokio::test]
async fn a_list_is_whole_and_a_broken_one_says_so() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    for token in ["1", "2", "3", "4", "5", "6"] {
        cloud.launch(request(token)).await?;
    }
    let foreign = request("7").with_tag(tags::CLUSTER, "another");
    cloud.launch(foreign).await?;
    let gone = cloud.launch(request("8")).await?.id;
    cloud.terminate(&gone).await?;
    ec2.state().page = 2;
    let ours = ListOptions::default().with_tag(tags::CLUSTER, "c");
    ensure!(listed(&cloud, ours.clone()).await?.len() == 6);
    let pages = ec2.calls("DescribeInstances").len();
    ensure!(pages == 3, "{pages} pages");

    ec2.fail("DescribeInstances", [Fault::Refused("RequestLimitExceeded", 503)]);
    let error = listed(&cloud, ours).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::RateLimited, "{error:?}");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_never_boots_is_shown_as_pending_and_one_that_died_with_its_reason() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().boot = None;
    let cloud = ec2.open(ec2.config()).await?;
    let launched = cloud.launch(request("t")).await?;
    ensure!(launched.phase == InstancePhase::Pending);
    ensure!(launched.addresses.management.is_some() && launched.addresses.pod.is_some());
    ensure!(cloud.get(&launched.id).await?.phase == InstancePhase::Pending);
    let end = ("Server.SpotInstanceTermination", "Spot instance termination");
    ec2.state().end(launched.id.as_str(), end.0, end.1);
    let ended = cloud.get(&launched.id).await?;
    ensure!(
        ended.phase == InstancePhase::Terminated && ended.reason.as_deref() == Some(end.1),
        "{ended:?}"
    );
    Ok(())
}

/// Subnets and images that are not there are not offered: the cheapest of them would be chosen again and again.
#[tokio::test]
async fn only_what_can_be_launched_is_offered() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.subnet_ids = vec!["subnet-b".into()];
    config.images.ids = vec!["ami-0arm".into()];
    let cloud = ec2.open(config).await?;
    let offered = cloud
        .offerings(&kip_core::provider::OfferingQuery::default())
        .await?;
    let names: Vec<String> = offered.iter().map(|offering| offering.id.to_string()).collect();
    assert_eq!(
        names,
        ["t4g.small/us-east-1b/on-demand", "t4g.small/us-east-1b/spot"]
    );
    Ok(())
}

/// Images are replaced and removed while Kip runs, which must not be the end of launching: neither for a pod that was on its way, nor later.
#[tokio::test]
async fn a_removed_image_strands_no_pod() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.images.ids.clear();
    config.images.filters = vec![("name".into(), vec!["kip-cell-*".into()])];
    let cloud = ec2.open(config).await?;
    ec2.fail("RunInstances", [Fault::LostCall]);
    ensure!(cloud.launch(request("1")).await.is_err());
    {
        let mut state = ec2.state();
        state.images.remove("ami-0amd");
        state
            .images
            .insert("ami-1amd".into(), ("x86_64", "2026-02-01T00:00:00.000Z"));
    }
    let first = cloud.launch(request("1")).await?;
    ensure!(
        cloud.launch(request("1")).await?.id == first.id,
        "a repeat is the same instance"
    );
    cloud.launch(request("2")).await?;
    let images: Vec<_> = ec2
        .calls("RunInstances")
        .iter()
        .filter_map(|call| call.get("ImageId").map(str::to_owned))
        .collect();
    ensure!(
        images == ["ami-0amd", "ami-0amd", "ami-1amd", "ami-1amd", "ami-1amd"],
        "{images:?}"
    );
    // Nothing in its place: the operator must do something, and nobody asks on and on.
    ec2.state().images.remove("ami-1amd");
    let before = ec2.calls("DescribeImages").len();
    for token in ["3", "4", "5"] {
        let error = cloud.launch(request(token)).await.unwrap_err();
        ensure!(error.kind() == ErrorKind::ConfigInvalid, "{error:?}");
        ensure!(error.to_string().contains("ami-1amd"), "{error}");
    }
    ensure!(ec2.calls("DescribeImages").len() <= before + 1);
    Ok(())
}

/// A new image is what the next pods boot, without a restart.
#[tokio::test]
async fn a_newer_image_is_found_in_the_background() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.images.ids.clear();
    config.images.filters = vec![("name".into(), vec!["kip-cell-*".into()])];
    config.image_interval = Duration::from_millis(10);
    let cloud = ec2.open(config).await?;
    cloud.launch(request("1")).await?;
    ec2.state()
        .images
        .insert("ami-1amd".into(), ("x86_64", "2026-02-01T00:00:00.000Z"));
    let booted = |i: usize| ec2.calls("RunInstances")[i].get("ImageId").map(str::to_owned);
    ensure!(booted(0).as_deref() == Some("ami-0amd"));
    for i in 1..1000 {
        cloud.launch(request(&format!("next-{i}"))).await?;
        if booted(i).as_deref() == Some("ami-1amd") {
            let known = ec2.calls("RunInstances").len();
            cloud.launch(request("1")).await?;
            ensure!(
                booted(known).as_deref() == Some("ami-0amd"),
                "a repeat keeps its image"
            );
            return Ok(());
        }
    }
    anyhow::bail!("the newer image was never booted")
}

//! The catalogue that is kept fresh: what is asked, what comes of the answers, and what happens when there is none.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kip_aws::catalogue::{Catalogue, Live, LivePart, LiveSource, PartState, PriceSource, Refresh, Snapshot};
use kip_aws::{AwsCloud, AwsConfig};
use kip_core::ErrorKind;
use kip_core::driver::DriverConfig;
use kip_core::model::{Bytes, Offering, Price};
use kip_core::provider::{CloudProvider as _, OfferingQuery};
use kip_testkit::ec2::{Params, Size, Spot};
use kip_testkit::samples;

use crate::fake::{FakeEc2, Fault, Leads as _};
use crate::running::Running;

/// How long anything here may take at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// For ever, as far as a test is concerned.
const SELDOM: Duration = Duration::from_secs(3600);

fn config(ec2: &FakeEc2) -> AwsConfig {
    let mut config = ec2.config();
    config.pricing_endpoint_url = Some(ec2.url().to_owned());
    config.refresh.types = SELDOM;
    config.refresh.on_demand = SELDOM;
    config.refresh.spot = SELDOM;
    config
}

async fn open(config: AwsConfig) -> Result<AwsCloud> {
    Ok(Box::pin(AwsCloud::builder(config).open()).await?)
}

/// Waits until something is so.
async fn until(what: &str, is: impl Fn() -> bool + Send + Sync) -> Result<()> {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .with_context(|| format!("waited in vain until {what}"))
}

fn part(cloud: &AwsCloud, part: LivePart) -> PartState {
    let parts = cloud.catalogue_parts();
    let found = parts.into_iter().find(|state| state.part == part);
    found.expect("every part has a state")
}

fn all_live(cloud: &AwsCloud) -> bool {
    cloud.catalogue_parts().iter().all(|state| state.stamp.live)
}

fn snapshot(cloud: &AwsCloud) -> Arc<Snapshot> {
    cloud
        .catalogue()
        .expect("the cloud has a catalogue of its own")
        .snapshot()
}

async fn offered(cloud: &AwsCloud, id: &str) -> Option<Offering> {
    let all = cloud.offerings(&OfferingQuery::default()).await;
    let mut all = all.expect("offerings are always known").into_iter();
    all.find(|offering| offering.id.to_string() == id)
}

fn lines(params: &Params) -> String {
    params
        .0
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

#[tokio::test]
async fn what_ec2_sells_now_takes_the_place_of_what_is_compiled_in() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let new = Size {
        architecture: "x86_64",
        vcpus: 4,
        mib: 16384,
        burstable: false,
        gpus: Some(("T9", 1)),
    };
    ec2.state()
        .market
        .sell("g9.xlarge", new, "0.5000000000", "0.200000");
    let cloud = open(config(&ec2)).await?;
    until("all parts are live", || all_live(&cloud)).await?;
    let offering = offered(&cloud, "g9.xlarge/us-east-1a/spot")
        .await
        .context("a type that is newer than this program is offered")?;
    assert_eq!(offering.price, Price(200_000));
    assert_eq!(offering.gpu_model.as_deref(), Some("T9"));
    let on_demand = offered(&cloud, "c7i.large/us-east-1b/on-demand").await;
    assert_eq!(on_demand.map(|offering| offering.price), Some(Price(89_250)));
    ensure!(
        offered(&cloud, "m5.large/us-east-1a/on-demand").await.is_none(),
        "EC2 does not sell it here"
    );
    ensure!(
        offered(&cloud, "c7i.large/us-east-1f/on-demand").await.is_none(),
        "there is no subnet"
    );
    assert_eq!(snapshot(&cloud).facts().price_source, PriceSource::Live);
    ensure!(
        cloud
            .catalogue_parts()
            .iter()
            .all(|state| state.failures == 0 && state.problem.is_none())
    );
    Ok(())
}

#[tokio::test]
async fn each_part_is_one_call_a_page_with_exactly_these_parameters() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().market.page = 2;
    let source = LiveSource::connect(&config(&ec2)).await?;
    for part in LivePart::ALL {
        source.fetch(part).await?;
    }
    let types = ec2.calls("DescribeInstanceTypes");
    assert_eq!(
        types.iter().map(lines).collect::<Vec<_>>(),
        ["MaxResults=100\n", "MaxResults=100\nNextToken=2\n"]
    );
    let offerings = ec2.calls("DescribeInstanceTypeOfferings");
    assert_eq!(offerings.len(), 5);
    assert_eq!(
        lines(&offerings[1]),
        "LocationType=availability-zone\nMaxResults=1000\nNextToken=2\n"
    );
    let spot = ec2.calls("DescribeSpotPriceHistory");
    assert_eq!(spot.len(), 5);
    let mut first = spot[0].clone();
    let begin = first.0.remove("StartTime").context("the history has a begin")?;
    ensure!(
        begin.starts_with("20") && begin.ends_with('Z'),
        "{begin}: from now on, not ninety days back"
    );
    assert_eq!(
        lines(&first),
        "MaxResults=1000\nProductDescription.1=Linux/UNIX\nProductDescription.2=Linux/UNIX (Amazon VPC)\n"
    );
    ensure!(
        spot[4].get("StartTime") == Some(begin.as_str()),
        "all pages are of one question"
    );
    let products = ec2.calls("GetProducts");
    assert_eq!(products.len(), 2);
    let mut expected = String::new();
    for (i, (field, value)) in [
        ("operatingSystem", "Linux"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
        ("marketoption", "OnDemand"),
        ("tenancy", "Shared"),
        ("regionCode", "us-east-1"),
    ]
    .into_iter()
    .enumerate()
    {
        let at = format!("Filters.{}", i + 1);
        expected += &format!("{at}.Field={field}\n{at}.Type=TERM_MATCH\n{at}.Value={value}\n");
    }
    expected += "MaxResults=100\nNextToken=2\nServiceCode=AmazonEC2\n";
    assert_eq!(lines(&products[1]), expected);
    Ok(())
}

/// Many operators allow EC2 and not the price list: that must not cost them fresh types and spot prices.
#[tokio::test]
async fn a_part_that_is_denied_keeps_the_others_from_nothing() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let denied = || std::iter::repeat_n(Fault::Refused("AccessDeniedException", 400), 1000);
    ec2.fail("GetProducts", denied());
    let mut config = config(&ec2);
    config.refresh.on_demand = Duration::from_millis(10);
    let cloud = open(config).await?;
    until("the others are live and this was denied again and again", || {
        let live = cloud
            .catalogue_parts()
            .iter()
            .filter(|state| state.stamp.live)
            .count();
        live == 3 && part(&cloud, LivePart::OnDemandPrices).failures > 2
    })
    .await?;
    let state = part(&cloud, LivePart::OnDemandPrices);
    ensure!(!state.stamp.live, "{state:?}");
    let problem = state.problem.context("it says why")?;
    ensure!(problem.contains("AccessDeniedException"), "{problem}");
    ensure!(
        offered(&cloud, "c7i.large/us-east-1a/on-demand").await.is_some(),
        "what is compiled in goes on being used"
    );
    Ok(())
}

#[tokio::test]
async fn the_last_good_copy_stays_with_its_age_when_the_cloud_fails() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = config(&ec2);
    config.refresh.spot = Duration::from_millis(10);
    config.call_timeout = Duration::from_secs(2);
    let cloud = open(config).await?;
    until("all parts are live", || all_live(&cloud)).await?;
    // Each way in which an answer can fail to come, three times, as often as the SDK asks; and an answer with nothing in it.
    ec2.state().market.spot.clear();
    ec2.fail(
        "DescribeSpotPriceHistory",
        [
            Fault::LostReply,
            Fault::LostCall,
            Fault::Refused("InternalError", 500),
        ],
    );
    until("two refreshes failed", || {
        part(&cloud, LivePart::SpotPrices).failures > 1
    })
    .await?;
    let id = "c7i.large/us-east-1a/spot";
    let price = offered(&cloud, id).await.map(|offering| offering.price);
    assert_eq!(price, Some(Price(35_700)));
    let before = part(&cloud, LivePart::SpotPrices).stamp;
    until("another refresh failed", || {
        part(&cloud, LivePart::SpotPrices).failures > 3
    })
    .await?;
    assert_eq!(
        part(&cloud, LivePart::SpotPrices).stamp,
        before,
        "its age grows: nothing became fresher"
    );

    let back = Spot {
        instance_type: "c7i.large".into(),
        zone: "us-east-1a".into(),
        price: "0.050000".into(),
        at: "2026-11-25T12:30:00.000Z".into(),
    };
    ec2.state().market.spot.push(back);
    until("it works again", || {
        part(&cloud, LivePart::SpotPrices).problem.is_none()
    })
    .await?;
    let price = offered(&cloud, id).await.map(|offering| offering.price);
    assert_eq!(price, Some(Price(50_000)));
    ensure!(part(&cloud, LivePart::SpotPrices).stamp.as_of > before.as_of);
    Ok(())
}

/// Pods are placed while EC2 takes its time: whoever reads must not wait for who asks.
#[tokio::test]
async fn a_cloud_that_never_answers_keeps_no_reader_waiting() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    for action in [
        "DescribeInstanceTypes",
        "DescribeInstanceTypeOfferings",
        "GetProducts",
        "DescribeSpotPriceHistory",
    ] {
        ec2.fail(action, [Fault::Silence]);
    }
    let cloud = tokio::time::timeout(PATIENCE, open(config(&ec2))).await??;
    until("all four were asked", || {
        ["DescribeInstanceTypes", "GetProducts"]
            .iter()
            .all(|action| !ec2.calls(action).is_empty())
    })
    .await?;
    let offering = tokio::time::timeout(PATIENCE, offered(&cloud, "m5.large/us-east-1a/on-demand")).await?;
    assert_eq!(offering.map(|offering| offering.price), Some(Price(96_000)));
    Ok(())
}

/// Filters that the endpoint does not understand, or one that is not what it seems: memory and time have an end.
#[tokio::test]
async fn a_page_that_is_far_too_large_is_not_read() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().market.padding = 32 << 20;
    let source = LiveSource::connect(&config(&ec2)).await?;
    let error = source.fetch(LivePart::OnDemandPrices).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    ec2.state().market.padding = 1 << 20;
    let fetched = source.fetch(LivePart::OnDemandPrices).await?;
    assert_eq!(fetched.rejected, 1, "nonsense is left out");
    Ok(())
}

#[tokio::test]
async fn prices_that_make_no_sense_are_left_out_one_by_one() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    for (name, price) in [
        ("a.zero", "0.0000000000"),
        ("a.negative", "-1.0"),
        ("a.nan", "NaN"),
        ("a.huge", "99999999"),
    ] {
        ec2.state()
            .market
            .on_demand
            .insert(name.to_owned(), price.to_owned());
    }
    let source = LiveSource::connect(&config(&ec2)).await?;
    let fetched = source.fetch(LivePart::OnDemandPrices).await?;
    let Live::OnDemandPrices(prices) = fetched.live else {
        anyhow::bail!("it was asked for prices");
    };
    assert_eq!((prices.len(), fetched.rejected), (3, 4));
    Ok(())
}

/// With an endpoint of one's own for EC2, such as an emulator, no call goes anywhere else.
#[tokio::test]
async fn prices_are_asked_for_only_where_the_operator_expects_it() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = config(&ec2);
    config.pricing_endpoint_url = None;
    let source = LiveSource::connect(&config).await?;
    ensure!(!source.has(LivePart::OnDemandPrices) && source.has(LivePart::SpotPrices));
    let error = source.fetch(LivePart::OnDemandPrices).await.unwrap_err();
    ensure!(error.kind() == ErrorKind::Unsupported, "{error:?}");
    ensure!(error.to_string().contains("pricingEndpointURL"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_refresh_that_is_off_asks_for_nothing_and_one_without_a_cloud_ends() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut off = config(&ec2);
    off.refresh = Refresh::NEVER;
    let _cloud = open(off).await?;
    let mut often = config(&ec2);
    often.refresh.types = Duration::ZERO;
    often.refresh.spot = Duration::from_millis(1);
    let cloud = open(often).await?;
    let catalogue = Arc::clone(cloud.catalogue().context("it has one")?);
    let clone = cloud.clone();
    drop(cloud);
    let asked = || ec2.calls("DescribeSpotPriceHistory").len();
    let first = asked();
    until("a clone keeps it going", || asked() > first + 2).await?;
    ensure!(
        ec2.calls("DescribeInstanceTypes").is_empty(),
        "what is off is not asked for"
    );
    drop(clone);
    until("the tasks have let the catalogue go", || {
        Arc::strong_count(&catalogue) == 1
    })
    .await
}

#[tokio::test]
async fn a_catalogue_of_ones_own_is_left_alone() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let catalogue = Arc::new(Catalogue::seeded("us-east-1")?);
    let cloud = Box::pin(AwsCloud::builder(config(&ec2)).catalogue(catalogue).open()).await?;
    ensure!(cloud.catalogue().is_none() && cloud.catalogue_parts().is_empty());
    Ok(())
}

/// AWS opens regions faster than this program is released.
#[tokio::test]
async fn a_region_that_is_newer_than_this_program_is_opened_by_what_ec2_says() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = config(&ec2);
    config.region = Some("us-east-9".into());
    // Its zones have the names of another region's, so they must be named.
    config.subnet_ids = vec!["subnet-a".into()];
    config.refresh = Refresh::NEVER;
    let cloud = open(config.clone()).await?;
    let offering = offered(&cloud, "c7i.large/us-east-1a/on-demand").await;
    assert_eq!(offering.map(|offering| offering.price), Some(Price(89_250)));
    assert_eq!(
        snapshot(&cloud).facts().price_source,
        PriceSource::OtherRegion("us-east-1".into())
    );
    ec2.fail(
        "DescribeInstanceTypeOfferings",
        [Fault::Refused("UnauthorizedOperation", 403)],
    );
    let error = Box::pin(AwsCloud::builder(config).open())
        .await
        .map(|_| ())
        .unwrap_err();
    ensure!(error.kind() == ErrorKind::PermissionDenied, "{error:?}");
    ensure!(error.to_string().contains("us-east-9"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_the_old_kip_stays_in_force_where_the_operator_wants_it() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let file = r#"{"us-east-1": [{"instanceType": "c7i.large", "price": 0.01, "memory": 4, "cpu": 2}]}"#;
    let facts = kip_aws::catalogue::from_instance_data(file, "us-east-1", jiff::Timestamp::UNIX_EPOCH)?;
    let mut config = config(&ec2);
    config.refresh.types = Duration::ZERO;
    config.refresh.on_demand = Duration::ZERO;
    let cloud = Box::pin(AwsCloud::builder(config).facts(facts).open()).await?;
    until("spot prices are live", || {
        part(&cloud, LivePart::SpotPrices).stamp.live
    })
    .await?;
    let all = cloud.offerings(&OfferingQuery::default()).await?;
    let ids: Vec<String> = all.iter().map(|offering| offering.id.to_string()).collect();
    assert_eq!(
        ids,
        [
            "c7i.large/us-east-1a/on-demand",
            "c7i.large/us-east-1a/spot",
            "c7i.large/us-east-1b/on-demand",
            "c7i.large/us-east-1b/spot",
        ]
    );
    assert_eq!(all[0].price, Price(10_000));
    Ok(())
}

/// A pod that nothing is large enough for waits, until EC2 sells something that is.
#[tokio::test]
async fn a_type_that_ec2_sells_from_now_on_is_launched_for_the_pod_that_needs_it() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().types.insert("m99.xlarge".into(), "x86_64");
    let mut config = config(&ec2);
    config.refresh.types = Duration::from_millis(20);
    config.refresh.on_demand = Duration::from_millis(20);
    let cloud = open(config).await?;
    until("all parts are live", || all_live(&cloud)).await?;
    let mut settings = DriverConfig::default();
    settings.offerings_interval = Duration::from_millis(20);
    settings.offerings_min_interval = Duration::from_millis(20);
    let running = Running::start_with(cloud, settings)?;
    let source = &running.source;
    let mut demand = samples::demand("large");
    demand.memory = Bytes::gib(32);
    let pod = source.run(demand);
    // It was looked for, in vain, for as long as it takes EC2 to be asked three times more.
    let asked = ec2.calls("DescribeInstanceTypes").len();
    until("EC2 was asked again", || {
        ec2.calls("DescribeInstanceTypes").len() > asked + 2
    })
    .await?;
    ensure!(ec2.calls("RunInstances").is_empty(), "nothing is large enough");

    let size = Size {
        architecture: "x86_64",
        vcpus: 4,
        mib: 65536,
        burstable: false,
        gpus: None,
    };
    ec2.state()
        .market
        .sell("m99.xlarge", size, "0.4000000000", "0.100000");
    // Which zones have it is asked together with the types.
    until("it is launched", || !ec2.calls("RunInstances").is_empty()).await?;
    assert_eq!(
        ec2.calls("RunInstances")[0].get("InstanceType"),
        Some("m99.xlarge")
    );
    source.delete(&pod, Duration::ZERO);
    until("nothing is left", || {
        ec2.state().alive().is_empty() && source.is_empty()
    })
    .await?;
    running.end().await
}

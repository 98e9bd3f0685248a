//! The provider on `moto`, an EC2 of other people's making: that what we send is understood and what comes back is read.
//!
//! Moto never fails, ends instances at once, and ignores client tokens, so promises about those are kept to our own fake.

mod environment;
pub(crate) mod server;

use anyhow::{Result, ensure};
use futures::TryStreamExt as _;
use kip_aws::catalogue::{Facts, Live, LivePart, LiveSource, merge, offerings};
use kip_aws::{AwsCloud, AwsConfig, AwsCredentials, PublicAddress};
use kip_core::ErrorKind;
use kip_core::ids::{InstanceId, LaunchToken};
use kip_core::model::{Bytes, CapacityType, InstancePhase};
use kip_core::provider::{CloudProvider as _, LaunchRequest, ListOptions, OfferingQuery, UserData, tags};

use crate::fake::offering;
use server::Moto;

pub(crate) fn config(moto: &Moto) -> AwsConfig {
    let mut config = AwsConfig::default();
    config.region = Some("us-east-1".into());
    config.credentials = Some(AwsCredentials {
        access_key_id: "AKIATEST".to_owned().into(),
        secret_access_key: "secret".to_owned().into(),
    });
    config.endpoint_url = Some(moto.url().to_owned());
    config.images.filters = vec![("name".into(), vec!["al2023-ami-ecs-hvm-*".into()])];
    config
}

fn request(token: &str, capacity_type: CapacityType) -> LaunchRequest {
    let offering = offering("t3.small", "us-east-1b", capacity_type);
    LaunchRequest::new(
        LaunchToken::from_stored(token),
        offering,
        UserData::new("#cloud-config\n"),
    )
    .with_volume_size(Bytes::gib(20))
    .with_tag(tags::CLUSTER, "c")
    .with_tag(tags::TOKEN, token)
}

/// The default VPC, images by name and the compiled-in catalogue: a configuration of one line opens a region.
#[tokio::test]
async fn a_pods_instance_is_launched_watched_listed_and_ended() -> Result<()> {
    let moto = Moto::start().await?;
    let mut config = config(&moto);
    config.public_address = PublicAddress::Never;
    let cloud = AwsCloud::builder(config).open().await?;
    let offered = cloud.offerings(&OfferingQuery::default()).await?;
    let architectures: std::collections::BTreeSet<_> =
        offered.iter().map(|offering| offering.architecture).collect();
    ensure!(
        offered.len() > 1000 && architectures.len() == 2,
        "{} offerings",
        offered.len()
    );

    let request = request("t1", CapacityType::OnDemand);
    let launched = cloud.launch(request.clone()).await?;
    ensure!(launched.offering == request.offering, "{launched:?}");
    ensure!(launched.token.as_ref() == Some(&request.token), "{launched:?}");
    for (key, value) in &request.tags {
        ensure!(launched.tags.get(key) == Some(value), "{key}: {launched:?}");
    }
    let seen = cloud.get(&launched.id).await?;
    ensure!(seen.phase == InstancePhase::Running, "{seen:?}");
    ensure!(seen.addresses.management.is_some(), "{seen:?}");
    ensure!(
        seen.provider_id == format!("aws:///us-east-1b/{}", seen.id),
        "{seen:?}"
    );

    let spot = cloud.launch(self::request("t2", CapacityType::Spot)).await?;
    ensure!(cloud.get(&spot.id).await?.offering.capacity_type == CapacityType::Spot);
    let foreign = self::request("t3", CapacityType::OnDemand).with_tag(tags::CLUSTER, "cluster");
    cloud.launch(foreign).await?;
    let options = ListOptions::default().with_tag(tags::CLUSTER, "c");
    let mut listed: Vec<InstanceId> = cloud
        .list(options)
        .map_ok(|instance| instance.id)
        .try_collect()
        .await?;
    let mut ours = vec![launched.id.clone(), spot.id.clone()];
    listed.sort();
    ours.sort();
    ensure!(listed == ours, "{listed:?}");

    cloud.terminate(&launched.id).await?;
    let gone = cloud.terminate(&launched.id).await.unwrap_err();
    ensure!(gone.kind() == ErrorKind::NotFound, "{gone:?}");
    ensure!(cloud.get(&launched.id).await?.phase == InstancePhase::Terminated);
    Ok(())
}

#[tokio::test]
async fn what_is_unknown_or_wrong_is_told_apart() -> Result<()> {
    let moto = Moto::start().await?;
    let cloud = AwsCloud::builder(config(&moto)).open().await?;
    let unknown = InstanceId::new("i-0000000000000dead");
    let get = cloud.get(&unknown).await.unwrap_err();
    ensure!(get.kind() == ErrorKind::NotFound, "{get:?}");
    let terminate = cloud.terminate(&unknown).await.unwrap_err();
    ensure!(terminate.kind() == ErrorKind::NotFound, "{terminate:?}");

    type Change = fn(&mut AwsConfig);
    let cases: [(Change, &str); 3] = [
        (
            |c| c.subnet_ids = vec!["subnet-0123456789abcdef0".into()],
            "InvalidSubnetID.NotFound",
        ),
        (
            |c| c.vpc_id = Some("vpc-0123456789abcdef0".into()),
            "has no subnet",
        ),
        (
            |c| c.images.ids = vec!["ami-0123456789abcdef0".into()],
            "InvalidAMIID.NotFound",
        ),
    ];
    for (change, says) in cases {
        let mut config = config(&moto);
        change(&mut config);
        let error = AwsCloud::builder(config).open().await.map(|_| ()).unwrap_err();
        ensure!(error.kind() == ErrorKind::ConfigInvalid, "{error:?}");
        ensure!(error.to_string().contains(says), "{error:?}");
    }
    Ok(())
}

/// Moto carries what EC2 itself answered about more than a thousand types; the seed was made of the same answers by other code.
#[tokio::test]
async fn a_region_s_types_and_zones_are_read_as_the_compiled_in_list_has_them() -> Result<()> {
    let moto = Moto::start().await?;
    let source = LiveSource::connect(&config(&moto)).await?;
    let seeded = Facts::seeded("us-east-1")?;
    let zones = source.fetch(LivePart::Zones).await?;
    ensure!(zones.rejected == 0);
    let Live::Zones(zones) = zones.live else {
        anyhow::bail!("it was asked for zones");
    };
    let kinds = source.fetch(LivePart::Kinds).await?;
    ensure!(kinds.rejected == 0);
    let Live::Kinds(kinds) = kinds.live else {
        anyhow::bail!("it was asked for types");
    };
    let mut compared = 0;
    for kind in &kinds {
        if let Some(known) = seeded.kinds.get(&kind.name) {
            ensure!(kind == known, "{kind:?} is not {known:?}");
            compared += 1;
        }
    }
    ensure!(compared == seeded.kinds.len() && compared > 700, "{compared}");
    for (zone, known) in seeded.zones.iter() {
        let told = zones.get(zone).is_some_and(|told| known.is_subset(told));
        ensure!(told, "{zone} lacks some");
    }
    Ok(())
}

/// Moto sells every spot instance for a thousandth of a cent.
#[tokio::test]
async fn spot_prices_of_next_to_nothing_choose_no_instance() -> Result<()> {
    let moto = Moto::start().await?;
    let source = LiveSource::connect(&config(&moto)).await?;
    let fetched = source.fetch(LivePart::SpotPrices).await?;
    ensure!(fetched.rejected == 0);
    let facts = Facts::seeded("us-east-1")?;
    let merged = merge(&facts, fetched.live, jiff::Timestamp::now())?;
    let (before, after) = (offerings(&facts), offerings(&merged));
    ensure!(before == after, "the estimates stay");
    Ok(())
}

/// The public parameters of AWS name each architecture's newest image; a wrong name is told when Kip starts.
#[tokio::test]
async fn images_are_found_by_parameters_of_the_systems_manager() -> Result<()> {
    const OF: &str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default";
    let moto = Moto::start().await?;
    let mut config = config(&moto);
    config.images.filters.clear();
    config.images.ssm_parameters = vec![format!("{OF}-x86_64"), format!("{OF}-arm64")];
    let cloud = AwsCloud::builder(config.clone()).open().await?;
    let architectures = &cloud.info().capabilities.architectures;
    ensure!(architectures.len() == 2, "{architectures:?}");
    cloud.launch(request("t1", CapacityType::OnDemand)).await?;

    config.images.ssm_parameters.push(format!("{OF}-riscv"));
    let error = AwsCloud::builder(config).open().await.unwrap_err();
    ensure!(error.kind() == ErrorKind::ConfigInvalid, "{error:?}");
    ensure!(
        error.to_string().contains(&format!("there is no {OF}-riscv")),
        "{error}"
    );
    Ok(())
}

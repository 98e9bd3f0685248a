//! Security group, preflight and routes on `moto`: that what is sent there is what is read back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use kip_aws::{AwsBuilder, AwsCloud, AwsConfig, Verdict};
use kip_core::ids::{ClusterUid, NodeName};
use kip_core::model::CapacityType;
use kip_core::provider::{CloudProvider as _, tags};

use super::server::Moto;
use super::{config, request};

const NET: &str = "10.9.0.0/16";

fn of_node(config: AwsConfig) -> AwsBuilder {
    AwsCloud::builder(config).owner(&ClusterUid::new("c"), &NodeName::new("kip-0"))
}

/// Moto's own state, asked for with Amazon's SDK.
fn client(moto: &Moto) -> aws_sdk_ec2::Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIATEST", "secret", None, None, "test"))
        .http_client(http)
        .endpoint_url(moto.url());
    aws_sdk_ec2::Client::from_conf(config.build())
}

/// The second start would add and take away the same rules for ever if what is read back were not what was sent.
#[tokio::test]
async fn a_security_group_is_made_once_and_found_as_it_should_be() -> Result<()> {
    let moto = Moto::start().await?;
    let mut config = config(&moto);
    config.metadata_url = Some("http://127.0.0.1:1".into());
    config.extra_cidrs = vec!["192.168.0.0/16".into()];
    let before = Box::pin(of_node(config.clone()).preflight()).await;
    ensure!(
        before.iter().all(|check| check.verdict < Verdict::Failed),
        "{before:?}"
    );
    Box::pin(of_node(config.clone()).open()).await?;
    let after = Box::pin(of_node(config).preflight()).await;
    let group = after
        .iter()
        .find(|check| check.what == "security group")
        .context("the group is checked")?;
    ensure!(group.found.ends_with("is there, as it should be"), "{after:?}");
    ensure!(
        after.iter().all(|check| check.verdict < Verdict::Failed),
        "{after:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_range_of_a_pod_leads_to_its_instance() -> Result<()> {
    let moto = Moto::start().await?;
    let mut config = config(&moto);
    config.metadata_url = Some("http://127.0.0.1:1".into());
    config.upkeep_interval = Duration::from_millis(100);
    let cloud = Box::pin(of_node(config).open()).await?;
    let mut request = request("t1", CapacityType::OnDemand).with_tag(tags::NODE, "kip-0");
    request.options.routes.insert(NET.into());
    let id = cloud.launch(request).await?.id;
    let client = client(&moto);
    let leads_to = async || -> Result<Option<String>> {
        let tables = client.describe_route_tables().send().await?;
        let routes = tables.route_tables().iter().flat_map(|table| table.routes());
        let found = routes
            .into_iter()
            .find(|route| route.destination_cidr_block() == Some(NET));
        Ok(found.and_then(|route| route.instance_id().map(str::to_owned)))
    };
    let waiting = async {
        while leads_to().await?.as_deref() != Some(id.as_str()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cloud.terminate(&id).await?;
        while leads_to().await?.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .context("the route was not made, or not removed")?
}

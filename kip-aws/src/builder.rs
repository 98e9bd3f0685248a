//! Opening EC2: everything that can be wrong is found before the first pod waits.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_smithy_http_client::tls;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::{OfferingId, Zone};
use kip_core::model::{Architecture, CapacityType, Offering};
use secrecy::ExposeSecret as _;

use crate::api::Api;
use crate::config::AwsConfig;
use crate::images;
use crate::provider::AwsCloud;
use crate::subnets::Subnets;

/// The operation in the errors of opening.
pub(crate) const START: &str = "open EC2";

/// How long finding a server may take.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens EC2. Made by [`AwsCloud::builder`].
#[derive(Clone, Debug)]
pub struct AwsBuilder {
    config: AwsConfig,
    offerings: Vec<Offering>,
}

/// What EC2 answered when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) region: String,
    pub(crate) api: Api,
    pub(crate) config: AwsConfig,
    pub(crate) subnets: Subnets,
    pub(crate) images: BTreeMap<Architecture, images::BootImage>,
    pub(crate) offerings: Vec<Offering>,
}

impl AwsBuilder {
    pub(crate) fn new(config: AwsConfig) -> Self {
        Self {
            config,
            offerings: Vec::new(),
        }
    }

    /// Sets what can be bought, in any zone of the region. What has no subnet or no boot image is left out when EC2 is opened.
    #[must_use]
    pub fn offerings(mut self, offerings: Vec<Offering>) -> Self {
        self.offerings = offerings;
        self
    }

    /// Checks configuration, credentials, subnets and images with EC2, and answers the cloud. Changes nothing there; safe to repeat and to
    /// drop. Must run in a tokio runtime, which the cloud then uses.
    ///
    /// # Errors
    /// `ConfigInvalid` with what to change; `Unauthenticated` when there are no usable credentials, `PermissionDenied` when they do not
    /// allow the calls; `Unavailable` and `Timeout` when EC2 cannot be reached.
    pub async fn open(self) -> Result<AwsCloud> {
        self.config.validated()?;
        let sdk = sdk_config(&self.config).await;
        let region = sdk.region().map(Region::to_string).ok_or_else(|| {
            let message = "region: no region is known: set `cloud.aws.region` or AWS_REGION";
            Error::new(ErrorKind::ConfigInvalid, START, message)
        })?;
        check_credentials(&sdk).await?;
        let api = Api::new(client(&sdk, &self.config));
        let in_region = |error: Error| error.with_context("region", &region);
        let subnets = Subnets::find(api.clone(), &self.config)
            .await
            .map_err(in_region)?;
        let images = images::resolve(&api, &self.config.images)
            .await
            .map_err(in_region)?;
        let zones = subnets.zones();
        let offerings = sellable(self.offerings, &zones, &images);
        if offerings.is_empty() {
            let zones: Vec<&str> = zones.iter().map(Zone::as_str).collect();
            let architectures: Vec<String> = images.keys().map(Architecture::to_string).collect();
            let message = format!(
                "nothing can be bought: the subnets are in {}, the boot images are for {}",
                zones.join(", "),
                architectures.join(", ")
            );
            return Err(in_region(Error::new(ErrorKind::ConfigInvalid, START, message)));
        }
        Ok(AwsCloud::new(Opened {
            region,
            api,
            config: self.config,
            subnets,
            images,
            offerings: offerings.into_values().collect(),
        }))
    }
}

/// The offerings that have a subnet in their zone and an image for their architecture; each once, the last one counts.
fn sellable<I>(
    offerings: Vec<Offering>,
    zones: &BTreeSet<Zone>,
    images: &BTreeMap<Architecture, I>,
) -> BTreeMap<OfferingId, Offering> {
    offerings
        .into_iter()
        .filter(|offering| {
            zones.contains(&offering.id.zone)
                && images.contains_key(&offering.architecture)
                && matches!(
                    offering.id.capacity_type,
                    CapacityType::OnDemand | CapacityType::Spot
                )
        })
        .map(|offering| (offering.id.clone(), offering))
        .collect()
}

async fn sdk_config(config: &AwsConfig) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(keys) = &config.credentials {
        loader = loader.credentials_provider(Credentials::new(
            keys.access_key_id.expose_secret(),
            keys.secret_access_key.expose_secret(),
            None,
            None,
            "kip configuration",
        ));
    }
    loader.load().await
}

async fn check_credentials(sdk: &SdkConfig) -> Result<()> {
    const MISSING: &str = "found no usable AWS credentials: give the pod a role (IRSA or Pod Identity), or set AWS_ACCESS_KEY_ID and \
                           AWS_SECRET_ACCESS_KEY, or `cloud.aws.accessKeyID` and `secretAccessKey`";
    let missing = || Error::new(ErrorKind::Unauthenticated, START, MISSING);
    let provider = sdk.credentials_provider().ok_or_else(missing)?;
    provider
        .provide_credentials()
        .await
        .map_err(|source| missing().with_source(source))?;
    Ok(())
}

/// A client that asks each question once: whoever asks knows whether to ask again, and for RunInstances the SDK does not.
fn client(sdk: &SdkConfig, config: &AwsConfig) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(config.call_timeout)
        .build();
    let mut builder = aws_sdk_ec2::config::Builder::from(sdk)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(url) = &config.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    Client::from_conf(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::offering;
    use kip_core::model::{Bytes, CpuMillis, Price};

    /// An offering that cannot be launched would be chosen again and again for being cheap.
    #[test]
    fn only_what_can_be_launched_is_offered() {
        let sold = |kind: &str, zone: &str, architecture, capacity_type| {
            let mut id = offering(kind, capacity_type);
            id.zone = Zone::new(zone);
            Offering::new(id, architecture, CpuMillis(2000), Bytes::gib(2), Price(1))
        };
        let all = vec![
            sold(
                "t3.small",
                "us-east-1a",
                Architecture::Amd64,
                CapacityType::OnDemand,
            ),
            sold("t3.small", "us-east-1a", Architecture::Amd64, CapacityType::Spot),
            sold(
                "t3.small",
                "us-east-1a",
                Architecture::Amd64,
                CapacityType::Reserved,
            ),
            sold(
                "t3.small",
                "us-east-1b",
                Architecture::Amd64,
                CapacityType::OnDemand,
            ),
            sold(
                "t4g.small",
                "us-east-1a",
                Architecture::Arm64,
                CapacityType::OnDemand,
            ),
        ];
        let zones = BTreeSet::from([Zone::new("us-east-1a")]);
        let images = BTreeMap::from([(Architecture::Amd64, ())]);
        let left: Vec<String> = sellable(all, &zones, &images)
            .keys()
            .map(OfferingId::to_string)
            .collect();
        assert_eq!(
            left,
            ["t3.small/us-east-1a/on-demand", "t3.small/us-east-1a/spot"]
        );
    }
}

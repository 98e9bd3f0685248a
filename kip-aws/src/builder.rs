//! Opening EC2: everything that can be wrong is found before the first pod waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_smithy_http_client::proxy::ProxyConfig;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::{Architecture, Offering};
use secrecy::ExposeSecret as _;

use crate::api::Api;
use crate::catalogue::Catalogue;
use crate::config::AwsConfig;
use crate::provider::AwsCloud;
use crate::sold::{Sold, Source};
use crate::subnets::Subnets;
use crate::{http, images};

/// The operation in the errors of opening.
pub(crate) const START: &str = "open EC2";

/// How long finding a server may take.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens EC2. Made by [`AwsCloud::builder`].
#[derive(Clone, Debug)]
pub struct AwsBuilder {
    config: AwsConfig,
    source: Option<Source>,
}

/// What EC2 answered when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) region: String,
    pub(crate) api: Api,
    pub(crate) config: AwsConfig,
    pub(crate) subnets: Subnets,
    pub(crate) images: BTreeMap<Architecture, images::BootImage>,
    pub(crate) sold: Sold,
}

impl AwsBuilder {
    pub(crate) fn new(config: AwsConfig) -> Self {
        Self { config, source: None }
    }

    /// Sells what a catalogue knows, which somebody else keeps up to date. Default: what is compiled in about the region. What has no subnet
    /// or no boot image is left out.
    #[must_use]
    pub fn catalogue(mut self, catalogue: Arc<Catalogue>) -> Self {
        self.source = Some(Source::Catalogue(catalogue));
        self
    }

    /// Sells exactly this, as far as there are subnets and boot images for it.
    #[must_use]
    pub fn offerings(mut self, offerings: Vec<Offering>) -> Self {
        self.source = Some(Source::Fixed(offerings));
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
        let source = match self.source {
            Some(source) => source,
            None => Source::Catalogue(Arc::new(seeded(&region)?)),
        };
        let sold = Sold::new(source, subnets.zones(), images.keys().copied().collect());
        if sold.list().offerings().next().is_none() {
            let (zones, architectures) = sold.limits();
            let message = format!(
                "nothing can be bought: the subnets are in {zones}, the boot images are for {architectures}"
            );
            return Err(in_region(Error::new(ErrorKind::ConfigInvalid, START, message)));
        }
        Ok(AwsCloud::new(Opened {
            region,
            api,
            config: self.config,
            subnets,
            images,
            sold,
        }))
    }
}

fn seeded(region: &str) -> Result<Catalogue> {
    Catalogue::seeded(region).map_err(|source| {
        Error::new(
            ErrorKind::ConfigInvalid,
            START,
            "it is not known what this region sells",
        )
        .with_context("region", region)
        .with_source(source)
    })
}

async fn sdk_config(config: &AwsConfig) -> SdkConfig {
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http::client(ProxyConfig::from_env()));
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

//! Opening EC2: everything that can be wrong is found before the first pod waits.

use std::net::IpAddr;
use std::sync::Arc;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_smithy_http_client::proxy::ProxyConfig;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::{ClusterUid, NodeName};
use kip_core::model::Offering;
use secrecy::ExposeSecret as _;

use crate::api::Api;
use crate::api::limit::LimitedAnswers;
use crate::catalogue::{Catalogue, Facts, LivePart, LiveSource, Refreshing};
use crate::config::AwsConfig;
use crate::environment::{self, Metadata, Owner};
use crate::http;
use crate::images::Images;
use crate::interruption::{Feed, Queue};
use crate::preflight::{self, Check, Verdict};
use crate::provider::AwsCloud;
use crate::sold::{Sold, Source};
use crate::subnets::Subnets;
use crate::upkeep::Upkeep;

/// The operation in the errors of opening.
pub(crate) const START: &str = "open EC2";

/// How long finding a server may take.
pub(crate) const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens EC2. Made by [`AwsCloud::builder`].
#[derive(Clone, Debug)]
pub struct AwsBuilder {
    config: AwsConfig,
    source: Option<Source>,
    owner: Option<Owner>,
    controller: Option<IpAddr>,
    facts: Option<Facts>,
}

/// What EC2 answered when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) region: String,
    pub(crate) api: Api,
    pub(crate) config: AwsConfig,
    pub(crate) subnets: Subnets,
    pub(crate) images: Images,
    pub(crate) sold: Sold,
    pub(crate) upkeep: Option<Upkeep>,
    pub(crate) feed: Option<Feed>,
    pub(crate) refreshing: Option<Refreshing>,
}

impl AwsBuilder {
    pub(crate) fn new(config: AwsConfig) -> Self {
        Self {
            config,
            source: None,
            facts: None,
            owner: None,
            controller: None,
        }
    }

    /// Says for which virtual node of which cluster instances are launched. What Kip keeps beside instances belongs to it, such as the security
    /// group; without an owner nothing is kept.
    #[must_use]
    pub fn owner(mut self, cluster: &ClusterUid, node: &NodeName) -> Self {
        self.owner = Some(Owner {
            cluster: cluster.to_string(),
            node: node.to_string(),
        });
        self
    }

    /// Says from which address the controller reaches instances, which must be one that its packets carry: where it is in the VPC, nobody
    /// else reaches their agents.
    #[must_use]
    pub fn controller(mut self, address: IpAddr) -> Self {
        self.controller = Some(address);
        self
    }

    /// Sells what a catalogue knows, which somebody else keeps up to date. Default: what is compiled in about the region, replaced by what EC2
    /// says as often as [`AwsConfig::refresh`]. What has no subnet or no boot image is left out.
    #[must_use]
    pub fn catalogue(mut self, catalogue: Arc<Catalogue>) -> Self {
        self.source = Some(Source::Catalogue(catalogue));
        self
    }

    /// Begins with these facts instead of what is compiled in, such as those of
    /// [`from_instance_data`](crate::catalogue::from_instance_data). What EC2 says replaces them as often as [`AwsConfig::refresh`] says: parts that
    /// are to stay take a period of zero.
    #[must_use]
    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = Some(facts);
        self
    }

    /// Sells exactly this, as far as there are subnets and boot images for it.
    #[must_use]
    pub fn offerings(mut self, offerings: Vec<Offering>) -> Self {
        self.source = Some(Source::Fixed(offerings));
        self
    }

    /// Checks configuration, credentials, subnets and images with EC2, makes sure of the owner's security group, and answers the cloud. Safe to
    /// repeat and to drop. Must run in a tokio runtime, which the cloud then uses.
    ///
    /// # Errors
    /// `ConfigInvalid` with what to change; `Unauthenticated` when there are no usable credentials, `PermissionDenied` when they do not
    /// allow the calls; `Unavailable` and `Timeout` when EC2 cannot be reached.
    pub async fn open(self) -> Result<AwsCloud> {
        self.config.validated()?;
        let mut config = self.config;
        let (sdk, region) = connect(&config).await?;
        let feed = match &config.interruption_queue {
            Some(queue) => Some(Feed::new(Queue::open(&sdk, &config, queue).await?)),
            None => None,
        };
        let api = Api::new(client(&sdk, &config));
        let in_region = |error: Error| error.with_context("region", &region);
        let metadata = metadata(&config)?;
        let vpc = environment::place(&api, &metadata, &mut config, self.owner.as_ref())
            .await
            .map_err(in_region)?;
        let subnets = Subnets::find(api.clone(), &region, &config)
            .await
            .map_err(in_region)?;
        let images = Images::open(api.clone(), &sdk, &config)
            .await
            .map_err(in_region)?;
        let (source, refreshing) = match self.source {
            Some(source) => (source, None),
            None => {
                let live = LiveSource::new(&sdk, &region, &config);
                let catalogue = Arc::new(begin(self.facts, &live).await?);
                let refreshing = Refreshing::start(Arc::clone(&catalogue), &live, config.refresh);
                (Source::Catalogue(catalogue), Some(refreshing))
            }
        };
        let sold = Sold::new(source, subnets.zones(), images.architectures().collect());
        if sold.list().offerings().next().is_none() {
            let (zones, architectures) = sold.limits();
            let message = format!(
                "nothing can be bought: the subnets are in {zones}, the boot images are for {architectures}"
            );
            return Err(in_region(Error::new(ErrorKind::ConfigInvalid, START, message)));
        }
        // Last, so that a configuration that cannot work makes nothing.
        let own = environment::own_group(&config, self.owner.as_ref(), vpc.as_ref(), self.controller);
        environment::guard(&api, &mut config, own.as_ref())
            .await
            .map_err(in_region)?;
        let upkeep = match (self.owner, config.vpc_id.clone()) {
            (Some(owner), Some(vpc)) => Some(Upkeep::start(api.clone(), owner, vpc, config.upkeep_interval)),
            _ => None,
        };
        Ok(AwsCloud::new(Opened {
            region,
            api,
            config,
            subnets,
            images,
            sold,
            upkeep,
            feed,
            refreshing,
        }))
    }

    /// Checks everything that [`open`](Self::open) needs, and what only a pod would find out, such as permissions: by calls that change nothing.
    /// Never fails: what is wrong is in the answer.
    pub async fn preflight(self) -> Vec<Check> {
        let mut checks = Vec::new();
        let problems = self.config.problems();
        if !problems.is_empty() {
            let check = Check::new("configuration", Verdict::Failed, problems.join("; "));
            return vec![check.with_remedy("change the fields that are named")];
        }
        let (sdk, region) = match connect(&self.config).await {
            Ok(connected) => connected,
            Err(error) => {
                let (what, remedy) = match error.kind() {
                    ErrorKind::ConfigInvalid => ("region", "set `cloud.aws.region` or AWS_REGION"),
                    _ => (
                        "credentials",
                        "give this process credentials as Kip will have them",
                    ),
                };
                let check = Check::new(what, Verdict::Failed, error.chain().to_string());
                return vec![check.with_remedy(remedy)];
            }
        };
        checks.push(Check::new("region", Verdict::Ok, &region));
        checks.push(preflight::identity(&sdk, &self.config).await);
        let source = match self.source {
            Some(source) => Ok(source),
            None => begin(self.facts, &LiveSource::new(&sdk, &region, &self.config))
                .await
                .map(|catalogue| Source::Catalogue(Arc::new(catalogue))),
        };
        match (source, metadata(&self.config)) {
            (Ok(source), Ok(metadata)) => {
                let asking = preflight::Asking {
                    api: Api::new(client(&sdk, &self.config)),
                    sdk,
                    region,
                    metadata,
                    config: self.config,
                    source,
                    owner: self.owner,
                    controller: self.controller,
                };
                checks.extend(Box::pin(preflight::ask(asking)).await);
            }
            (Err(error), _) | (_, Err(error)) => {
                let check = Check::new("configuration", Verdict::Failed, error.chain().to_string());
                checks.push(check.with_remedy("change the field that is named"));
            }
        }
        checks
    }
}

fn metadata(config: &AwsConfig) -> Result<Metadata> {
    Metadata::at(config.metadata_url.as_deref())
        .map_err(|message| Error::new(ErrorKind::ConfigInvalid, START, message))
}

/// What to begin with. Of a region that is newer than this program EC2 is asked first which types its zones have.
async fn begin(facts: Option<Facts>, live: &LiveSource) -> Result<Catalogue> {
    let facts = match facts {
        Some(facts) => facts,
        None => Facts::seeded_or_new(live.region())?,
    };
    let is_new = facts.zones.is_empty();
    let catalogue = Catalogue::new(facts);
    if is_new {
        let as_of = jiff::Timestamp::now();
        let zones = live.fetch(LivePart::Zones).await?;
        catalogue.update(zones.live, as_of)?;
    }
    Ok(catalogue)
}

/// The SDK's configuration, with credentials in it, and the region.
///
/// # Errors
/// `ConfigInvalid` without a region, `Unauthenticated` without credentials.
pub(crate) async fn connect(config: &AwsConfig) -> Result<(SdkConfig, String)> {
    let sdk = sdk_config(config).await;
    let region = sdk.region().map(Region::to_string).ok_or_else(|| {
        let message = "region: no region is known: set `cloud.aws.region` or AWS_REGION";
        Error::new(ErrorKind::ConfigInvalid, START, message)
    })?;
    check_credentials(&sdk).await?;
    Ok((sdk, region))
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
pub(crate) fn client(sdk: &SdkConfig, config: &AwsConfig) -> Client {
    Client::from_conf(ec2(sdk, config).retry_config(RetryConfig::disabled()).build())
}

/// A client for long answers that change nothing: it asks up to three times for a page, and takes no answer that is too large.
pub(crate) fn reading_client(sdk: &SdkConfig, config: &AwsConfig) -> Client {
    let builder = ec2(sdk, config)
        .retry_config(RetryConfig::standard())
        .interceptor(LimitedAnswers);
    Client::from_conf(builder.build())
}

/// The same for the Price List API.
pub(crate) fn pricing_client(sdk: &SdkConfig, region: &str, config: &AwsConfig) -> aws_sdk_pricing::Client {
    let mut builder = aws_sdk_pricing::config::Builder::from(sdk)
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts(config))
        .interceptor(LimitedAnswers);
    if let Some(url) = &config.pricing_endpoint_url {
        builder = builder.endpoint_url(url);
    }
    aws_sdk_pricing::Client::from_conf(builder.build())
}

fn ec2(sdk: &SdkConfig, config: &AwsConfig) -> aws_sdk_ec2::config::Builder {
    let mut builder = aws_sdk_ec2::config::Builder::from(sdk).timeout_config(timeouts(config));
    if let Some(url) = &config.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    builder
}

fn timeouts(config: &AwsConfig) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(config.call_timeout)
        .build()
}

//! EC2 as a [`CloudProvider`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::types::{self, InstanceStateName};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use kip_core::error::{Error, ErrorKind, Result, Retry};
use kip_core::ids::{InstanceId, LaunchToken};
use kip_core::model::{CapacityType, Instance, Offering};
use kip_core::provider::{
    Capabilities, CloudProvider, InterruptionFeed, LaunchRequest, ListOptions, OfferingQuery, ProviderInfo,
    UserData,
};
use tokio::time::Instant;

use crate::api::{self, Api, Refusal};
use crate::batch::{Answers, Batcher};
use crate::builder::{AwsBuilder, Opened};
use crate::catalogue::{Catalogue, PartState, Refreshing};
use crate::config::AwsConfig;
use crate::images::Images;
use crate::interruption::Feed;
use crate::routes::{Route, Routes};
use crate::sold::Sold;
use crate::subnets::Subnets;
use crate::terminate::Refused;
use crate::upkeep::{self, Upkeep};
use crate::young::Young;
use crate::{launch, observe, tags, terminate};

/// Between looks for what a token launched: the first pause, doubled with each up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// EC2 in one region as a cloud. Clones share everything; nothing in EC2 ends with the last one, only what
/// keeps the catalogue fresh does.
///
/// - **Launch** is one RunInstances call with the launch token as client token. A repeat whose subnet or image would be another one now, or
///   that would be refused here, is known by a tag and answered with the first instance. That nothing was launched before is said only when
///   EC2 has had [`AwsConfig::list_lag`] to show it: such an answer takes so long.
/// - **Terminate and get** that come together go to EC2 as one call, and each gets its own answer. What one of them waits for is at most one
///   round of others.
/// - **Absence** is believed when TerminateInstances and DescribeInstances both do not know an instance that was not launched within
///   [`AwsConfig::list_lag`], or when EC2 says that it was terminated before the call.
#[derive(Clone)]
pub struct AwsCloud(Arc<Inner>);

struct Inner {
    info: ProviderInfo,
    api: Api,
    config: AwsConfig,
    subnets: Subnets,
    images: Images,
    sold: Sold,
    feed: Option<Feed>,
    refreshing: Option<Refreshing>,
    routes: Routes,
    young: Young,
    upkeep: Option<Upkeep>,
    /// When this process began to look at EC2: another may have launched just before.
    opened_at: Instant,
    describing: Batcher<InstanceId, Instance>,
    finding: Batcher<LaunchToken, Vec<types::Instance>>,
    terminating: Batcher<InstanceId, InstanceStateName>,
}

impl AwsCloud {
    /// Begins to open EC2.
    pub fn builder(config: AwsConfig) -> AwsBuilder {
        AwsBuilder::new(config)
    }

    /// The catalogue that this cloud keeps fresh by itself; None when catalogue or offerings were given to it.
    pub fn catalogue(&self) -> Option<&Arc<Catalogue>> {
        self.0.refreshing.as_ref().map(Refreshing::catalogue)
    }

    /// How fresh each part of that catalogue is; empty when there is none.
    pub fn catalogue_parts(&self) -> Vec<PartState> {
        self.0
            .refreshing
            .as_ref()
            .map(Refreshing::parts)
            .unwrap_or_default()
    }

    pub(crate) fn new(opened: Opened) -> Self {
        let mut capabilities = Capabilities::default();
        // What is sold may change; what can be launched does not.
        capabilities.architectures = opened.images.architectures().collect();
        capabilities.capacity_types = BTreeSet::from([CapacityType::OnDemand, CapacityType::Spot]);
        capabilities.list_lag = opened.config.list_lag;
        capabilities.user_data_max_bytes = UserData::MAX_BYTES;
        // Without a queue the agents tell of interruptions: that is not the provider's power.
        capabilities.interruption_notices = opened.feed.is_some();
        let (describes, finds, terminates) = (opened.api.clone(), opened.api.clone(), opened.api.clone());
        let refused = Arc::new(Refused::default());
        Self(Arc::new(Inner {
            info: ProviderInfo::new("aws", opened.region, capabilities),
            opened_at: Instant::now(),
            describing: Batcher::start("instance", move |ids| describe(describes.clone(), ids)),
            finding: Batcher::start("token", move |tokens| find(finds.clone(), tokens)),
            terminating: Batcher::start("instance", move |ids| {
                let (api, refused) = (terminates.clone(), Arc::clone(&refused));
                async move { terminate::terminate(api, ids, &refused).await }
            }),
            young: Young::new(opened.config.list_lag),
            api: opened.api,
            config: opened.config,
            subnets: opened.subnets,
            images: opened.images,
            sold: opened.sold,
            upkeep: opened.upkeep,
            feed: opened.feed,
            refreshing: opened.refreshing,
            routes: Routes::default(),
        }))
    }
}

/// What a token launched before.
enum Before {
    /// What is asked for now.
    Same(Box<Instance>),
    /// Something else.
    Other,
    /// Nothing, and EC2 has had the time to show it.
    Nothing,
}

impl Inner {
    /// Where a launch goes; the same for each repeat.
    async fn route(&self, request: &LaunchRequest) -> Result<Route> {
        if let Some(route) = self.routes.known(&request.token) {
            return Ok(route);
        }
        let offering = &request.offering;
        let architecture = self.sold.architecture(offering)?;
        let image = self.images.of(architecture).ok_or_else(|| {
            let message = "no boot image is for its architecture";
            Error::new(ErrorKind::InvalidRequest, "launch", message)
                .with_context("offering", offering)
                .with_retry(Retry::Elsewhere)
        })?;
        self.subnets.refresh(&offering.zone).await;
        self.routes.of(&request.token, || {
            Ok(Route {
                subnet: self.subnets.take(&offering.zone)?,
                image,
            })
        })
    }

    /// The routes of an instance are made in the background, and tried again until they are there.
    fn see_to_routes(&self, request: &LaunchRequest, instance: &Instance) {
        match &self.upkeep {
            _ if request.options.routes.is_empty() => {}
            Some(upkeep) => upkeep.launched(instance.id.as_str()),
            None => {
                tracing::warn!(instance = %instance.id, "no routes lead to the instance: nobody said whose it is")
            }
        }
    }

    /// Looks for what the token launched, again and again until it is found or a look that began at `until` or later found nothing. It is
    /// what is asked for now when its fingerprint is the same: configuration, image or subnet may have changed since the first call, which
    /// are not the caller's parameters.
    ///
    /// # Errors
    /// `Unavailable` when EC2 cannot be asked: then nothing is known.
    async fn launched_before(&self, request: &LaunchRequest, until: Instant) -> Result<Before> {
        let fingerprint = tags::fingerprint(request);
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            let found = self
                .finding
                .ask("launch", &request.token)
                .await
                .map_err(|error| {
                    let message = "it cannot be told whether this launch has an instance already";
                    Error::new(ErrorKind::Unavailable, "launch", message).with_source(error)
                })?;
            let found = found.unwrap_or_default();
            let same = found
                .iter()
                .find(|instance| observe::tags_of(instance).get(tags::FINGERPRINT) == Some(&fingerprint));
            if let Some(same) = same {
                let instance = observe::instance("launch", same)?;
                self.see_to_routes(request, &instance);
                return Ok(Before::Same(Box::new(instance)));
            }
            if !found.is_empty() {
                return Ok(Before::Other);
            }
            if began >= until {
                return Ok(Before::Nothing);
            }
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    /// A launch that is refused here, without asking EC2: what it is refused for may be news, and an instance there from before.
    async fn refused(&self, request: &LaunchRequest, refusal: Error) -> Result<Instance> {
        // Whatever another process launched, it did before this one took over.
        let until = self.opened_at + self.config.list_lag;
        match self.launched_before(request, until).await? {
            Before::Same(instance) => Ok(*instance),
            Before::Other => Err(Error::new(
                ErrorKind::AlreadyExists,
                "launch",
                "the token launched something else before",
            )
            .with_context("offering", &request.offering)
            .with_source(refusal)),
            Before::Nothing => Err(refusal),
        }
    }
}

/// One question about many instances. It is a filter, not a list of ids, which would fail for all when one is unknown.
async fn describe(api: Api, ids: Vec<InstanceId>) -> Result<Answers<InstanceId, Instance>> {
    let found = terminate::describe(&api, ids).await?;
    Ok(found
        .into_iter()
        .map(|(id, instance)| (id, Ok(instance)))
        .collect())
}

/// One question about what many tokens launched.
async fn find(api: Api, tokens: Vec<LaunchToken>) -> Result<Answers<LaunchToken, Vec<types::Instance>>> {
    let values = tokens.iter().map(|token| api::literal(token.as_str())).collect();
    let found = api
        .all_instances("launch", vec![api::filter("client-token", values)])
        .await?;
    let mut by_token: BTreeMap<LaunchToken, Vec<types::Instance>> = BTreeMap::new();
    for instance in found {
        if let Some(token) = instance.client_token() {
            by_token
                .entry(LaunchToken::from_stored(token))
                .or_default()
                .push(instance);
        }
    }
    Ok(by_token
        .into_iter()
        .map(|(token, found)| (token, Ok(found)))
        .collect())
}

impl fmt::Debug for AwsCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCloud")
            .field("region", &self.0.info.region)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AwsCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EC2 in {}", self.0.info.region)
    }
}

#[async_trait]
impl CloudProvider for AwsCloud {
    fn info(&self) -> &ProviderInfo {
        &self.0.info
    }

    async fn launch(&self, request: LaunchRequest) -> Result<Instance> {
        let prepared = self.0.route(&request).await.and_then(|route| {
            upkeep::check(&request.options.routes)?;
            let input = launch::input(&request, &self.0.config, &route.image, &route.subnet)?;
            Ok((route, Box::new(input)))
        });
        let (route, input) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return self.0.refused(&request, refusal).await,
        };
        let Refusal { code, error } = match self.0.api.run_instances(*input).await {
            Ok(launched) => {
                let instance = observe::instance("launch", &launched)?;
                self.0.young.add(&instance.id);
                self.0.see_to_routes(&request, &instance);
                return Ok(instance);
            }
            Err(refusal) => refusal,
        };
        if code
            .as_deref()
            .is_some_and(|code| code.starts_with("InvalidAMIID."))
            && self.0.images.replaced(&route.image.id).await
        {
            // Nothing came of it, and a launch with the image that is there now finds what an earlier one may have made.
            self.0.routes.forget(&request.token, &route.image.id);
            return self.launch(request).await;
        }
        let error = match code.as_deref() {
            Some("InsufficientFreeAddressesInSubnet") => {
                self.0.subnets.is_full(&route.subnet);
                if self.0.subnets.has_room(&request.offering.zone) {
                    // EC2 may hold this token to the full subnet, so it is for the next attempt, whose token is new, to go there. No
                    // other retry leaves zone and type open: neither is at fault.
                    let message = "the subnet is out of free addresses, and another one of its zone is not";
                    Error::new(ErrorKind::Conflict, "launch", message)
                        .with_retry(Retry::Never)
                        .with_source(error)
                } else {
                    error
                }
            }
            _ => error,
        };
        if error.kind() == ErrorKind::InsufficientCapacity {
            self.0.subnets.give_back(&route.subnet);
        }
        let error = error
            .with_context("offering", &request.offering)
            .with_context("subnet", &route.subnet)
            .with_context("image", &route.image.id);
        if error.kind() != ErrorKind::AlreadyExists {
            return Err(error);
        }
        // Of whoever used the token with other parameters it is not known when.
        let until = Instant::now() + self.0.config.list_lag;
        match self.0.launched_before(&request, until).await? {
            Before::Same(instance) => Ok(*instance),
            Before::Other | Before::Nothing => Err(error),
        }
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let before = self.0.terminating.ask("terminate", id).await?;
        if let Some(upkeep) = &self.0.upkeep {
            upkeep.terminated(id.as_str());
        }
        // Of a young one a controller believes `NotFound` only after a success, and this is the first word that EC2 knows it. Its owner
        // may have ended it, or the answer of the call that did was lost.
        let is_news = before.is_some() && self.0.young.is_news(id);
        match before {
            // Gone before this call. One that this call ended at once is asked for once more.
            Some(InstanceStateName::Terminated) if !is_news => Err(gone("terminate", id)),
            // EC2 does not know yet what it launched a moment ago: nothing is gone, and callers repeat.
            None if self.0.young.has(id) => Ok(()),
            None => Err(gone("terminate", id)),
            Some(_) => Ok(()),
        }
    }

    async fn get(&self, id: &InstanceId) -> Result<Instance> {
        let found = self.0.describing.ask("get", id).await?;
        found.ok_or_else(|| gone("get", id))
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>> {
        const ALIVE: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];
        let mut filters = vec![api::filter(
            "instance-state-name",
            ALIVE.map(str::to_owned).to_vec(),
        )];
        for (key, value) in &options.tags {
            filters.push(api::exactly(&format!("tag:{key}"), value));
        }
        let api = self.0.api.clone();
        // None before the first page, Some(None) after the last.
        let pages = stream::try_unfold(None, move |page: Option<Option<String>>| {
            let (api, filters) = (api.clone(), filters.clone());
            async move {
                let token = match page {
                    Some(None) => return Ok(None),
                    Some(token) => token,
                    None => None,
                };
                let (found, next) = api.describe_instances("list", filters, token).await?;
                let found = found
                    .iter()
                    .map(|found| observe::instance("list", found))
                    .collect::<Result<Vec<_>>>()?;
                Ok::<_, Error>(Some((stream::iter(found.into_iter().map(Ok)), Some(next))))
            }
        });
        let matches = move |instance: &Instance| {
            options
                .tags
                .iter()
                .all(|(key, value)| instance.tags.get(key) == Some(value))
        };
        pages
            .try_flatten()
            .try_filter(move |instance| futures::future::ready(matches(instance)))
            .boxed()
    }

    async fn offerings(&self, _query: &OfferingQuery) -> Result<Vec<Offering>> {
        Ok(self.0.sold.list().offerings().cloned().collect())
    }

    fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
        self.0.feed.as_ref().map(|feed| feed as &dyn InterruptionFeed)
    }
}

fn gone(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        operation,
        "EC2 knows no such instance, or it is terminated",
    )
    .with_context("instance", id)
}

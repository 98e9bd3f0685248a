//! EC2 as a [`CloudProvider`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::InstanceStateName;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;
use kip_core::model::{Architecture, CapacityType, Instance, InstancePhase, Offering};
use kip_core::provider::{
    Capabilities, CloudProvider, LaunchRequest, ListOptions, OfferingQuery, ProviderInfo, UserData,
};

use crate::api::{self, Api, Refusal};
use crate::batch::Batcher;
use crate::builder::{AwsBuilder, Opened};
use crate::config::AwsConfig;
use crate::images::BootImage;
use crate::routes::{Route, Routes};
use crate::sold::Sold;
use crate::subnets::Subnets;
use crate::upkeep::{self, Upkeep};
use crate::young::Young;
use crate::{launch, observe, tags};

/// EC2 in one region as a cloud. Clones share everything; nothing in EC2 ends with the last one.
///
/// - **Launch** is one RunInstances call with the launch token as client token. A repeat whose subnet or image would be another one now is
///   known by a tag and answered with the first instance.
/// - **Terminate and get** that come together go to EC2 as one call. What one of them waits for is at most one call of others.
/// - **Absence** is believed when TerminateInstances and DescribeInstances both do not know an instance that was not launched within
///   [`AwsConfig::list_lag`], or when EC2 says that it was terminated before the call.
#[derive(Clone)]
pub struct AwsCloud(Arc<Inner>);

struct Inner {
    info: ProviderInfo,
    api: Api,
    config: AwsConfig,
    subnets: Subnets,
    images: BTreeMap<Architecture, BootImage>,
    sold: Sold,
    routes: Routes,
    young: Young,
    upkeep: Option<Upkeep>,
    describing: Batcher<Instance>,
    terminating: Batcher<InstanceStateName>,
}

impl AwsCloud {
    /// Begins to open EC2.
    pub fn builder(config: AwsConfig) -> AwsBuilder {
        AwsBuilder::new(config)
    }

    pub(crate) fn new(opened: Opened) -> Self {
        let mut capabilities = Capabilities::default();
        // What is sold may change; what can be launched does not.
        capabilities.architectures = opened.images.keys().copied().collect();
        capabilities.capacity_types = BTreeSet::from([CapacityType::OnDemand, CapacityType::Spot]);
        capabilities.list_lag = opened.config.list_lag;
        capabilities.user_data_max_bytes = UserData::MAX_BYTES;
        let (describes, terminates) = (opened.api.clone(), opened.api.clone());
        Self(Arc::new(Inner {
            info: ProviderInfo::new("aws", opened.region, capabilities),
            describing: Batcher::start(move |ids| describe(describes.clone(), ids)),
            terminating: Batcher::start(move |ids| terminate(terminates.clone(), ids)),
            young: Young::new(opened.config.list_lag),
            api: opened.api,
            config: opened.config,
            subnets: opened.subnets,
            images: opened.images,
            sold: opened.sold,
            upkeep: opened.upkeep,
            routes: Routes::default(),
        }))
    }
}

impl Inner {
    /// Where a launch goes; the same for each repeat.
    async fn route(&self, request: &LaunchRequest) -> Result<Route> {
        let offering = &request.offering;
        let list = self.sold.list();
        let image = list
            .find(offering)
            .and_then(|sold| self.images.get(&sold.architecture))
            .ok_or_else(|| {
                Error::new(ErrorKind::InvalidRequest, "launch", "this is not sold here")
                    .with_context("offering", offering)
            })?;
        self.subnets.refresh(&offering.zone).await;
        self.routes.of(&request.token, || {
            Ok(Route {
                subnet: self.subnets.take(&offering.zone)?,
                image: image.clone(),
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

    /// After EC2 said that the token was used before: the instance, if it is the one that is asked for now. Configuration, image or subnet
    /// may have changed since the first call, which are not the caller's parameters.
    async fn launched_before(&self, request: &LaunchRequest) -> Result<Option<Instance>> {
        let filters = vec![api::exactly("client-token", request.token.as_str())];
        let found = self.api.all_instances("launch", filters).await?;
        let fingerprint = tags::fingerprint(request);
        found
            .iter()
            .find(|instance| observe::tags_of(instance).get(tags::FINGERPRINT) == Some(&fingerprint))
            .map(|instance| observe::instance("launch", instance))
            .transpose()
    }
}

/// Those of the instances that EC2 knows. Asked by filter: an unknown id then fails nobody else's question.
async fn describe(api: Api, ids: Vec<InstanceId>) -> Result<BTreeMap<InstanceId, Instance>> {
    let ids = ids.iter().map(InstanceId::to_string).collect();
    let found = api
        .all_instances("get", vec![api::filter("instance-id", ids)])
        .await?;
    found
        .iter()
        .map(|found| observe::instance("get", found).map(|instance| (instance.id.clone(), instance)))
        .collect()
}

/// Terminates those of the instances that EC2 knows, and answers the states they were in before. EC2 terminates none when one of them, or
/// something of it, is not there: then it is asked what there is, and only that is terminated.
async fn terminate(api: Api, ids: Vec<InstanceId>) -> Result<BTreeMap<InstanceId, InstanceStateName>> {
    match api.terminate_instances(&ids).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConfigInvalid) => {}
        answer => return answer,
    }
    let known = describe(api.clone(), ids.clone()).await?;
    let unknown: Vec<InstanceId> = ids
        .iter()
        .filter(|id| !known.contains_key(*id))
        .cloned()
        .collect();
    let (gone, alive): (Vec<Instance>, Vec<Instance>) = known
        .into_values()
        .partition(|instance| instance.phase == InstancePhase::Terminated);
    let mut states: BTreeMap<_, _> = gone
        .into_iter()
        .map(|instance| (instance.id, InstanceStateName::Terminated))
        .collect();
    if !alive.is_empty() {
        let alive: Vec<InstanceId> = alive.into_iter().map(|instance| instance.id).collect();
        let ended = api.terminate_instances(&alive).await;
        states.extend(ended.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                // The calls disagree, as they may about a young instance: nobody may conclude that anything is gone.
                let message = "EC2 does not agree with itself yet whether the instances exist";
                Error::new(ErrorKind::Unavailable, "terminate", message).with_source(error)
            }
            _ => error,
        })?);
    }
    // One that was asked about alone was refused by name. Of several the refusal may have meant another, so each is asked about alone.
    if ids.len() > 1 {
        for id in unknown {
            match api.terminate_instances(std::slice::from_ref(&id)).await {
                Ok(state) => states.extend(state),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(states)
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
        upkeep::check(&request.options.routes)?;
        let route = self.0.route(&request).await?;
        let input = launch::input(&request, &self.0.config, &route.image, &route.subnet)?;
        let Refusal { code, error } = match self.0.api.run_instances(input).await {
            Ok(launched) => {
                let instance = observe::instance("launch", &launched)?;
                self.0.young.add(&instance.id);
                self.0.see_to_routes(&request, &instance);
                return Ok(instance);
            }
            Err(refusal) => refusal,
        };
        if code.as_deref() == Some("InsufficientFreeAddressesInSubnet") {
            self.0.subnets.is_full(&route.subnet);
        }
        let error = error
            .with_context("offering", &request.offering)
            .with_context("subnet", &route.subnet)
            .with_context("image", &route.image.id);
        if error.kind() != ErrorKind::AlreadyExists {
            return Err(error);
        }
        let instance = self.0.launched_before(&request).await?.ok_or(error)?;
        self.0.see_to_routes(&request, &instance);
        Ok(instance)
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let before = self.0.terminating.ask("terminate", id).await?;
        if let Some(upkeep) = &self.0.upkeep {
            upkeep.terminated(id.as_str());
        }
        match before {
            // Gone before this call. One that this call ended at once is asked for once more.
            Some(InstanceStateName::Terminated) => Err(gone("terminate", id)),
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
}

fn gone(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        operation,
        "EC2 knows no such instance, or it is terminated",
    )
    .with_context("instance", id)
}

//! The cloud: launches, keeps, adopts and terminates instances.

mod accept;
mod faults;
mod lifecycle;
mod open;
mod options;
mod record;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;
use kip_core::model::{CapacityType, Instance, InstancePhase, Offering};
use kip_core::provider::{
    Capabilities, CloudProvider, InterruptionFeed, InterruptionNotice, LaunchRequest, ListOptions,
    OfferingQuery, ProviderInfo, UserData,
};
use tokio::sync::{Mutex as AsyncMutex, broadcast};

pub use faults::Faults;
use record::Record;

use crate::config::LocalConfig;
use crate::host::{self, Addressing, Cgroups, Leftovers, Missing, Names, Network, Tools};
use crate::image::{self, Baked};
use crate::offering::Catalogue;
use crate::user_data;

const START: &str = "start local cloud";
/// How long an instance that ended by itself is still shown.
const MEMORY: SignedDuration = SignedDuration::from_secs(60);
/// Interruption notices kept for a slow listener; there are at most as many as instances a test interrupts at once.
const NOTICES: usize = 256;

/// One machine as a cloud.
///
/// Clones share everything. Instances live on when the last clone is dropped, even when the process is killed: the next
/// `LocalCloud` on the same data folder adopts them, finishes half-launched ones, and goes on removing half-removed ones.
#[derive(Clone)]
pub struct LocalCloud(Arc<Inner>);

struct Inner {
    info: ProviderInfo,
    boot_delay: Duration,
    config: LocalConfig,
    data_dir: PathBuf,
    names: Names,
    agent: PathBuf,
    plugins: PathBuf,
    nameservers: Vec<IpAddr>,
    restrict_oom_score: bool,
    network: Network,
    /// Held while the bridge is made or removed.
    bridging: AsyncMutex<()>,
    cgroups: Cgroups,
    catalogue: Catalogue,
    image: Baked,
    state: Mutex<State>,
    faults: Faults,
    notices: Notices,
    /// Says that the data folder is ours, until we end.
    _lock: File,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<InstanceId, Held>,
    /// Instances that ended by themselves, and when.
    ended: BTreeMap<InstanceId, (Instance, Timestamp)>,
    next_slot: u32,
}

struct Held {
    record: Record,
    /// Held by whoever changes the instance on the machine.
    busy: Arc<AsyncMutex<()>>,
    /// Nothing of it is left but its place in this table.
    removed: bool,
}

impl LocalCloud {
    /// What this machine lacks, all of it at once, each with what to do about it.
    ///
    /// # Errors
    /// The list, when it is not empty.
    pub fn check() -> Result<(), Vec<Missing>> {
        Tools::find().map(|_| ())
    }

    /// Opens the cloud of a data folder and adopts what is there. Makes the machine image when it is not there, which takes about
    /// a second for a small one.
    ///
    /// # Errors
    /// `ConfigInvalid` when the configuration cannot work on this machine, `Unsupported` when the machine lacks something, `Conflict` when
    /// another process has the data folder.
    pub async fn new(config: LocalConfig) -> Result<Self> {
        config.validated()?;
        let tools = Tools::find().map_err(|missing| {
            let text: Vec<String> = missing.iter().map(Missing::to_string).collect();
            Error::new(
                ErrorKind::Unsupported,
                START,
                format!("this machine lacks: {}", text.join("; ")),
            )
        })?;
        let plugins = host::cni_plugins().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                START,
                "this machine lacks the CNI plugins",
            )
        })?;
        let (data_dir, lock) = open::open_data_dir(&config.data_dir)?;
        let agent = open::agent_path(config.agent_path.as_deref())?;
        let catalogue = Catalogue::new(config.offerings.as_deref())?;
        let names = Names::of(&data_dir);
        let cgroups = Cgroups::of_machine()?;
        let records = open::load_records(&data_dir)?;
        let network = open::plan_network(&config, &data_dir, &names, !records.is_empty()).await?;
        let image = image::bake(&data_dir, &names, &tools, &config.image_archives).await?;

        let mut capabilities = Capabilities::default();
        capabilities.architectures = catalogue
            .offerings
            .iter()
            .map(|offering| offering.architecture)
            .collect();
        capabilities.capacity_types = catalogue
            .offerings
            .iter()
            .map(|offering| offering.id.capacity_type)
            .collect();
        capabilities.interruption_notices = capabilities.capacity_types.contains(&CapacityType::Spot);
        let next_slot = records.iter().map(|record| record.slot + 1).max().unwrap_or(0);
        let instances = records.into_iter().map(|record| {
            let held = Held {
                record,
                busy: Arc::default(),
                removed: false,
            };
            (held.record.id.clone(), held)
        });
        let inner = Arc::new(Inner {
            info: ProviderInfo::new("local", "local", capabilities),
            boot_delay: config.boot_delay,
            nameservers: open::nameservers(&config),
            config,
            data_dir,
            names,
            agent,
            plugins: plugins.to_owned(),
            restrict_oom_score: !host::has_capability_sys_resource(),
            network,
            bridging: AsyncMutex::new(()),
            cgroups,
            catalogue,
            image,
            state: Mutex::new(State {
                instances: instances.collect(),
                ended: BTreeMap::new(),
                next_slot,
            }),
            faults: Faults::default(),
            notices: Notices(broadcast::channel(NOTICES).0),
            _lock: lock,
        });
        inner.adopt().await?;
        Ok(Self(inner))
    }

    /// The handle that makes this cloud misbehave.
    pub fn faults(&self) -> Faults {
        self.0.faults.clone()
    }

    /// Launches an instance at addresses of the caller's choice, otherwise as [`CloudProvider::launch`]: for a program that gives this
    /// machine's instances to a cloud which has addresses but no machines. A repeat with the same token and addresses finds the first.
    ///
    /// # Errors
    /// Those of a launch; `InvalidRequest` when the addresses are none for an instance in this cloud's network, `Conflict` when another
    /// instance has one of them.
    pub async fn launch_at(&self, request: LaunchRequest, at: Addressing) -> Result<Instance> {
        self.launch_with(request, Some(at)).await
    }

    async fn launch_with(&self, request: LaunchRequest, at: Option<Addressing>) -> Result<Instance> {
        const OP: &str = "launch";
        tokio::time::sleep(self.0.faults.delay()).await;
        if let Some(error) = self.0.faults.refusal() {
            return Err(error.with_context("token", &request.token));
        }
        if self.0.catalogue.find(&request.offering).is_none() {
            return Err(
                Error::new(ErrorKind::InvalidRequest, OP, "this cloud does not sell that")
                    .with_context("offering", &request.offering),
            );
        }
        options::check(&request.options)?;
        let length = request.user_data.as_bytes().len();
        if length > UserData::MAX_BYTES {
            let message = format!(
                "user-data has {length} bytes, at most {} are taken",
                UserData::MAX_BYTES
            );
            return Err(Error::new(ErrorKind::InvalidRequest, OP, message));
        }
        user_data::files(&request.user_data)?;
        let (id, new) = self.0.accept(&request, at)?;
        if new && self.0.boot_delay.is_zero() {
            // A task of its own: if the caller goes away the launch is finished all the same.
            let (inner, boots) = (Arc::clone(&self.0), id.clone());
            tokio::spawn(async move { inner.boot(&boots).await })
                .await
                .map_err(|source| {
                    Error::new(ErrorKind::Unexpected, OP, "the launch broke off").with_source(source)
                })??;
        } else if new {
            let (inner, boots) = (Arc::clone(&self.0), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(inner.boot_delay).await;
                inner.boot_unattended(&boots).await;
            });
        }
        match self.0.faults.lost_reply() {
            Some(error) => Err(error.with_context("token", &request.token)),
            None => self.get(&id).await,
        }
    }

    /// Takes an instance back as a cloud takes back spot capacity: a notice now, and its end after `notice`.
    ///
    /// # Errors
    /// `NotFound` when there is no such instance.
    pub async fn interrupt(&self, id: &InstanceId, notice: Duration) -> Result<()> {
        self.0.held(id)?;
        let deadline = SignedDuration::try_from(notice)
            .ok()
            .and_then(|notice| Timestamp::now().checked_add(notice).ok())
            .unwrap_or(Timestamp::MAX);
        // Nobody listening is no error.
        let reason = "the capacity is needed elsewhere";
        let _ = self
            .0
            .notices
            .0
            .send(InterruptionNotice::new(id.clone(), deadline, reason));
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(notice).await;
            inner.end(&id, "interrupted").await;
        });
        Ok(())
    }

    /// Terminates every instance, adopted ones included, and removes whatever else on this machine carries the names of this data
    /// folder. Returns the ids of the instances. What cannot be removed keeps nothing else: call again for it.
    ///
    /// # Errors
    /// The first, when something could not be removed.
    pub async fn purge(&self) -> Result<Vec<InstanceId>> {
        let ids: Vec<InstanceId> = self.0.locked().instances.keys().cloned().collect();
        let ends = ids.iter().map(|id| self.terminate(id));
        let mut problems = Vec::new();
        for result in futures::future::join_all(ends).await {
            match result {
                Err(error) if error.kind() != ErrorKind::NotFound => problems.push(error),
                _ => {}
            }
        }
        let unowned = Leftovers::remove_unowned(&self.0.names, &self.0.cgroups, &self.0.shorts()).await;
        problems.extend(unowned.err());
        let _bridging = self.0.bridging.lock().await;
        if self.0.locked().instances.is_empty() {
            problems.extend(self.0.remove_network().await.err());
        }
        first_of(problems)?;
        Ok(ids)
    }

    /// What of this data folder is on the machine.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub async fn leftovers(&self) -> Result<Leftovers> {
        Leftovers::of(&self.0.data_dir).await
    }

    /// Where an instance keeps its files: `console.log` and, below `root/var/log`, the logs of containerd and agent.
    pub fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.0.folder(id)
    }

    /// The address of this machine on the instances' network.
    pub fn gateway(&self) -> IpAddr {
        self.0.network.subnet.gateway().into()
    }
}

impl fmt::Debug for LocalCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCloud")
            .field("data_dir", &self.0.data_dir)
            .field("bridge", &self.0.network.bridge)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for LocalCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local cloud in {}", self.0.data_dir.display())
    }
}

#[async_trait]
impl CloudProvider for LocalCloud {
    fn info(&self) -> &ProviderInfo {
        &self.0.info
    }

    async fn launch(&self, request: LaunchRequest) -> Result<Instance> {
        self.launch_with(request, None).await
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        inner.held(&id)?;
        tokio::spawn(async move { inner.remove(&id, None).await })
            .await
            .map_err(|source| {
                Error::new(ErrorKind::Unexpected, "terminate", "the termination broke off")
                    .with_source(source)
            })?
    }

    async fn get(&self, id: &InstanceId) -> Result<Instance> {
        self.0.show(id)
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>> {
        let network = &self.0.network;
        let found: Vec<_> = self
            .0
            .locked()
            .instances
            .values()
            .map(|held| held.record.instance(network))
            .filter(|instance| {
                options
                    .tags
                    .iter()
                    .all(|(key, value)| instance.tags.get(key) == Some(value))
            })
            .map(Ok)
            .collect();
        stream::iter(found).boxed()
    }

    async fn offerings(&self, _query: &OfferingQuery) -> Result<Vec<Offering>> {
        Ok(self.0.catalogue.offerings.clone())
    }

    fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
        self.0
            .info
            .capabilities
            .interruption_notices
            .then_some(&self.0.notices)
    }
}

#[derive(Debug)]
struct Notices(broadcast::Sender<InterruptionNotice>);

impl InterruptionFeed for Notices {
    fn notices(&self) -> BoxStream<'static, Result<InterruptionNotice>> {
        stream::unfold(self.0.subscribe(), |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(notice) => return Some((Ok(notice), receiver)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "interruption notices were not read in time");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}

impl Inner {
    fn locked(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the table consistent, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, id: &InstanceId) -> PathBuf {
        self.data_dir.join("instances").join(id.as_str())
    }

    fn shorts(&self) -> Vec<String> {
        self.locked()
            .instances
            .values()
            .map(|held| held.record.short().to_owned())
            .collect()
    }

    fn show(&self, id: &InstanceId) -> Result<Instance> {
        let mut state = self.locked();
        let now = Timestamp::now();
        state.ended.retain(|_, (_, at)| now.duration_since(*at) < MEMORY);
        if let Some(held) = state.instances.get(id) {
            return Ok(held.record.instance(&self.network));
        }
        state
            .ended
            .get(id)
            .map(|(instance, _)| instance.clone())
            .ok_or_else(|| absent("get", id))
    }

    /// The record of an instance that is on the machine. An instance that ended by itself is forgotten: it is gone.
    fn held(&self, id: &InstanceId) -> Result<Record> {
        let mut state = self.locked();
        if let Some(held) = state.instances.get(id) {
            return Ok(held.record.clone());
        }
        state.ended.remove(id);
        Err(absent("terminate", id))
    }
}

/// The first of several problems. The others are told in the log.
pub(crate) fn first_of(problems: Vec<Error>) -> Result<()> {
    let mut problems = problems.into_iter();
    let first = problems.next();
    for other in problems {
        tracing::warn!(error = %other.chain(), "something else could not be removed either");
    }
    first.map_or(Ok(()), Err)
}

fn absent(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such instance").with_context("instance", id)
}

/// An instance as it is shown after its end.
fn ended(mut instance: Instance, reason: Option<String>) -> Instance {
    instance.phase = InstancePhase::Terminated;
    instance.reason = reason;
    instance
}

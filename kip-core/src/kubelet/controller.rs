//! The pod half of the virtual kubelet, for whoever needs no Node, no lease and no endpoint.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cells::{CellAddresses, KubeCellStore};
use super::client::Client;
use super::config::KubeletConfig;
use super::errors::api_error;
use super::handle::PodDriver;
use super::pods::PodWatcher;
use super::registry::PodRegistry;
use super::salvage::Salvage;
use super::source::KubePodSource;
use crate::driver::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ClusterUid, PodUid};

/// Pods that may wait to be looked at again because something they refer to changed. Beyond it, the watches wait.
const TOUCHED: usize = 1024;

/// Watches the pods of one node and writes what becomes of them: the pod half of [`VirtualKubelet`](super::VirtualKubelet), which is
/// built from it.
///
/// It needs nothing but a client and a clock, so it also runs on an API in the same process and in virtual time:
///
/// ```no_run
/// # use std::sync::Arc;
/// # use kip_core::driver::{Clock, Kip};
/// # use kip_core::ids::NodeName;
/// # use kip_core::kubelet::{KubeletConfig, PodController};
/// # use kip_core::provider::CloudProvider;
/// # use kip_core::runtime::PodRuntime;
/// # use tokio_util::sync::CancellationToken;
/// # async fn example(
/// #     client: kube::Client, clock: Arc<dyn Clock>, cloud: Arc<dyn CloudProvider>, hosts: Arc<dyn PodRuntime>,
/// # ) -> kip_core::Result<()> {
/// let name = NodeName::new("kip");
/// let config = KubeletConfig::new(name.clone(), [10, 0, 0, 7].into());
/// let pods = PodController::new(client, config, Arc::clone(&clock))?;
/// let driver = Kip::builder(cloud)
///     .identity(pods.cluster_uid().await?, name)
///     .clock(clock)
///     .runtime(hosts)
///     .source(pods.source())
///     .store(pods.store())
///     .build()?;
/// let pods = pods.connect(Arc::new(driver.handle()));
/// let shutdown = CancellationToken::new();
/// tokio::join!(
///     driver.run(shutdown.clone().cancelled_owned()),
///     pods.run(CancellationToken::new(), shutdown.clone()),
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PodController {
    client: Client,
    config: Arc<KubeletConfig>,
    clock: Arc<dyn Clock>,
    registry: Arc<PodRegistry>,
    source: Arc<KubePodSource>,
    store: Arc<KubeCellStore>,
    touched: mpsc::Receiver<PodUid>,
}

impl PodController {
    /// A controller of the pods on the node this configuration names. Asks nothing of the API yet.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn new(client: kube::Client, config: KubeletConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        config.validate()?;
        let client = Client::from(client);
        let config = Arc::new(config);
        let registry = Arc::new(PodRegistry::default());
        let addresses = Arc::new(CellAddresses::default());
        let (sender, touched) = mpsc::channel(TOUCHED);
        let source = KubePodSource::new(
            client.clone(),
            Arc::clone(&config),
            Arc::clone(&clock),
            Arc::clone(&registry),
            Arc::clone(&addresses),
            sender,
        );
        let store = KubeCellStore::with_addresses(client.clone(), config.name.clone(), addresses);
        Ok(Self {
            client,
            config,
            clock,
            registry,
            source,
            store: Arc::new(store),
            touched,
        })
    }

    /// The cluster's UID, for the driver's identity: the UID of its `kube-system` namespace.
    ///
    /// # Errors
    /// When that namespace cannot be read.
    pub async fn cluster_uid(&self) -> Result<ClusterUid> {
        let api: Api<Namespace> = Api::all(self.client.get());
        let namespace = api
            .get("kube-system")
            .await
            .map_err(|error| api_error("read the cluster's UID", error))?;
        let uid = namespace.metadata.uid.ok_or_else(|| {
            Error::new(
                ErrorKind::Unexpected,
                "read the cluster's UID",
                "the namespace kube-system has no UID",
            )
        })?;
        Ok(ClusterUid::new(uid))
    }

    /// Where the driver's pods come from and their status goes.
    pub fn source(&self) -> Arc<KubePodSource> {
        Arc::clone(&self.source)
    }

    /// Where the driver's records are kept.
    pub fn store(&self) -> Arc<KubeCellStore> {
        Arc::clone(&self.store)
    }

    /// Connects it with its driver. Nothing is written and the driver is told nothing before [`ConnectedPods::run`].
    pub fn connect(self, driver: Arc<dyn PodDriver>) -> ConnectedPods {
        self.source.attach(Arc::clone(&driver));
        ConnectedPods {
            watching: Watching(Arc::clone(&self.source)),
            controller: self,
            driver,
        }
    }

    pub(super) fn client(&self) -> kube::Client {
        self.client.get()
    }

    pub(super) fn config(&self) -> &Arc<KubeletConfig> {
        &self.config
    }
}

/// A [`PodController`] with its driver, ready to run once.
#[derive(Debug)]
pub struct ConnectedPods {
    controller: PodController,
    driver: Arc<dyn PodDriver>,
    watching: Watching,
}

impl ConnectedPods {
    /// Watches the pods until `shutdown`; `synced` is cancelled (that is: fires) once the first complete list was told to the driver.
    ///
    /// Dropping the future ends all watches at once. What the driver publishes is written until its own run is over; after that no task
    /// of either is left.
    pub async fn run(self, synced: CancellationToken, shutdown: CancellationToken) {
        let Self {
            controller,
            driver,
            watching,
        } = self;
        // Until the end, however it comes.
        let _watching = watching;
        let PodController {
            client,
            config,
            clock,
            registry,
            source,
            touched,
            ..
        } = controller;
        let watcher = PodWatcher::new(client.get(), config, clock, registry, driver, source, touched);
        watcher.run(synced, shutdown).await;
    }

    pub(super) fn client(&self) -> kube::Client {
        self.controller.client()
    }

    pub(super) fn config(&self) -> &Arc<KubeletConfig> {
        self.controller.config()
    }

    pub(super) fn registry(&self) -> Arc<PodRegistry> {
        Arc::clone(&self.controller.registry)
    }

    pub(super) fn driver(&self) -> Arc<dyn PodDriver> {
        Arc::clone(&self.driver)
    }

    pub(super) fn salvage(&self) -> Arc<Salvage> {
        self.controller.source.salvage()
    }
}

/// Ends the source's watches at the end.
#[derive(Debug)]
struct Watching(Arc<KubePodSource>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.unfollow();
    }
}

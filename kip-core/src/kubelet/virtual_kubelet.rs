//! Puts the parts of the virtual kubelet together and runs them in the right order.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api::{EndpointServer, KubeReviewer};
use super::cells::{CellAddresses, KubeCellStore};
use super::client::Client;
use super::config::KubeletConfig;
use super::directory::Directory;
use super::errors::api_error;
use super::handle::PodDriver;
use super::lease::LeaseKeeper;
use super::node::NodeKeeper;
use super::pods::PodWatcher;
use super::registry::PodRegistry;
use super::source::KubePodSource;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ClusterUid, PodUid};

/// Pods that may wait to be looked at again because something they refer to changed. Beyond it, the watches wait.
const TOUCHED: usize = 1024;

/// A virtual node on a Kubernetes API, not running yet.
#[derive(Debug)]
pub struct VirtualKubelet {
    client: Client,
    config: Arc<KubeletConfig>,
    registry: Arc<PodRegistry>,
    source: Arc<KubePodSource>,
    store: Arc<KubeCellStore>,
    touched: mpsc::Receiver<PodUid>,
}

impl VirtualKubelet {
    /// A virtual node of this configuration. Asks nothing of the API yet.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn new(client: kube::Client, config: KubeletConfig) -> Result<Self> {
        config.validate()?;
        let client = Client::from(client);
        let config = Arc::new(config);
        let registry = Arc::new(PodRegistry::default());
        let addresses = Arc::new(CellAddresses::default());
        let (sender, touched) = mpsc::channel(TOUCHED);
        let source = KubePodSource::new(
            client.clone(),
            Arc::clone(&config),
            Arc::clone(&registry),
            Arc::clone(&addresses),
            sender,
        );
        let store = Arc::new(KubeCellStore::with_addresses(
            client.clone(),
            config.name.clone(),
            addresses,
        ));
        Ok(Self {
            client,
            config,
            registry,
            source,
            store,
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

    /// Connects it with its driver and binds its endpoint; nothing is answered and nothing written before [`BoundKubelet::run`].
    ///
    /// # Errors
    /// `ConfigInvalid` when the serving certificate cannot be used, `AlreadyExists` when the port is taken.
    pub async fn bind(self, driver: Arc<dyn PodDriver>) -> Result<BoundKubelet> {
        self.source.attach(Arc::clone(&driver));
        let directory = Directory {
            registry: Arc::clone(&self.registry),
            driver: Arc::clone(&driver),
            salvage: self.source.salvage(),
        };
        let reviewer = KubeReviewer::new(self.client.get(), self.config.name.clone());
        let endpoint = EndpointServer::bind(
            &self.config.endpoint,
            &self.config.name,
            self.config.node.internal_ip,
            Box::new(reviewer),
            Arc::new(directory),
            driver.runtime(),
        )
        .await?;
        Ok(BoundKubelet {
            kubelet: self,
            driver,
            endpoint,
            ready: CancellationToken::new(),
        })
    }
}

/// A virtual node that is connected and bound, ready to run once.
#[derive(Debug)]
pub struct BoundKubelet {
    kubelet: VirtualKubelet,
    driver: Arc<dyn PodDriver>,
    endpoint: EndpointServer,
    ready: CancellationToken,
}

impl BoundKubelet {
    /// Serves this text at `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.endpoint = self.endpoint.with_metrics(metrics);
        self
    }

    /// Where the endpoint listens.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Fires once all pods were told to the driver and the Node is about to be registered: the virtual node is ready for work.
    pub fn ready(&self) -> CancellationToken {
        self.ready.clone()
    }

    /// Runs until `shutdown`.
    ///
    /// The order of the start: endpoint, pods, then Node and lease: no pod is placed here before the ones that are here already are
    /// known. At the end everything stops and the Node stays as it is, so that a restart disturbs no pod. The driver is stopped by its
    /// owner. Dropping the future stops everything at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            kubelet,
            driver,
            endpoint,
            ready,
        } = self;
        let port = endpoint.address().port();
        let (node, node_uid) = NodeKeeper::new(kubelet.client.get(), Arc::clone(&kubelet.config), port);
        let lease = LeaseKeeper::new(kubelet.client.get(), Arc::clone(&kubelet.config), node_uid);
        let pods = PodWatcher::new(
            kubelet.client.get(),
            Arc::clone(&kubelet.config),
            kubelet.registry,
            driver,
            kubelet.source,
            kubelet.touched,
        );
        let node_when_ready = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = ready.cancelled() => node.run(shutdown.clone()).await,
            }
        };
        tokio::join!(
            endpoint.run(shutdown.clone().cancelled_owned()),
            pods.run(ready.clone(), shutdown.clone()),
            node_when_ready,
            lease.run(shutdown.clone()),
        );
    }
}

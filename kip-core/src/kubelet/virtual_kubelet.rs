//! Puts the parts of the virtual kubelet together and runs them in the right order.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::api::{EndpointServer, KubeReviewer};
use super::cells::KubeCellStore;
use super::config::KubeletConfig;
use super::controller::{ConnectedPods, PodController};
use super::directory::Directory;
use super::handle::PodDriver;
use super::lease::LeaseKeeper;
use super::node::NodeKeeper;
use super::source::KubePodSource;
use crate::driver::SystemClock;
use crate::error::Result;
use crate::ids::ClusterUid;

/// A virtual node on a Kubernetes API, not running yet: a [`PodController`] with a Node, its lease and its endpoint.
#[derive(Debug)]
pub struct VirtualKubelet {
    pods: PodController,
}

impl VirtualKubelet {
    /// A virtual node of this configuration. Asks nothing of the API yet.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn new(client: kube::Client, config: KubeletConfig) -> Result<Self> {
        let pods = PodController::new(client, config, Arc::new(SystemClock))?;
        Ok(Self { pods })
    }

    /// The cluster's UID, for the driver's identity: the UID of its `kube-system` namespace.
    ///
    /// # Errors
    /// When that namespace cannot be read.
    pub async fn cluster_uid(&self) -> Result<ClusterUid> {
        self.pods.cluster_uid().await
    }

    /// Where the driver's pods come from and their status goes.
    pub fn source(&self) -> Arc<KubePodSource> {
        self.pods.source()
    }

    /// Where the driver's records are kept.
    pub fn store(&self) -> Arc<KubeCellStore> {
        self.pods.store()
    }

    /// Connects it with its driver and binds its endpoint; nothing is answered and nothing written before [`BoundKubelet::run`].
    ///
    /// # Errors
    /// `ConfigInvalid` when the serving certificate cannot be used, `AlreadyExists` when the port is taken.
    pub async fn bind(self, driver: Arc<dyn PodDriver>) -> Result<BoundKubelet> {
        let pods = self.pods.connect(driver);
        let driver = pods.driver();
        let directory = Directory {
            registry: pods.registry(),
            driver: Arc::clone(&driver),
            salvage: pods.salvage(),
        };
        let config = pods.config();
        let reviewer = KubeReviewer::new(pods.client(), config.name.clone());
        let endpoint = EndpointServer::bind(
            &config.endpoint,
            &config.name,
            config.node.internal_ip,
            Box::new(reviewer),
            Arc::new(directory),
            driver.runtime(),
        )
        .await?;
        Ok(BoundKubelet {
            pods,
            endpoint,
            ready: CancellationToken::new(),
        })
    }
}

/// A virtual node that is connected and bound, ready to run once.
#[derive(Debug)]
pub struct BoundKubelet {
    pods: ConnectedPods,
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
            pods,
            endpoint,
            ready,
        } = self;
        let port = endpoint.address().port();
        let (node, node_uid) = NodeKeeper::new(pods.client(), Arc::clone(pods.config()), port);
        let lease = LeaseKeeper::new(pods.client(), Arc::clone(pods.config()), node_uid);
        let node_when_ready = async {
            tokio::select! {
                biased;
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

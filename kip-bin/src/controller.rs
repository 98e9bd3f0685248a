//! The controller: driver, virtual kubelet and metrics, put together and run as one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kip_core::cell::{BootOptions, CellAuthority, CellRuntime};
#[cfg(feature = "local")]
use kip_core::driver::DriverHandle;
use kip_core::driver::{DriverConfig, Kip};
use kip_core::kubelet::{KubeletConfig, VirtualKubelet, usual_architectures};
use kip_core::provider::CloudProvider;
use kip_core::sizing::CheapestFit;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Metrics;
use crate::boot;
use crate::config::Config;
use crate::freshness::Freshness;
use crate::standing::Standing;

/// How long the node may take to report Ready before that is worth a word.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// How often the driver looks whether other types or prices are known. Asking is cheap: the provider answers from memory.
const OFFERINGS: Duration = Duration::from_secs(30);

/// What a controller is made of.
pub(crate) struct Parts<'a> {
    /// The cluster.
    pub(crate) client: Client,
    /// The node.
    pub(crate) kubelet: KubeletConfig,
    /// The cloud.
    pub(crate) provider: Arc<dyn CloudProvider>,
    /// How fresh what it sells is, where it tells.
    pub(crate) freshness: Option<Freshness>,
    /// Who certifies cells.
    pub(crate) authority: CellAuthority,
    /// What cells are given at boot.
    pub(crate) boot: BootOptions,
    /// Everything else.
    pub(crate) config: &'a Config,
    /// Pods worked on at the same time.
    pub(crate) workers: usize,
    /// Where it says what it does.
    pub(crate) standing: Standing,
}

/// A running controller.
pub(crate) struct Controller {
    #[cfg(feature = "local")]
    driver: DriverHandle,
    client: Client,
    node: String,
    shutdown: CancellationToken,
    tasks: JoinSet<&'static str>,
}

impl Controller {
    /// Starts it. Returns once its endpoints are bound; the node is registered soon after.
    ///
    /// # Errors
    /// When the configuration, a certificate or an address cannot be used, or the cluster does not answer.
    pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let Parts {
            client,
            mut kubelet,
            provider,
            freshness,
            authority,
            boot,
            config,
            workers,
            standing,
        } = parts;
        boot::covers(&boot, &provider.info().capabilities.architectures)?;
        kubelet.pods.architectures =
            usual_architectures(provider.info().capabilities.architectures.iter().copied());
        let name = kubelet.name.clone();
        let kubelet = VirtualKubelet::new(client.clone(), kubelet)?;
        let cluster = kubelet
            .cluster_uid()
            .await
            .context("the cluster does not answer; check its address and the permissions")?;
        let policy = config
            .sizing
            .policy(config.cells.default_instance_type.as_deref());
        let mut driver_config = DriverConfig::default();
        driver_config.workers = workers;
        driver_config.policy = config.orphans.policy();
        driver_config.offerings_interval = OFFERINGS;
        driver_config.request_limits = config.cloud.request_limits();
        let driver = Kip::builder(provider)
            .identity(cluster.clone(), name.clone())
            .runtime(Arc::new(CellRuntime::new(Arc::new(authority)).with_boot(boot)))
            .source(kubelet.source())
            .store(kubelet.store())
            .sizer(Box::new(CheapestFit::new(policy)))
            .config(driver_config)
            .build()?;
        let handle = driver.handle();
        let text = Metrics::of(standing.clone());
        let kubelet = kubelet
            .bind(Arc::new(handle.clone()))
            .await?
            .with_metrics(move || text.text());
        tracing::info!(node = %name, cluster = %cluster, kubelet = %kubelet.address(), "controller starts");

        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        standing.acts(handle.clone(), freshness);
        let until = shutdown.clone();
        tasks.spawn(async move {
            driver.run(until.cancelled_owned()).await;
            "the driver"
        });
        let until = shutdown.clone();
        tasks.spawn(async move {
            Box::pin(kubelet.run(until)).await;
            "the virtual kubelet"
        });
        Ok(Self {
            #[cfg(feature = "local")]
            driver: handle,
            client,
            node: name.to_string(),
            shutdown,
            tasks,
        })
    }

    /// The driver.
    #[cfg(feature = "local")]
    pub(crate) fn driver(&self) -> &DriverHandle {
        &self.driver
    }

    /// Waits until the API says that the node is Ready.
    ///
    /// # Errors
    /// When it does not within a minute, or a part of the controller ended.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = self.node.clone();
        let ready = tokio::time::timeout(READY_PATIENCE, await_condition(nodes, &node, is_ready()));
        tokio::select! {
            ended = self.ended() => Err(ended),
            ready = ready => {
                ready
                    .with_context(|| format!("the node {node} is not Ready after {} seconds", READY_PATIENCE.as_secs()))?
                    .with_context(|| format!("cannot watch the node {node}"))?;
                Ok(())
            }
        }
    }

    /// Waits until a part of the controller ends although nobody told it to: a bug, whose panic is in the log.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(what)) => anyhow::anyhow!("{what} ended by itself"),
            Some(Err(error)) => anyhow::Error::new(error).context("a part of the controller ended"),
            None => anyhow::anyhow!("the controller has ended"),
        }
    }

    /// Ends it in good order: no new launches, launches under way are recorded; the pods run on. `hurry` cuts that short, as a
    /// crash would: the next controller takes over.
    pub(crate) async fn stop(mut self, hurry: &CancellationToken) {
        self.shutdown.cancel();
        loop {
            tokio::select! {
                () = hurry.cancelled() => {
                    tracing::warn!("told twice: not waiting for calls under way");
                    self.tasks.shutdown().await;
                    return;
                }
                ended = self.tasks.join_next() => match ended {
                    None => return,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::error!(%error, "a part of the controller ended badly"),
                },
            }
        }
    }
}

fn is_ready() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let conditions = node
            .and_then(|node| node.status.as_ref())
            .and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    }
}

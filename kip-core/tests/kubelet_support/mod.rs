//! A virtual kubelet on a real, in-process Kubernetes API, with a driver that only takes notes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kip_cluster::Cluster;
use kip_core::driver::PodIntent;
use kip_core::ids::{NodeName, PodUid};
use kip_core::kubelet::{KubePodSource, KubeletConfig, PodDriver, VirtualKubelet, install_cells};
use kip_core::model::{Bytes, CpuMillis, PodManifest, PodReport, RuntimeReport};
use kip_core::provider::UserData;
use kip_core::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};
use kip_core::{Error, ErrorKind, Result};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest time anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A driver that takes notes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) intents: Mutex<Vec<(PodUid, PodIntent)>>,
    pub(crate) synced: CancellationToken,
    pub(crate) changed: tokio::sync::Notify,
    pub(crate) logs: BTreeMap<String, String>,
}

impl PodDriver for Notes {
    fn intent(&self, pod: PodUid, intent: PodIntent) {
        self.intents.lock().expect("not poisoned").push((pod, intent));
        self.changed.notify_waiters();
    }

    fn synced(&self) {
        self.synced.cancel();
    }

    fn endpoint(&self, _: &PodUid) -> Option<CellEndpoint> {
        None
    }

    fn report(&self, _: &PodUid) -> Option<PodReport> {
        None
    }

    fn cell_size(&self, _: &PodUid) -> Option<(CpuMillis, Bytes)> {
        Some((CpuMillis(2000), Bytes::gib(2)))
    }

    fn runtime(&self) -> Arc<dyn PodRuntime> {
        Arc::new(Logs(self.logs.clone()))
    }
}

/// A host that has only logs.
#[derive(Debug)]
struct Logs(BTreeMap<String, String>);

fn nothing<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "test", "not here"))
}

#[async_trait]
impl PodRuntime for Logs {
    fn user_data(&self, _: &BootRequest) -> Result<UserData> {
        nothing()
    }

    async fn watch(
        &self,
        _: &CellEndpoint,
        _: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>> {
        nothing()
    }

    async fn deploy(&self, _: &CellEndpoint, _: &PodManifest) -> Result<()> {
        nothing()
    }

    async fn update(&self, _: &CellEndpoint, _: &PodManifest) -> Result<()> {
        nothing()
    }

    async fn stop(&self, _: &CellEndpoint, _: &PodUid, _: Duration, _: &str) -> Result<()> {
        nothing()
    }

    async fn logs(
        &self,
        _: &CellEndpoint,
        _: &PodUid,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        let Some(text) = self.0.get(&request.container) else {
            return nothing();
        };
        let bytes = text.clone().into_bytes();
        Ok(Box::pin(futures::stream::once(async move { Ok(bytes) })))
    }

    async fn open(&self, _: &CellEndpoint, _: &PodUid, _: StreamKind) -> Result<Upgrade> {
        nothing()
    }

    async fn stats(&self, _: &CellEndpoint, _: &PodUid) -> Result<PodStats> {
        nothing()
    }
}

/// A cluster with a virtual node, running until dropped.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) client: kube::Client,
    pub(crate) driver: Arc<Notes>,
    pub(crate) source: Arc<KubePodSource>,
    pub(crate) port: u16,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

/// A client of the cluster as its administrator.
pub(crate) async fn client(cluster: &Cluster) -> kube::Client {
    // The first test of the process installs it; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&cluster.kubeconfig()).expect("a kubeconfig");
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .expect("a configuration");
    kube::Client::try_from(config).expect("a client")
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Notes::default()).await
    }

    pub(crate) async fn with(driver: Notes) -> Self {
        let cluster = Cluster::builder().start().await.expect("a cluster");
        let client = client(&cluster).await;
        install_cells(&client).await.expect("the Cell resource");
        let mut config = KubeletConfig::new(NodeName::new("kip"), "127.0.0.1".parse().expect("an address"));
        config.endpoint.listen = "127.0.0.1:0".parse().expect("an address");
        config.endpoint.client_ca = Some(cluster.ca_pem());
        config.node.labels = [("team".to_owned(), "a".to_owned())].into();
        let kubelet = VirtualKubelet::new(client.clone(), config).expect("a kubelet");
        let source = kubelet.source();
        let driver = Arc::new(driver);
        let bound = kubelet
            .bind(Arc::clone(&driver) as Arc<dyn PodDriver>)
            .await
            .expect("bound");
        let port = bound.address().port();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            cluster,
            client,
            driver,
            source,
            port,
            shutdown,
            running,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within("the kubelet stops", self.running).await.expect("no panic");
        self.cluster.shutdown().await;
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes a pod that is bound to the virtual node; returns its UID.
    pub(crate) async fn pod(&self, name: &str, spec: Value) -> PodUid {
        let mut spec = spec;
        spec["nodeName"] = json!("kip");
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "main", "image": "example.com/app:1" }]);
        }
        let pod =
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a pod");
        let made = self
            .pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("created");
        PodUid::new(made.metadata.uid.expect("a UID"))
    }

    /// Waits for an intent for this pod that fits.
    pub(crate) async fn intent(
        &self,
        pod: &PodUid,
        what: &str,
        fits: impl Fn(&PodIntent) -> bool + Send + Sync,
    ) -> PodIntent {
        within(what, async {
            loop {
                let changed = self.driver.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = {
                    let intents = self.driver.intents.lock().expect("not poisoned");
                    let mut of_pod = intents
                        .iter()
                        .filter(|(uid, _)| uid == pod)
                        .map(|(_, intent)| intent);
                    of_pod.find(|intent| fits(intent)).cloned()
                };
                if let Some(intent) = found {
                    return intent;
                }
                changed.await;
            }
        })
        .await
    }

    /// Waits until an object is as wanted, by watching it.
    pub(crate) async fn becomes<K>(
        &self,
        api: Api<K>,
        name: &str,
        what: &str,
        fits: impl Fn(&K) -> bool + Send + Sync,
    ) -> K
    where
        K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    {
        use futures::StreamExt as _;
        let mut versions = kube::runtime::watcher::watch_object(api, name).boxed();
        within(what, async {
            while let Some(version) = versions.next().await {
                if let Ok(Some(object)) = version
                    && fits(&object)
                {
                    return object;
                }
            }
            panic!("the watch ended")
        })
        .await
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("took too long: {what}"),
    }
}

//! The whole of it but the cloud: a Kubernetes API, the virtual kubelet, the real driver, and a cloud and hosts in memory.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kip_cluster::Cluster;
use kip_core::driver::{Kip, SystemClock};
use kip_core::ids::NodeName;
use kip_core::kubelet::{Cell, KubeletConfig, VirtualKubelet, install_cells};
use kip_testkit::{FakeCloud, FakeRuntime, Tripwire, samples};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use kubelet_support::within;

/// What outlives the controller.
struct Outside {
    cluster: Cluster,
    client: kube::Client,
    cloud: FakeCloud,
    hosts: FakeRuntime,
}

impl Outside {
    async fn new() -> Self {
        let cluster = Cluster::builder().start().await.expect("a cluster");
        let client = kubelet_support::client(&cluster).await;
        install_cells(&client).await.expect("the Cell resource");
        let cloud = FakeCloud::new(Arc::new(SystemClock), samples::offerings());
        cloud.set_boot_delay(Duration::from_millis(200));
        let hosts = FakeRuntime::new(cloud.clone(), Arc::new(SystemClock), Tripwire::default());
        Self {
            cluster,
            client,
            cloud,
            hosts,
        }
    }

    /// Starts a controller: kubelet and driver.
    async fn controller(&self) -> Controller {
        let name = NodeName::new("kip");
        let mut config = KubeletConfig::new(name.clone(), "127.0.0.1".parse().expect("an address"));
        config.endpoint.listen = "127.0.0.1:0".parse().expect("an address");
        config.endpoint.client_ca = Some(self.cluster.ca_pem());
        let kubelet = VirtualKubelet::new(self.client.clone(), config).expect("a kubelet");
        let driver = Kip::builder(Arc::new(self.cloud.clone()))
            .identity(kubelet.cluster_uid().await.expect("a cluster"), name)
            .runtime(Arc::new(self.hosts.clone()))
            .source(kubelet.source())
            .store(kubelet.store())
            .build()
            .expect("a driver");
        let bound = kubelet.bind(Arc::new(driver.handle())).await.expect("bound");
        let shutdown = CancellationToken::new();
        let (for_driver, for_kubelet) = (shutdown.clone(), shutdown.clone());
        let running = tokio::spawn(async move {
            tokio::join!(driver.run(for_driver.cancelled_owned()), bound.run(for_kubelet));
        });
        Controller { shutdown, running }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes a pod for the scheduler to place.
    async fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["tolerations"] = json!([{ "key": "virtual-kubelet.io/provider", "operator": "Exists" }]);
        spec["containers"] = json!([{ "name": "main", "image": "example.com/app:1",
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } } }]);
        let pod =
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("created");
    }

    /// Waits until the pod is so; None is gone.
    async fn until(&self, name: &str, what: &str, fits: impl Fn(Option<&Pod>) -> bool + Send + Sync) {
        let mut versions = watcher::watch_object(self.pods(), name).boxed();
        within(what, async {
            while let Some(version) = versions.next().await {
                if version.is_ok_and(|pod| fits(pod.as_ref())) {
                    return;
                }
            }
            panic!("the watch ended")
        })
        .await;
    }

    /// Waits until no record is left and the cloud is empty.
    async fn until_nothing_is_left(&self) {
        let cells: Api<Cell> = Api::all(self.client.clone());
        let mut events = watcher(cells.clone(), watcher::Config::default()).boxed();
        within("nothing is left", async {
            loop {
                let left = cells.list(&ListParams::default()).await.expect("a list").items;
                if left.is_empty() {
                    return;
                }
                events.next().await;
            }
        })
        .await;
        let alive = self.cloud.instances();
        assert!(
            alive
                .iter()
                .all(|instance| instance.phase == kip_core::model::InstancePhase::Terminated),
            "{alive:?}"
        );
    }
}

struct Controller {
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Controller {
    async fn stop(self) {
        self.shutdown.cancel();
        within("the controller stops", self.running)
            .await
            .expect("no panic");
    }
}

fn is_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The promise itself: a pod gets an instance, is seen running, and takes its instance with it when it goes.
#[tokio::test]
async fn a_pod_lives_on_its_own_instance_and_leaves_nothing_behind() {
    let outside = Outside::new().await;
    let controller = outside.controller().await;
    outside
        .pod("web", json!({ "terminationGracePeriodSeconds": 5 }))
        .await;
    outside.until("web", "the pod is ready", is_ready).await;
    assert_eq!(outside.cloud.launches(), 1);
    let pod = outside.pods().get("web").await.expect("the pod");
    let status = pod.status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.host_ip.is_some());

    outside
        .pods()
        .delete("web", &DeleteParams::default())
        .await
        .expect("accepted");
    outside.until("web", "the pod is gone", |pod| pod.is_none()).await;
    outside.until_nothing_is_left().await;
    controller.stop().await;
    outside.cluster.shutdown().await;
}

/// A rolling update of the controller must not be an outage of what it runs, nor a second bill.
#[tokio::test]
async fn a_new_controller_takes_over_what_the_old_one_left() {
    let outside = Outside::new().await;
    let controller = outside.controller().await;
    outside.pod("web", json!({ "restartPolicy": "Never" })).await;
    outside.until("web", "the pod is ready", is_ready).await;
    let uid = outside
        .pods()
        .get("web")
        .await
        .expect("the pod")
        .metadata
        .uid
        .expect("a UID");
    let uid = kip_core::ids::PodUid::new(uid);
    controller.stop().await;

    // A moment of not being ready takes a pod out of its services.
    let always_ready = CancellationToken::new();
    let guard = tokio::spawn({
        let (pods, done) = (outside.pods(), always_ready.clone());
        async move {
            let mut versions = watcher::watch_object(pods, "web").boxed();
            let mut unready = Vec::new();
            loop {
                tokio::select! {
                    () = done.cancelled() => return unready,
                    version = versions.next() => if let Some(Ok(Some(pod))) = version && !is_ready(Some(&pod)) {
                        unready.push(pod.status);
                    },
                }
            }
        }
    });
    let controller = outside.controller().await;
    // A second pod shows that the new controller works; the first must not have been touched.
    outside.pod("second", json!({})).await;
    outside.until("second", "the second pod is ready", is_ready).await;
    let pod = outside.pods().get("web").await.expect("the pod is there");
    assert!(is_ready(Some(&pod)));
    assert_eq!(outside.cloud.launches(), 2);
    assert_eq!(outside.hosts.starts(&uid), 1);
    always_ready.cancel();
    let unready = guard.await.expect("no panic");
    assert!(unready.is_empty(), "{unready:?}");

    for name in ["web", "second"] {
        outside
            .pods()
            .delete(name, &DeleteParams::default())
            .await
            .expect("accepted");
    }
    for name in ["web", "second"] {
        outside.until(name, "the pod is gone", |pod| pod.is_none()).await;
    }
    outside.until_nothing_is_left().await;
    controller.stop().await;
    outside.cluster.shutdown().await;
}

/// Somebody changes a ConfigMap: the running pod's host is told, and the pod runs on.
#[tokio::test]
async fn a_changed_config_map_reaches_the_host() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let outside = Outside::new().await;
    let controller = outside.controller().await;
    let maps: Api<ConfigMap> = Api::namespaced(outside.client.clone(), "default");
    let map = |text: &str| -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "name": "m" }, "data": { "k": text } }))
            .expect("a ConfigMap")
    };
    maps.create(&PostParams::default(), &map("one"))
        .await
        .expect("created");
    outside
        .pod(
            "web",
            json!({ "volumes": [{ "name": "v", "configMap": { "name": "m" } }] }),
        )
        .await;
    outside.until("web", "the pod is ready", is_ready).await;
    let uid = outside
        .pods()
        .get("web")
        .await
        .expect("the pod")
        .metadata
        .uid
        .expect("a UID");
    let uid = kip_core::ids::PodUid::new(uid);
    let before = outside.hosts.updates(&uid);
    maps.replace("m", &PostParams::default(), &map("two"))
        .await
        .expect("changed");
    within("the host is told", async {
        // The fake host tells nobody; it is asked a few times within the bound.
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while outside.hosts.updates(&uid) == before {
            again.tick().await;
        }
    })
    .await;
    assert_eq!(outside.hosts.starts(&uid), 1);
    controller.stop().await;
    outside.cluster.shutdown().await;
}

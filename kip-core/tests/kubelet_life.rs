//! The pods' half of the kubelet with the real driver, in virtual time, on an API that counts and can fail.
#![cfg(feature = "kubelet")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kip_cluster::{Cluster, InProcess, ResponseBody, SeededOrigin};
use kip_core::driver::{Clock, Kip, TokioClock};
use kip_core::ids::{ClusterUid, NodeName, PodUid};
use kip_core::kubelet::{KubePodSource, KubeletConfig, PodController, install_cells};
use kip_core::model::InstancePhase;
use kip_testkit::{FakeCloud, FakeRuntime, PodScript, Tripwire, samples};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{Service as _, service_fn};

const NODE: &str = "kip";
/// Longest virtual time anything may take here.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a controller asked for, and what is to go wrong with it.
#[derive(Clone, Debug, Default)]
struct Line(Arc<Mutex<Wire>>);

#[derive(Debug, Default)]
struct Wire {
    /// Writes by method and resource, as `PATCH pods/web`.
    writes: BTreeMap<String, u32>,
    /// How many more status writes fail.
    failing: u32,
}

impl Line {
    /// A client whose requests are counted, on top of `api`.
    fn client(&self, api: &InProcess) -> kube::Client {
        let (line, api) = (self.clone(), api.clone());
        let service = service_fn(move |request: Request<Body>| {
            let refused = line.count(request.method(), request.uri().path());
            let mut api = api.clone();
            async move {
                if refused {
                    return Ok(unavailable());
                }
                api.call(request).await
            }
        });
        kube::Client::new(service, "default")
    }

    /// Counts a request; answers whether it is to fail.
    fn count(&self, method: &Method, path: &str) -> bool {
        let mut words = path.trim_end_matches("/status").rsplit('/');
        let (last, before) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let mut wire = self.0.lock().expect("not poisoned");
        let key = if method == Method::POST {
            last.to_owned()
        } else {
            format!("{before}/{last}")
        };
        if method != Method::GET {
            *wire.writes.entry(format!("{method} {key}")).or_default() += 1;
        }
        let fails = method == Method::PATCH && path.ends_with("/status") && wire.failing > 0;
        wire.failing -= u32::from(fails);
        fails
    }

    fn writes(&self, wanted: impl Fn(&str) -> bool) -> u32 {
        let wire = self.0.lock().expect("not poisoned");
        wire.writes
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, count)| count)
            .sum()
    }
}

fn unavailable() -> Response<ResponseBody> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "ServiceUnavailable",
        "message": "not now", "code": 503 });
    let body = Full::from(status.to_string()).map_err(|never| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    reply
}

/// What outlives the controller.
struct Outside {
    api: InProcess,
    client: kube::Client,
    clock: Arc<dyn Clock>,
    cloud: FakeCloud,
    hosts: FakeRuntime,
}

impl Outside {
    async fn new() -> Self {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let api = Cluster::builder()
            .scheduler(false)
            .origin(SeededOrigin::new(start, 1))
            .in_process();
        let client = kube::Client::new(api.clone(), "default");
        install_cells(&client).await.expect("the Cell resource");
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(start));
        let cloud = FakeCloud::new(Arc::clone(&clock), samples::offerings());
        cloud.set_boot_delay(Duration::from_secs(45));
        cloud.set_terminate_delay(Duration::from_secs(20));
        let hosts = FakeRuntime::new(cloud.clone(), Arc::clone(&clock), Tripwire::default());
        Self {
            api,
            client,
            clock,
            cloud,
            hosts,
        }
    }

    fn controller(&self, line: &Line) -> Controller {
        let mut config = KubeletConfig::new(NodeName::new(NODE), [10, 0, 0, 7].into());
        config.pods.watch_jitter = false;
        let pods =
            PodController::new(line.client(&self.api), config, Arc::clone(&self.clock)).expect("valid");
        let driver = Kip::builder(Arc::new(self.cloud.clone()))
            .identity(ClusterUid::new("cluster-1"), NodeName::new(NODE))
            .clock(Arc::clone(&self.clock))
            .runtime(Arc::new(self.hosts.clone()))
            .source(pods.source())
            .store(pods.store())
            .build()
            .expect("a driver");
        let source = Arc::downgrade(&pods.source());
        let pods = pods.connect(Arc::new(driver.handle()));
        let shutdown = CancellationToken::new();
        let (for_driver, for_pods) = (shutdown.clone(), shutdown.clone());
        let running = tokio::spawn(async move {
            tokio::join!(
                driver.run(for_driver.cancelled_owned()),
                pods.run(CancellationToken::new(), for_pods)
            );
        });
        Controller {
            shutdown,
            running,
            source,
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes a pod that is bound already; returns its UID.
    async fn pod(&self, name: &str, spec: Value) -> PodUid {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        spec["automountServiceAccountToken"] = json!(false);
        spec["containers"] = json!([{ "name": "main", "image": "example.com/app:1",
            "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }]);
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let created = self.pods().create(&PostParams::default(), &pod).await;
        PodUid::new(created.expect("created").metadata.uid.expect("a UID"))
    }

    async fn until(&self, name: &str, what: &str, fits: impl Fn(Option<&Pod>) -> bool + Send + Sync) {
        let mut versions = watcher::watch_object(self.pods(), name).boxed();
        let wait = async {
            while let Some(version) = versions.next().await {
                if version.is_ok_and(|pod| fits(pod.as_ref())) {
                    return;
                }
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, wait).await.is_ok(),
            "never: {what}"
        );
    }

    async fn until_no_instance_is_left(&self) {
        let wait = async {
            let mut again = tokio::time::interval(Duration::from_secs(1));
            while !self.api.objects("kip.elotl.co", "cells").is_empty() {
                again.tick().await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, wait).await.is_ok(),
            "a cell is left"
        );
        let instances = self.cloud.instances();
        let gone = |instance: &kip_core::model::Instance| instance.phase == InstancePhase::Terminated;
        assert!(instances.iter().all(gone), "{instances:?}");
    }

    async fn delete(&self, name: &str) {
        let deleted = self.pods().delete(name, &DeleteParams::default()).await;
        deleted.expect("accepted");
    }
}

struct Controller {
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    source: Weak<KubePodSource>,
}

impl Controller {
    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("no panic");
        nothing_holds(&self.source).await;
    }

    async fn crash(self) {
        self.running.abort();
        assert!(self.running.await.expect_err("aborted").is_cancelled());
        nothing_holds(&self.source).await;
    }
}

/// A controller that ended leaves no task behind, nor memory: ended tasks go when they are next looked at.
async fn nothing_holds(source: &Weak<KubePodSource>) {
    for _ in 0..1000 {
        if source.upgrade().is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("something still holds the source");
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

fn is_status_of<'a>(name: &'a str) -> impl Fn(&str) -> bool + 'a {
    move |key| key == format!("PATCH pods/{name}")
}

/// Creating counts; taking the finalizer off (a PATCH) and deleting do not.
fn is_cell(key: &str) -> bool {
    key == "POST cells" || key.starts_with("PUT cells/")
}

/// A cluster's API server is shared: a pod may not cost it more because it runs here.
#[tokio::test(start_paused = true)]
async fn an_ordinary_life_costs_six_writes_to_the_pod_and_four_to_its_cell_at_most() {
    let (outside, line) = (Outside::new().await, Line::default());
    let controller = outside.controller(&line);
    outside.pod("web", json!({})).await;
    outside
        .until("web", "it runs", |pod| phase(pod) == Some("Running"))
        .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    outside.delete("web").await;
    outside.until("web", "it is gone", |pod| pod.is_none()).await;
    outside.until_no_instance_is_left().await;
    let (pod, cell) = (line.writes(is_status_of("web")), line.writes(is_cell));
    assert!((3..=6).contains(&pod), "{pod} writes to the pod: {line:?}");
    assert!((3..=4).contains(&cell), "{cell} writes to the cell: {line:?}");
    controller.stop().await;
}

/// The same for a job that ends by itself, whose instance is given back without anybody deleting the pod.
#[tokio::test(start_paused = true)]
async fn a_job_costs_no_more_and_gives_its_instance_back() {
    let (outside, line) = (Outside::new().await, Line::default());
    let controller = outside.controller(&line);
    let uid = outside.pod("job", json!({ "restartPolicy": "Never" })).await;
    let script = PodScript {
        runs_for: Some(Duration::from_secs(90)),
        ..PodScript::default()
    };
    outside.hosts.script(&uid, script);
    outside
        .until("job", "it succeeds", |pod| phase(pod) == Some("Succeeded"))
        .await;
    outside.until_no_instance_is_left().await;
    outside.delete("job").await;
    outside.until("job", "it is gone", |pod| pod.is_none()).await;
    let (pod, cell) = (line.writes(is_status_of("job")), line.writes(is_cell));
    assert!((3..=6).contains(&pod), "{pod} writes to the pod: {line:?}");
    assert!((3..=4).contains(&cell), "{cell} writes to the cell: {line:?}");
    controller.stop().await;
}

/// The last word about a waiting pod must arrive, however often its write fails.
#[tokio::test(start_paused = true)]
async fn progress_that_could_not_be_written_is_written_later() {
    let (outside, line) = (Outside::new().await, Line::default());
    outside.cloud.set_boot_delay(Duration::from_secs(400));
    let controller = outside.controller(&line);
    outside.pod("web", json!({})).await;
    outside
        .until("web", "something is said", |pod| {
            pod.and_then(|pod| pod.status.as_ref()?.reason.clone()).is_some()
        })
        .await;
    // What is said next, that the instance boots, has not lasted long enough to be written yet.
    line.0.lock().expect("not poisoned").failing = 3;
    outside
        .until("web", "the boot is told", |pod| {
            pod.and_then(|pod| pod.status.as_ref()?.reason.as_deref()) == Some("Booting")
        })
        .await;
    assert_eq!(line.0.lock().expect("not poisoned").failing, 0);
    controller.crash().await;
}

/// While the controller was away the pod was evicted: its instance is not to be paid for until a sweep notices.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_ended_while_the_controller_was_away_costs_nothing_any_more() {
    let (outside, line) = (Outside::new().await, Line::default());
    let controller = outside.controller(&line);
    outside.pod("web", json!({})).await;
    outside
        .until("web", "it runs", |pod| phase(pod) == Some("Running"))
        .await;
    controller.crash().await;
    evict(&outside, "web").await;
    let began = tokio::time::Instant::now();
    let controller = outside.controller(&line);
    outside.until_no_instance_is_left().await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    controller.stop().await;
}

/// Somebody ends a pod that runs here: what runs must end too, and is not reported as running again.
#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_else_ended_is_let_go_and_stays_ended() {
    let (outside, line) = (Outside::new().await, Line::default());
    let controller = outside.controller(&line);
    outside.pod("web", json!({})).await;
    outside
        .until("web", "it runs", |pod| phase(pod) == Some("Running"))
        .await;
    evict(&outside, "web").await;
    outside.until_no_instance_is_left().await;
    let pod = outside.pods().get("web").await.expect("it is there");
    assert_eq!(phase(Some(&pod)), Some("Failed"));
    assert_eq!(outside.cloud.launches(), 1);
    controller.stop().await;
}

async fn evict(outside: &Outside, name: &str) {
    let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
    let patch = Patch::Merge(&failed);
    let patched = outside
        .pods()
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    patched.expect("written");
}

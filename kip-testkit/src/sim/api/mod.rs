//! A simulated API server: the real watcher, pod source and cell store run against a Kubernetes API in this process, on the story's clock,
//! through a connection on which everything goes wrong that the story says.
//!
//! What a controller asks goes through [`World::call`](super::world::World::call) like every other call, so crashes, cuts, outages, lost
//! replies and late effects strike it in the same way. [`layer`] turns HTTP requests into such calls and errors into answers, [`watches`]
//! breaks and delays watches, and [`mirror`] tells the judge what the API truly holds after each effect.

mod draw;
mod layer;
mod mirror;
mod objects;
mod record;
mod target;
mod watches;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use futures::FutureExt as _;
use http::Request;
use http_body_util::Full;
use kip_cluster::{Cluster, InProcess, Origin, SeededOrigin};
use kip_core::driver::{Clock, KipBuilder};
use kip_core::kubelet::{KubeletConfig, PodController, install_cells};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::pods::{PodTruth, uid};
use super::port::{Port, PortClock};
use super::scenario::PodPlan;
use super::world::World;
use layer::Connection;

pub(super) use draw::draw;

/// The story's clock, and ids that follow from its seed. Pods have the UIDs they have in all stories.
#[derive(Debug)]
struct StoryOrigin(SeededOrigin);

impl Origin for StoryOrigin {
    fn now(&self) -> jiff::Timestamp {
        self.0.now()
    }

    fn fill(&self, subject: &str, bytes: &mut [u8]) {
        self.0.fill(subject, bytes);
    }

    fn uid(&self, subject: &str) -> String {
        match subject.strip_prefix("/pods/default/") {
            Some(name) => uid(name).to_string(),
            None => self.0.uid(subject),
        }
    }
}

/// The Kubernetes API of a story. It outlives its controllers.
#[derive(Debug)]
pub(super) struct SimApi {
    world: Arc<World>,
    cluster: InProcess,
    /// Watches of pods so far.
    watches: Arc<AtomicU32>,
}

impl SimApi {
    /// An API with the Cell resource and without pods.
    pub(super) async fn new(world: &Arc<World>) -> Self {
        let origin = SeededOrigin::new(world.time(0), world.scenario.seed);
        let cluster = Cluster::builder()
            .scheduler(false)
            .origin(StoryOrigin(origin))
            .in_process();
        install_cells(&kube::Client::new(cluster.clone(), "default"))
            .await
            .expect("an API that nothing is wrong with takes the definition of cells");
        Self {
            world: Arc::clone(world),
            cluster,
            watches: Arc::default(),
        }
    }

    /// Starts one life of a controller: driver and kubelet, until `stopped`.
    pub(super) fn start(
        &self,
        port: &Arc<Port>,
        builder: KipBuilder,
        stopped: oneshot::Receiver<()>,
    ) -> JoinHandle<()> {
        let pods = self.controller(port);
        let driver = builder
            .source(pods.source())
            .store(pods.store())
            .build()
            .expect("the builder has everything else");
        let pods = pods.connect(Arc::new(driver.handle()));
        let port = Arc::clone(port);
        tokio::spawn(async move {
            let (synced, end) = (CancellationToken::new(), CancellationToken::new());
            let until = async {
                // A dropped sender is a shutdown as well.
                let _ = stopped.await;
                end.cancel();
            };
            let told = async {
                tokio::select! {
                    biased;
                    () = synced.cancelled() => {
                        port.world.lock().judge.synced.insert(port.life);
                    }
                    () = end.cancelled() => {}
                }
            };
            tokio::join!(told, pods.run(synced.clone(), end.clone()), driver.run(until));
        })
    }

    /// The pods' half of a kubelet, over the connection of one life of a controller.
    fn controller(&self, port: &Arc<Port>) -> PodController {
        let connection = Connection::new(Arc::clone(port), self.cluster.clone(), Arc::clone(&self.watches));
        let mut config = KubeletConfig::new(crate::samples::node(), [10, 0, 0, 1].into());
        config.pods.watch_jitter = false;
        let clock: Arc<dyn Clock> = Arc::new(PortClock(Arc::clone(port)));
        PodController::new(kube::Client::new(connection, "default"), config, clock)
            .expect("the defaults are valid")
    }

    /// A user creates a pod.
    pub(super) fn create(&self, plan: &PodPlan) {
        self.world.note(&format!("user creates pod {}", plan.name));
        self.user("POST", "/api/v1/namespaces/default/pods", &objects::pod(plan));
        self.world
            .lock()
            .pods
            .insert(uid(&plan.name), PodTruth::new(plan.clone()));
    }

    /// A user deletes a pod gracefully; nothing if it is being deleted or gone.
    pub(super) fn delete(&self, name: &str, grace_s: u32) {
        self.remove_with(
            name,
            grace_s,
            &format!("user deletes pod {name}, {grace_s} s of grace"),
        );
    }

    /// A user removes a pod's object by force.
    pub(super) fn force(&self, name: &str) {
        self.remove_with(name, 0, &format!("user removes pod {name} by force"));
    }

    fn remove_with(&self, name: &str, grace_s: u32, line: &str) {
        if !self.world.lock().pods.contains_key(&uid(name)) {
            return;
        }
        self.world.note(line);
        let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace_s });
        self.user("DELETE", &objects::path(name), &options);
        let at = self.world.at(0);
        mirror::pod(&mut self.world.lock(), &self.cluster, name, at);
    }

    /// What a user, on whose connection nothing goes wrong, asks for. A refusal is the API's to give and nothing to the story.
    fn user(&self, method: &str, path: &str, body: &Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))
            .expect("method and path are well formed");
        let reply = self.cluster.clone().call(request).now_or_never();
        let status = reply.and_then(Result::ok).map(|reply| reply.status());
        if !status.is_some_and(|status| status.is_success()) {
            self.world.note(&format!("user: {method} {path}: {status:?}"));
        }
    }
}

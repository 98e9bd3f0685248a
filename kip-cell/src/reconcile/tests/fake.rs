//! A scripted runtime: keeps sandboxes and containers in memory, fails or hangs when told to, counts calls.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::cri::containerd::events_server::{Events, EventsServer};
use crate::cri::containerd::{Envelope, SubscribeRequest};
use crate::cri::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::cri::v1::*;

/// The calls that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    RunPodSandbox,
    CreateContainer,
    StopContainer,
}

#[derive(Debug, Default)]
struct World {
    sandboxes: HashMap<String, PodSandboxStatus>,
    containers: HashMap<String, ContainerStatus>,
    labels: HashMap<String, HashMap<String, String>>,
    failures: HashMap<Call, Vec<String>>,
    counts: HashMap<Call, usize>,
    no_images: bool,
    hang_pulls: bool,
    pull_users: Vec<String>,
    clock: i64,
}

/// The runtime; serves until dropped.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    world: Arc<Mutex<World>>,
    _server: Arc<Server>,
}

#[derive(Debug)]
struct Server(tokio::task::AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<Mutex<World>>);

impl Fake {
    pub(super) fn serve(socket: &Path) -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let service = Service(world.clone());
        let listener = UnixListener::bind(socket).expect("socket");
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(service.clone()))
            .add_service(ImageServiceServer::new(service.clone()))
            .add_service(EventsServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let task = tokio::spawn(async move { drop(server.await) });
        Self {
            world,
            _server: Arc::new(Server(task.abort_handle())),
        }
    }

    /// The next such call fails with this message.
    pub(super) fn fail(&self, call: Call, message: &str) {
        self.world
            .lock()
            .expect("lock")
            .failures
            .entry(call)
            .or_default()
            .push(message.into());
    }

    pub(super) fn count(&self, call: Call) -> usize {
        self.world
            .lock()
            .expect("lock")
            .counts
            .get(&call)
            .copied()
            .unwrap_or(0)
    }

    /// No image is present.
    pub(super) fn forget_images(&self) {
        self.world.lock().expect("lock").no_images = true;
    }

    /// Pulls never end.
    pub(super) fn hang_pulls(&self) {
        self.world.lock().expect("lock").hang_pulls = true;
    }

    /// User names of the pulls so far.
    pub(super) fn pull_users(&self) -> Vec<String> {
        self.world.lock().expect("lock").pull_users.clone()
    }
}

impl Service {
    fn enter(&self, call: Option<Call>) -> Result<std::sync::MutexGuard<'_, World>, Status> {
        let mut world = self.0.lock().expect("lock");
        world.clock += 1_000_000;
        if let Some(call) = call {
            *world.counts.entry(call).or_default() += 1;
            if let Some(message) = world.failures.get_mut(&call).and_then(Vec::pop) {
                return Err(Status::unknown(message));
            }
        }
        Ok(world)
    }
}

fn ok<T>(value: T) -> Result<Response<T>, Status> {
    Ok(Response::new(value))
}

fn has(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        ok(VersionResponse {
            runtime_name: "fake".into(),
            ..Default::default()
        })
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Result<Response<RunPodSandboxResponse>, Status> {
        let mut world = self.enter(Some(Call::RunPodSandbox))?;
        let config = request.into_inner().config.unwrap_or_default();
        let id = format!("sandbox-{}", world.sandboxes.len());
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: world.clock,
            network: Some(PodSandboxNetworkStatus {
                ip: "10.0.0.2".into(),
                ..Default::default()
            }),
            labels: config.labels,
            ..Default::default()
        };
        world.sandboxes.insert(id.clone(), status);
        ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Result<Response<StopPodSandboxResponse>, Status> {
        let mut world = self.enter(None)?;
        if let Some(sandbox) = world.sandboxes.get_mut(&request.into_inner().pod_sandbox_id) {
            sandbox.set_state(PodSandboxState::SandboxNotready);
        }
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Result<Response<RemovePodSandboxResponse>, Status> {
        self.enter(None)?
            .sandboxes
            .remove(&request.into_inner().pod_sandbox_id);
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let world = self.enter(None)?;
        let status = world.sandboxes.get(&request.into_inner().pod_sandbox_id).cloned();
        let status = status.ok_or_else(|| Status::not_found("no such sandbox"))?;
        ok(PodSandboxStatusResponse {
            status: Some(status),
            ..Default::default()
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let world = self.enter(None)?;
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let found = world
            .sandboxes
            .values()
            .filter(|sandbox| has(&sandbox.labels, &wanted));
        let items = found
            .map(|sandbox| PodSandbox {
                id: sandbox.id.clone(),
                ..Default::default()
            })
            .collect();
        ok(ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let mut world = self.enter(Some(Call::CreateContainer))?;
        let config = request.into_inner().config.unwrap_or_default();
        let id = format!("container-{}", world.containers.len());
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: world.clock,
            image: config.image,
            image_ref: "sha256:1".into(),
            annotations: config.annotations,
            ..Default::default()
        };
        world.labels.insert(id.clone(), config.labels);
        world.containers.insert(id.clone(), status);
        ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        let mut world = self.enter(None)?;
        let clock = world.clock;
        if let Some(container) = world.containers.get_mut(&request.into_inner().container_id) {
            container.set_state(ContainerState::ContainerRunning);
            container.started_at = clock;
        }
        ok(StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        let mut world = self.enter(Some(Call::StopContainer))?;
        let clock = world.clock;
        if let Some(container) = world.containers.get_mut(&request.into_inner().container_id) {
            container.set_state(ContainerState::ContainerExited);
            container.exit_code = 143;
            container.finished_at = clock;
        }
        ok(StopContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let world = self.enter(None)?;
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let found = world
            .containers
            .keys()
            .filter(|id| world.labels.get(*id).is_some_and(|labels| has(labels, &wanted)));
        let containers = found
            .map(|id| Container {
                id: id.clone(),
                ..Default::default()
            })
            .collect();
        ok(ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let world = self.enter(None)?;
        let status = world.containers.get(&request.into_inner().container_id).cloned();
        let status = status.ok_or_else(|| Status::not_found("no such container"))?;
        ok(ContainerStatusResponse {
            status: Some(status),
            ..Default::default()
        })
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let world = self.enter(None)?;
        let name = request.into_inner().image.unwrap_or_default().image;
        let present = !world.no_images || name == "sha256:1";
        let image = present.then(|| Image {
            id: "sha256:1".into(),
            ..Default::default()
        });
        ok(ImageStatusResponse {
            image,
            ..Default::default()
        })
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let hang = {
            let mut world = self.enter(None)?;
            let user = request.into_inner().auth.unwrap_or_default().username;
            world.pull_users.push(user);
            world.hang_pulls
        };
        if hang {
            std::future::pending::<()>().await;
        }
        ok(PullImageResponse {
            image_ref: "sha256:1".into(),
        })
    }
}

#[tonic::async_trait]
impl Events for Service {
    async fn subscribe(&self, _: Request<SubscribeRequest>) -> Result<Response<BoxStream<Envelope>>, Status> {
        ok(Box::pin(tokio_stream::pending()))
    }
}

//! The gRPC service: checks each request at the edge and hands it to the part that answers it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::cell_server::Cell;
use kip_cell_api::v1::prepare_stream_request::Kind;
use kip_cell_api::v1::{
    DeployPodRequest, DeployPodResponse, GetInfoRequest, GetInfoResponse, LogChunk, Pod,
    PrepareStreamRequest, PrepareStreamResponse, ReadLogsRequest, StatsRequest, StatsSample, StatusSnapshot,
    StopPodRequest, StopPodResponse, TunnelFrame, UpdatePodRequest, UpdatePodResponse, WatchStatusRequest,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use crate::cri::{Runtime, v1};
use crate::host::Host;
use crate::pod::validate;
use crate::reconcile::{Handle, Message, Refusal, View};
use crate::{logs, stats, tunnel};

/// A status is sent at least this often, so that a silent connection is known to be alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a restarted agent may hold back its first status until it has listed the runtime.
const FIRST_STATUS: Duration = Duration::from_secs(2);
/// Log pieces on the way to a slow reader; beyond that the file is simply not read.
const LOG_PIECES: usize = 8;

/// The service.
#[derive(Debug)]
pub(crate) struct CellService {
    handle: Handle,
    runtime: Runtime,
    host: Host,
    cell: String,
    /// Address of the runtime's streaming server, known from the last URL it gave.
    streaming: Mutex<Option<String>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl CellService {
    pub(crate) fn new(handle: Handle, runtime: Runtime, host: Host, cell: String) -> Self {
        Self {
            handle,
            runtime,
            host,
            cell,
            streaming: Mutex::new(None),
        }
    }

    async fn ask(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> Message,
    ) -> Result<(), Status> {
        let gone = || Status::unavailable("the agent is shutting down");
        let (reply, answer) = oneshot::channel();
        self.handle
            .messages
            .send(message(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(convert::refusal)
    }

    fn view(&self) -> Arc<View> {
        self.handle.view.borrow().clone()
    }

    /// The pod with this uid, else why not.
    fn pod(&self, uid: &str) -> Result<Arc<Pod>, Status> {
        let pod = self
            .view()
            .pod
            .clone()
            .ok_or_else(|| Status::not_found("the agent holds no pod"))?;
        if pod.uid == uid {
            Ok(pod)
        } else {
            Err(Status::not_found(format!(
                "the agent holds pod {}, not {uid}",
                pod.uid
            )))
        }
    }

    /// Id of a container's live run.
    fn running(&self, pod: &Pod, container: &str) -> Result<String, Status> {
        if crate::pod::model::find(pod, container).is_none() {
            return Err(Status::not_found(format!(
                "container {container:?} is not in pod {:?}",
                pod.name
            )));
        }
        let view = self.view();
        let run = view.seen.newest(container).filter(|run| run.is_alive());
        let id = run.map(|run| run.id.clone());
        id.ok_or_else(|| Status::failed_precondition(format!("container {container:?} is not running")))
    }
}

fn checked(pod: Option<Pod>) -> Result<Box<Pod>, Status> {
    let pod = pod.ok_or_else(|| Status::invalid_argument("pod: must be set"))?;
    let problems = validate::problems(&pod);
    if problems.is_empty() {
        Ok(Box::new(pod))
    } else {
        Err(Status::invalid_argument(problems.join("; ")))
    }
}

#[tonic::async_trait]
impl Cell for CellService {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        // Answers also while the runtime does not: its name is then empty.
        let runtime = self.runtime.version().await.unwrap_or_default();
        let pod = self.view().pod.clone();
        Ok(Response::new(GetInfoResponse {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: self.host.boot_id.clone(),
            cell_name: self.cell.clone(),
            runtime_name: runtime.runtime_name,
            runtime_version: runtime.runtime_version,
            architecture: self.host.architecture.clone(),
            kernel_version: self.host.kernel_version.clone(),
            os_image: self.host.os_image.clone(),
            memory_bytes: self.host.memory_bytes,
            cpus: self.host.cpus,
            pod_uid: pod.as_ref().map(|pod| pod.uid.clone()).unwrap_or_default(),
            pod_generation: pod.map_or(0, |pod| pod.generation),
        }))
    }

    async fn deploy_pod(
        &self,
        request: Request<DeployPodRequest>,
    ) -> Result<Response<DeployPodResponse>, Status> {
        let pod = checked(request.into_inner().pod)?;
        self.ask(|reply| Message::Deploy(pod, reply)).await?;
        Ok(Response::new(DeployPodResponse {}))
    }

    async fn update_pod(
        &self,
        request: Request<UpdatePodRequest>,
    ) -> Result<Response<UpdatePodResponse>, Status> {
        let pod = checked(request.into_inner().pod)?;
        self.ask(|reply| Message::Update(pod, reply)).await?;
        Ok(Response::new(UpdatePodResponse {}))
    }

    async fn stop_pod(&self, request: Request<StopPodRequest>) -> Result<Response<StopPodResponse>, Status> {
        let StopPodRequest {
            pod_uid,
            grace_seconds,
            reason,
        } = request.into_inner();
        let grace = SignedDuration::from_secs(i64::from(grace_seconds));
        let now = Timestamp::now();
        let deadline = now.saturating_add(grace).unwrap_or(now);
        self.ask(|reply| Message::Stop {
            pod_uid,
            deadline,
            reason,
            reply,
        })
        .await?;
        Ok(Response::new(StopPodResponse {}))
    }

    type WatchStatusStream = Answers<StatusSnapshot>;

    async fn watch_status(
        &self,
        _: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let mut status = self.handle.status.clone();
        // One in flight: a slow reader gets the newest next, not everything it missed.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let unknown = |s: &Arc<StatusSnapshot>| {
                !s.pod_uid.is_empty() && s.observed_generation == 0 && s.sandbox_error.is_empty()
            };
            // Timing out or ending only means that what is known is sent.
            drop(tokio::time::timeout(FIRST_STATUS, status.wait_for(|s| !unknown(s))).await);
            loop {
                let snapshot = status.borrow_and_update().clone();
                if sender.send(Ok((*snapshot).clone())).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = status.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(HEARTBEAT) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ReadLogsStream = Answers<LogChunk>;

    async fn read_logs(
        &self,
        request: Request<ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let request = request.into_inner();
        let options = convert::log_options(&request)?;
        let pod = self.pod(&request.pod_uid)?;
        let status = self.handle.status.borrow().clone();
        let id = convert::logged_run(&status, &pod.name, &request.container, request.previous)?;
        let path = self
            .view()
            .seen
            .runs
            .get(&id)
            .map(|run| PathBuf::from(&run.log_path));
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| Status::not_found(format!("the log of container {id} is gone")))?;
        let (sender, receiver) = mpsc::channel(LOG_PIECES);
        tokio::spawn(logs::stream(path, id, options, self.handle.view.clone(), sender));
        let chunks = ReceiverStream::new(receiver).map(|piece| match piece {
            Ok(data) => Ok(LogChunk { data }),
            Err(error) => Err(Status::internal(format!("the log could not be read: {error}"))),
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn prepare_stream(
        &self,
        request: Request<PrepareStreamRequest>,
    ) -> Result<Response<PrepareStreamResponse>, Status> {
        let PrepareStreamRequest { pod_uid, kind } = request.into_inner();
        let pod = self.pod(&pod_uid)?;
        let url = match kind.ok_or_else(|| Status::invalid_argument("kind: must be set"))? {
            Kind::Exec(exec) => {
                let container_id = self.running(&pod, &exec.container)?;
                let (cmd, tty) = (exec.command, exec.tty);
                let (stdin, stdout, stderr) = (exec.stdin, exec.stdout, exec.stderr && !tty);
                self.runtime
                    .exec(v1::ExecRequest {
                        container_id,
                        cmd,
                        tty,
                        stdin,
                        stdout,
                        stderr,
                    })
                    .await
            }
            Kind::Attach(attach) => {
                let container_id = self.running(&pod, &attach.container)?;
                let tty = attach.tty;
                let (stdin, stdout, stderr) = (attach.stdin, attach.stdout, attach.stderr && !tty);
                self.runtime
                    .attach(v1::AttachRequest {
                        container_id,
                        stdin,
                        tty,
                        stdout,
                        stderr,
                    })
                    .await
            }
            Kind::PortForward(forward) => {
                let ports: Result<Vec<i32>, _> = forward.ports.into_iter().map(i32::try_from).collect();
                let port = ports.map_err(|_| Status::invalid_argument("ports: out of range"))?;
                let sandbox = self.view().seen.sandbox().map(|sandbox| sandbox.id.clone());
                let pod_sandbox_id =
                    sandbox.ok_or_else(|| Status::failed_precondition("the pod does not run"))?;
                self.runtime
                    .port_forward(v1::PortForwardRequest { pod_sandbox_id, port })
                    .await
            }
        };
        let (address, path) = convert::split_url(&url.map_err(|error| convert::call(&error))?)?;
        *self.streaming.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        Ok(Response::new(PrepareStreamResponse { path }))
    }

    type TunnelStream = Answers<TunnelFrame>;

    async fn tunnel(
        &self,
        request: Request<Streaming<TunnelFrame>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let address = self
            .streaming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let address =
            address.ok_or_else(|| Status::failed_precondition("call PrepareStream before Tunnel"))?;
        let frames = tunnel::open(&address, request.into_inner()).await?;
        Ok(Response::new(Box::pin(frames)))
    }

    type StatsStream = Answers<StatsSample>;

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        let request = request.into_inner();
        self.pod(&request.pod_uid)?;
        let samples = stats::samples(
            self.runtime.clone(),
            self.handle.view.clone(),
            request.interval_seconds,
        );
        Ok(Response::new(Box::pin(samples)))
    }
}

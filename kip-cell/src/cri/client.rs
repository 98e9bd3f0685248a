//! Calls the runtime, each call with its own deadline and an error that says which call it was.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::v1::image_service_client::ImageServiceClient;
use super::v1::runtime_service_client::RuntimeServiceClient;
use super::v1::{self, ContainerStatus, PodSandboxConfig, PodSandboxStatus};

/// Deadline of a call that only reads the runtime's state.
const READ: Duration = Duration::from_secs(10);
/// Deadline of a call that makes the runtime work (set up a network, unpack a root filesystem, start a process).
const WORK: Duration = Duration::from_secs(120);
/// Deadline of one image pull; containerd gives up a stalled download by itself much earlier.
const PULL: Duration = Duration::from_secs(1800);
/// What a stop may take beyond the grace period it was given.
const STOP_SLACK: Duration = Duration::from_secs(60);
/// Largest answer accepted: the CRI limit for the output of an exec probe.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A call to the runtime that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The runtime answered with an error.
    #[error("{}", .status.message())]
    Refused {
        /// Name of the CRI call.
        call: &'static str,
        /// What the runtime answered.
        status: Box<tonic::Status>,
    },
    /// No answer within the call's deadline.
    #[error("{call} did not answer within {seconds} s")]
    Timeout {
        /// Name of the CRI call.
        call: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The answer lacked something the protocol promises.
    #[error("{call} answered without {what}")]
    Incomplete {
        /// Name of the CRI call.
        call: &'static str,
        /// What was missing.
        what: &'static str,
    },
}

impl CallError {
    /// The runtime says the object is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == tonic::Code::NotFound)
    }

    /// The socket could not be reached, as opposed to the runtime refusing.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == tonic::Code::Unavailable)
    }

    /// The call's deadline passed, here or in the runtime.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Refused { status, .. } => status.code() == tonic::Code::DeadlineExceeded,
            Self::Incomplete { .. } => false,
        }
    }
}

/// The runtime behind one socket. Cheap to clone; connects when first used and again after the runtime restarted.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    socket: PathBuf,
}

impl Runtime {
    /// Does not connect yet, so a missing socket is an error of the first call.
    pub(crate) fn new(socket: &Path) -> Self {
        let path = socket.to_path_buf();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            channel,
            socket: socket.to_path_buf(),
        }
    }

    /// The connection, for services that are not CRI.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The runtime's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Name and version of the runtime.
    pub(crate) async fn version(&self) -> Result<v1::VersionResponse, CallError> {
        let mut client = self.runtime.clone();
        bounded(
            "Version",
            READ,
            client.version(v1::VersionRequest { version: "v1".into() }),
        )
        .await
    }

    /// All sandboxes with every label given.
    pub(crate) async fn list_sandboxes(
        &self,
        labels: &[(&str, &str)],
    ) -> Result<Vec<v1::PodSandbox>, CallError> {
        let filter = v1::PodSandboxFilter {
            label_selector: selector(labels),
            ..Default::default()
        };
        let mut client = self.runtime.clone();
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(bounded("ListPodSandbox", READ, client.list_pod_sandbox(request))
            .await?
            .items)
    }

    /// All containers with every label given.
    pub(crate) async fn list_containers(
        &self,
        labels: &[(&str, &str)],
    ) -> Result<Vec<v1::Container>, CallError> {
        let filter = v1::ContainerFilter {
            label_selector: selector(labels),
            ..Default::default()
        };
        let mut client = self.runtime.clone();
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(bounded("ListContainers", READ, client.list_containers(request))
            .await?
            .containers)
    }

    /// Creates the sandbox with its network, and answers its id.
    pub(crate) async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String, CallError> {
        let mut client = self.runtime.clone();
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        Ok(
            bounded("RunPodSandbox", WORK, Box::pin(client.run_pod_sandbox(request)))
                .await?
                .pod_sandbox_id,
        )
    }

    /// State and addresses of one sandbox.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, CallError> {
        let mut client = self.runtime.clone();
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        bounded("PodSandboxStatus", READ, client.pod_sandbox_status(request))
            .await?
            .status
            .ok_or(CallError::Incomplete {
                call: "PodSandboxStatus",
                what: "a status",
            })
    }

    /// Stops the sandbox and frees its network. Idempotent.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        ignore_missing(
            bounded("StopPodSandbox", WORK, client.stop_pod_sandbox(request))
                .await
                .map(drop),
        )
    }

    /// Removes a stopped sandbox and whatever containers it still has. Idempotent.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        ignore_missing(
            bounded("RemovePodSandbox", WORK, client.remove_pod_sandbox(request))
                .await
                .map(drop),
        )
    }

    /// Creates a container and answers its id; nothing runs yet.
    pub(crate) async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String, CallError> {
        let mut client = self.runtime.clone();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        Ok(bounded(
            "CreateContainer",
            WORK,
            Box::pin(client.create_container(request)),
        )
        .await?
        .container_id)
    }

    /// Starts a created container.
    pub(crate) async fn start_container(&self, id: &str) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let request = v1::StartContainerRequest {
            container_id: id.into(),
        };
        bounded("StartContainer", WORK, client.start_container(request))
            .await
            .map(drop)
    }

    /// Sends the stop signal, kills after `grace`, and returns when the container has ended. Idempotent; calling it
    /// again with a shorter grace period shortens the wait.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let timeout = i64::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest {
            container_id: id.into(),
            timeout,
        };
        let deadline = grace.saturating_add(STOP_SLACK);
        ignore_missing(
            bounded("StopContainer", deadline, client.stop_container(request))
                .await
                .map(drop),
        )
    }

    /// Removes a container that has ended. Idempotent.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let request = v1::RemoveContainerRequest {
            container_id: id.into(),
        };
        ignore_missing(
            bounded("RemoveContainer", WORK, client.remove_container(request))
                .await
                .map(drop),
        )
    }

    /// State, times and exit code of one container.
    pub(crate) async fn container_status(&self, id: &str) -> Result<ContainerStatus, CallError> {
        let mut client = self.runtime.clone();
        let request = v1::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        bounded("ContainerStatus", READ, client.container_status(request))
            .await?
            .status
            .ok_or(CallError::Incomplete {
                call: "ContainerStatus",
                what: "a status",
            })
    }

    /// Makes the runtime open the container's log file anew, after it was renamed.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), CallError> {
        let mut client = self.runtime.clone();
        let request = v1::ReopenContainerLogRequest {
            container_id: id.into(),
        };
        bounded("ReopenContainerLog", READ, client.reopen_container_log(request))
            .await
            .map(drop)
    }

    /// Runs a command in the container and waits for it, at most `timeout`.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, CallError> {
        let mut client = self.runtime.clone();
        let seconds = i64::try_from(timeout.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest {
            container_id: id.into(),
            cmd,
            timeout: seconds,
        };
        bounded(
            "ExecSync",
            timeout.saturating_add(READ),
            client.exec_sync(request),
        )
        .await
    }

    /// Prepares a streaming exec and answers its URL.
    pub(crate) async fn exec(&self, request: v1::ExecRequest) -> Result<String, CallError> {
        let mut client = self.runtime.clone();
        Ok(bounded("Exec", READ, client.exec(request)).await?.url)
    }

    /// Prepares a streaming attach and answers its URL.
    pub(crate) async fn attach(&self, request: v1::AttachRequest) -> Result<String, CallError> {
        let mut client = self.runtime.clone();
        Ok(bounded("Attach", READ, client.attach(request)).await?.url)
    }

    /// Prepares a port-forward and answers its URL.
    pub(crate) async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, CallError> {
        let mut client = self.runtime.clone();
        Ok(bounded("PortForward", READ, client.port_forward(request))
            .await?
            .url)
    }

    /// Usage of every container with the labels given.
    pub(crate) async fn container_stats(
        &self,
        labels: &[(&str, &str)],
    ) -> Result<Vec<v1::ContainerStats>, CallError> {
        let filter = v1::ContainerStatsFilter {
            label_selector: selector(labels),
            ..Default::default()
        };
        let mut client = self.runtime.clone();
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        Ok(
            bounded("ListContainerStats", READ, client.list_container_stats(request))
                .await?
                .stats,
        )
    }

    /// The image as the runtime has it, nothing when it has not.
    pub(crate) async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, CallError> {
        let mut client = self.images.clone();
        let request = v1::ImageStatusRequest {
            image: Some(spec(image)),
            verbose: false,
        };
        Ok(bounded("ImageStatus", READ, client.image_status(request))
            .await?
            .image)
    }

    /// Pulls an image and answers its reference.
    pub(crate) async fn pull_image(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: PodSandboxConfig,
    ) -> Result<String, CallError> {
        let mut client = self.images.clone();
        let request = v1::PullImageRequest {
            image: Some(spec(image)),
            auth,
            sandbox_config: Some(sandbox),
        };
        Ok(bounded("PullImage", PULL, Box::pin(client.pull_image(request)))
            .await?
            .image_ref)
    }
}

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.into(),
        ..Default::default()
    }
}

fn selector(labels: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn ignore_missing(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

async fn bounded<T>(
    call: &'static str,
    deadline: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CallError::Refused {
            call,
            status: Box::new(status),
        }),
        Err(_) => Err(CallError::Timeout {
            call,
            seconds: deadline.as_secs(),
        }),
    }
}

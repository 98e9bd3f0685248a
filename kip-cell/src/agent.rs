//! Puts the agent's parts together and runs them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::cell_server::CellServer;
use kip_cell_api::{BootConfig, MetadataService};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::credentials::CredentialProviders;
use crate::cri::{self, Runtime};
use crate::host::Host;
use crate::logs;
use crate::metadata;
use crate::reconcile::{Handle, Message, Reconciler, Setup};
use crate::server::{CellService, TlsError, incoming, server_config};

/// A connection that does not answer a ping in this time is dead.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Largest request: a pod with its ConfigMaps and Secrets (1 MiB each at most).
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;
/// Runtime events waiting for the reconciler.
const RUNTIME_EVENTS: usize = 64;

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The certificates cannot be used.
    #[error("cannot serve")]
    Tls(#[from] TlsError),
    /// The address is taken or not this machine's.
    #[error("cannot listen on {listen}; is another agent running, or is the address not this cell's?")]
    Listen {
        /// The address asked for.
        listen: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state folder cannot be used.
    #[error("cannot use the state folder {path}")]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server broke.
    #[error("the server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// An agent that listens and is ready to run.
#[derive(Debug)]
pub struct Agent {
    listener: TcpListener,
    address: SocketAddr,
    tls: rustls::ServerConfig,
    reconciler: Reconciler,
    handle: Handle,
    runtime: Runtime,
    host: Host,
    cell: String,
    metadata: Option<MetadataService>,
}

impl Agent {
    /// Loads the stored state and binds the listening socket. The runtime need not answer yet. `providers` are asked for images that no
    /// pull secret covers.
    ///
    /// # Errors
    /// Unusable certificates, a taken address, an unusable state folder.
    pub async fn bind(config: &BootConfig, providers: CredentialProviders) -> Result<Self, AgentError> {
        let started_at = Timestamp::now();
        let tls = server_config(config)?;
        let listen_error = |source| AgentError::Listen {
            listen: config.listen.clone(),
            source,
        };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let runtime = Runtime::new(Path::new(&config.runtime_socket));
        let host = Host::read();
        let setup = Setup {
            runtime: runtime.clone(),
            host: host.clone(),
            state_dir: PathBuf::from(&config.state_dir),
            cgroup_parent: config.cgroup_parent.clone(),
            pod_uid: config.pod_uid.clone(),
            providers,
        };
        let (reconciler, handle) =
            Reconciler::new(setup, started_at).map_err(|source| AgentError::State {
                path: PathBuf::from(&config.state_dir),
                source: Box::new(source),
            })?;
        Ok(Self {
            listener,
            address,
            tls,
            reconciler,
            handle,
            runtime,
            host,
            cell: config.cell.clone(),
            metadata: config.metadata.clone(),
        })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `shutdown` ends. Containers go on running.
    ///
    /// # Errors
    /// The server broke, which is fatal.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
        let Self {
            listener,
            address,
            tls,
            reconciler,
            handle,
            runtime,
            host,
            cell,
            metadata,
        } = self;
        tracing::info!(%address, cell, boot_id = host.boot_id, "the agent listens");
        let messages = handle.messages.clone();
        let tasks = [
            tokio::spawn(reconciler.run()),
            tokio::spawn(forward_runtime_events(runtime.clone(), messages.clone())),
            tokio::spawn(forward_notices(metadata, messages)),
            tokio::spawn(logs::rotate(runtime.clone(), handle.view.clone())),
        ];
        let service = CellService::new(handle, runtime, host, cell);
        let service = CellServer::new(service).max_decoding_message_size(LARGEST_REQUEST);
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(service)
            .serve_with_incoming(incoming(listener, tls));
        let served = tokio::select! {
            served = server => served.map_err(AgentError::Serve),
            // Streams to the controller are endless, so they are cut rather than waited for.
            () = shutdown => Ok(()),
        };
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        tracing::info!("the agent ends; containers go on running");
        served
    }
}

async fn forward_runtime_events(runtime: Runtime, messages: mpsc::Sender<Message>) {
    let (sender, mut events) = mpsc::channel(RUNTIME_EVENTS);
    let watching = cri::watch(runtime, sender);
    let forwarding = async {
        while let Some(event) = events.recv().await {
            if messages.send(Message::Runtime(event)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(watching, forwarding);
}

/// Tells the reconciler what the cloud announces about the instance, where there is a cloud to ask.
async fn forward_notices(service: Option<MetadataService>, messages: mpsc::Sender<Message>) {
    let Some(service) = service else { return };
    let (sender, mut notices) = mpsc::channel(1);
    let watching = metadata::watch(service, metadata::Pace::default(), sender);
    let forwarding = async {
        while let Some(notices) = notices.recv().await {
            if messages.send(Message::Notices(notices)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(watching, forwarding);
}

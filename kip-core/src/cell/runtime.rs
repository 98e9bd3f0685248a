//! `PodRuntime` over gRPC to the agents on cells.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use kip_cell_api::AGENT_PORT;
use kip_cell_api::v1::cell_client::CellClient;
use kip_cell_api::v1::{
    AttachStream, DeployPodRequest, ExecStream, PortForwardStream, PrepareStreamRequest, ReadLogsRequest,
    StatsRequest, StopPodRequest, UpdatePodRequest, WatchStatusRequest, prepare_stream_request,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::CellAuthority;
use super::connect::Dialer;
use super::convert;
use super::errors::{DEPLOY, from_status};
use super::tunnel;
use super::user_data::BootOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, PodUid};
use crate::model::{PodManifest, RuntimeReport};
use crate::provider::UserData;
use crate::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};

/// How long one call may take until it counts as ambiguous.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent reports at least every ten seconds; after three missed reports the stream counts as dead.
const SILENCE: Duration = Duration::from_secs(30);
/// Between attempts to reach a host that is not up yet: the first pause and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

type Client = CellClient<Channel>;

/// Runs pods on cells, over gRPC with TLS 1.3 and certificates on both sides.
///
/// One HTTP/2 connection a cell, made by [`watch`](PodRuntime::watch) and shared by all calls until the watch ends; calls to a
/// cell that is not watched use a connection of their own. A dead cell is noticed within 15 seconds by HTTP/2 pings, a hung agent
/// within 30 by its missing reports. Calls other than `watch` give up after ten seconds with `Timeout`.
pub struct CellRuntime {
    authority: Arc<CellAuthority>,
    boot: BootOptions,
    port: u16,
    links: Arc<Links>,
}

impl fmt::Debug for CellRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellRuntime")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The connections of watched cells.
#[derive(Default)]
struct Links(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    by_cell: HashMap<CellEndpoint, (u64, Channel)>,
}

impl Links {
    fn locked(&self) -> std::sync::MutexGuard<'_, Table> {
        // Each critical section leaves the table consistent, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, cell: &CellEndpoint) -> Option<Channel> {
        self.locked()
            .by_cell
            .get(cell)
            .map(|(_, channel)| channel.clone())
    }

    fn insert(self: &Arc<Self>, cell: &CellEndpoint, channel: Channel) -> Link {
        let mut table = self.locked();
        table.next += 1;
        let number = table.next;
        table.by_cell.insert(cell.clone(), (number, channel));
        Link {
            links: Arc::clone(self),
            cell: cell.clone(),
            number,
        }
    }
}

/// Keeps a watched cell's connection in the table until the watch is dropped.
struct Link {
    links: Arc<Links>,
    cell: CellEndpoint,
    number: u64,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut table = self.links.locked();
        // A newer watch of the same cell has put its own connection there.
        if table
            .by_cell
            .get(&self.cell)
            .is_some_and(|(number, _)| *number == self.number)
        {
            table.by_cell.remove(&self.cell);
        }
    }
}

impl CellRuntime {
    /// A runtime whose cells and connections are certified by `authority`.
    pub fn new(authority: Arc<CellAuthority>) -> Self {
        Self {
            authority,
            boot: BootOptions::default(),
            port: AGENT_PORT,
            links: Arc::default(),
        }
    }

    /// Adds to what each cell is given at boot.
    #[must_use]
    pub fn with_boot(mut self, boot: BootOptions) -> Self {
        self.boot = boot;
        self
    }

    /// Dials agents on another port than the contract's, for tests and unusual networks.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// How many connections are kept for watched cells.
    pub fn connections(&self) -> usize {
        self.links.locked().by_cell.len()
    }

    fn dialer(&self, cell: &CellEndpoint) -> Dialer {
        let address = SocketAddr::new(cell.address, self.port);
        Dialer::new(Arc::clone(&self.authority), cell.cell.clone(), address)
    }

    async fn client(&self, cell: &CellEndpoint) -> Result<Client> {
        if let Some(channel) = self.links.get(cell) {
            return Ok(CellClient::new(channel));
        }
        Ok(CellClient::new(self.dialer(cell).connect().await?))
    }

    /// One call with a deadline, connecting included.
    async fn call<T, F>(
        &self,
        cell: &CellEndpoint,
        operation: &'static str,
        call: impl FnOnce(Client) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let whole = async {
            let client = self.client(cell).await?;
            call(client)
                .await
                .map_err(|status| from_status(status, operation, &cell.cell))
        };
        timeout(CALL_TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| Err(no_answer(operation, &cell.cell, CALL_TIMEOUT)))
    }

    /// One attempt to follow a cell's reports.
    async fn try_watch(
        &self,
        cell: &CellEndpoint,
    ) -> Result<(Link, Streaming<kip_cell_api::v1::StatusSnapshot>)> {
        let channel = self.dialer(cell).connect().await?;
        let stream = timeout(
            CALL_TIMEOUT,
            CellClient::new(channel.clone()).watch_status(WatchStatusRequest {}),
        )
        .await
        .map_err(|_| no_answer(WATCH, &cell.cell, CALL_TIMEOUT))?
        .map_err(|status| from_status(status, WATCH, &cell.cell))?
        .into_inner();
        Ok((self.links.insert(cell, channel), stream))
    }
}

const WATCH: &str = "watch cell";

fn no_answer(operation: &'static str, cell: &CellName, after: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        operation,
        format!("the agent did not answer within {} s", after.as_secs()),
    )
    .with_context("cell", cell)
}

#[async_trait]
impl PodRuntime for CellRuntime {
    fn user_data(&self, request: &BootRequest) -> Result<UserData> {
        self.authority.user_data(request, &self.boot)
    }

    async fn watch(
        &self,
        cell: &CellEndpoint,
        patience: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        let (link, stream) = loop {
            match timeout_at(deadline, self.try_watch(cell)).await {
                Ok(Ok(watch)) => break watch,
                Ok(Err(error)) => {
                    tracing::debug!(cell = %cell.cell, error = %error.chain(), "not up yet");
                    last = Some(error);
                }
                Err(_) => return Err(last.unwrap_or_else(|| no_answer(WATCH, &cell.cell, patience))),
            }
            if Instant::now() + pause >= deadline {
                return Err(last.unwrap_or_else(|| no_answer(WATCH, &cell.cell, patience)));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        };
        let name = cell.cell.clone();
        let reports = stream::unfold(Some((link, stream)), move |state| {
            let name = name.clone();
            async move {
                let (link, mut stream) = state?;
                let next = match timeout(SILENCE, stream.message()).await {
                    Ok(Ok(Some(snapshot))) => convert::report(snapshot),
                    Ok(Ok(None)) => return None,
                    Ok(Err(status)) => Err(from_status(status, WATCH, &name)),
                    Err(_) => Err(no_answer(WATCH, &name, SILENCE)),
                };
                let state = next.is_ok().then_some((link, stream));
                Some((next, state))
            }
        });
        Ok(reports.boxed())
    }

    async fn deploy(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        let request = DeployPodRequest {
            pod: Some(convert::pod(manifest)),
        };
        self.call(cell, DEPLOY, |mut client| async move {
            client.deploy_pod(request).await
        })
        .await?;
        Ok(())
    }

    async fn update(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        let request = UpdatePodRequest {
            pod: Some(convert::pod(manifest)),
        };
        self.call(cell, "update pod", |mut client| async move {
            client.update_pod(request).await
        })
        .await?;
        Ok(())
    }

    async fn stop(&self, cell: &CellEndpoint, pod: &PodUid, grace: Duration, reason: &str) -> Result<()> {
        let request = StopPodRequest {
            pod_uid: pod.to_string(),
            // Rounded up: a grace period is a promise.
            grace_seconds: u32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
            reason: reason.to_owned(),
        };
        self.call(cell, "stop pod", |mut client| async move {
            client.stop_pod(request).await
        })
        .await?;
        Ok(())
    }

    async fn logs(
        &self,
        cell: &CellEndpoint,
        pod: &PodUid,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        const OP: &str = "read logs";
        let request = ReadLogsRequest {
            pod_uid: pod.to_string(),
            container: request.container,
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines,
            limit_bytes: request.limit_bytes,
            since: request.since.map(convert::timestamp),
            stream: request.stream,
        };
        let chunks = self
            .call(
                cell,
                OP,
                |mut client| async move { client.read_logs(request).await },
            )
            .await?
            .into_inner();
        let name = cell.cell.clone();
        Ok(chunks
            .map(move |chunk| match chunk {
                Ok(chunk) => Ok(chunk.data),
                Err(status) => Err(from_status(status, OP, &name)),
            })
            .boxed())
    }

    async fn open(&self, cell: &CellEndpoint, pod: &PodUid, kind: StreamKind) -> Result<Upgrade> {
        const OP: &str = "open session";
        let request = PrepareStreamRequest {
            pod_uid: pod.to_string(),
            kind: Some(session(kind)),
        };
        let client = timeout(CALL_TIMEOUT, self.client(cell))
            .await
            .map_err(|_| no_answer(OP, &cell.cell, CALL_TIMEOUT))??;
        let mut asking = client.clone();
        let prepared = timeout(CALL_TIMEOUT, asking.prepare_stream(request))
            .await
            .map_err(|_| no_answer(OP, &cell.cell, CALL_TIMEOUT))?
            .map_err(|status| from_status(status, OP, &cell.cell))?
            .into_inner();
        let io = timeout(CALL_TIMEOUT, tunnel::open(client, cell.cell.clone()))
            .await
            .map_err(|_| no_answer(OP, &cell.cell, CALL_TIMEOUT))??;
        Ok(Upgrade {
            path: prepared.path,
            io,
        })
    }

    async fn stats(&self, cell: &CellEndpoint, pod: &PodUid) -> Result<PodStats> {
        const OP: &str = "read stats";
        let request = StatsRequest {
            pod_uid: pod.to_string(),
            interval_seconds: 0,
        };
        let sample = self
            .call(cell, OP, |mut client| async move {
                client.stats(request).await?.into_inner().message().await
            })
            .await?
            .ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, OP, "the agent sent no sample")
                    .with_context("cell", &cell.cell)
            })?;
        convert::stats(sample)
    }
}

fn session(kind: StreamKind) -> prepare_stream_request::Kind {
    match kind {
        StreamKind::Exec {
            container,
            command,
            stdin,
            stdout,
            stderr,
            tty,
        } => prepare_stream_request::Kind::Exec(ExecStream {
            container,
            command,
            stdin,
            stdout,
            stderr,
            tty,
        }),
        StreamKind::Attach {
            container,
            stdin,
            stdout,
            stderr,
            tty,
        } => prepare_stream_request::Kind::Attach(AttachStream {
            container,
            stdin,
            stdout,
            stderr,
            tty,
        }),
        StreamKind::PortForward { ports } => prepare_stream_request::Kind::PortForward(PortForwardStream {
            ports: ports.into_iter().map(u32::from).collect(),
        }),
    }
}

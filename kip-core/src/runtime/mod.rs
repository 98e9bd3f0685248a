//! What Kip asks of a host that runs a pod. It never mentions a cloud.

mod stream;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use jiff::Timestamp;

pub use stream::{ByteDuplex, ByteSink, StreamKind, Upgrade};

use crate::error::Result;
use crate::ids::{CellName, LaunchToken, NodeName, PodUid};
use crate::model::{PodManifest, RuntimeReport};
use crate::provider::UserData;

/// What a cell's identity is made from. Equal requests give equal user-data, byte for byte: a repeated launch must not differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRequest {
    /// The cell.
    pub cell: CellName,
    /// The virtual node it belongs to.
    pub node: NodeName,
    /// The pod it is for.
    pub pod: PodUid,
    /// The token of its launch.
    pub token: LaunchToken,
    /// When the launch was decided: the start of the identity's validity.
    pub issued_at: Timestamp,
}

/// Where a cell's host is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CellEndpoint {
    /// The cell: the name its certificate must have.
    pub cell: CellName,
    /// Its management address.
    pub address: IpAddr,
}

/// Which log lines are wanted, as `kubectl logs` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Name of the container.
    pub container: String,
    /// Keep going until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Put an RFC 3339 timestamp before each line.
    pub timestamps: bool,
    /// So many lines of the history; None is all, 0 is none.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// `All`, `Stdout` or `Stderr`; empty is `All`.
    pub stream: String,
}

/// Resource usage of a pod at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStats {
    /// When it was measured.
    pub at: Timestamp,
    /// By container.
    pub containers: Vec<ContainerStats>,
    /// Bytes received by the pod so far.
    pub network_rx_bytes: u64,
    /// Bytes sent by the pod so far.
    pub network_tx_bytes: u64,
}

/// Resource usage of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Name of the container.
    pub name: String,
    /// Cumulative CPU time in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub memory_working_set_bytes: u64,
    /// All memory in use, in bytes.
    pub memory_usage_bytes: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss_bytes: u64,
    /// Bytes written to the container's own layer.
    pub filesystem_used_bytes: u64,
    /// When the container started.
    pub started_at: Option<Timestamp>,
}

/// Hosts that run one pod each.
///
/// # Guarantees an implementer gives
/// Every call is safe to repeat. `deploy` of the same manifest twice runs the pod once. Calls may run concurrently.
///
/// # Cancellation
/// Dropping a future or a stream abandons the call and leaks nothing; the effect may have happened.
///
/// # Errors
/// `Unavailable` or `Timeout`: the host cannot be reached now. `Conflict`: the host already holds another pod.
#[async_trait]
pub trait PodRuntime: fmt::Debug + Send + Sync + 'static {
    /// What a new instance must be given so that its host comes up and can be trusted. Pure: equal requests, equal bytes.
    ///
    /// # Errors
    /// `InvalidRequest` and others when no identity can be made of the request. Whether it fits is the provider's to say: it may compress.
    fn user_data(&self, request: &BootRequest) -> Result<UserData>;

    /// Connects to a host and follows its reports: the whole report first, then the whole again after every change. Waits for the
    /// host to come up, at most `patience`. The stream ends or errs when the connection is lost; then call again.
    async fn watch(
        &self,
        cell: &CellEndpoint,
        patience: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>>;

    /// Tells the host to run this pod.
    async fn deploy(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()>;

    /// Replaces what may change in a running pod: file contents, labels, annotations. An older generation is ignored.
    async fn update(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()>;

    /// Begins graceful termination and returns at once; the end arrives on [`watch`](Self::watch) as `finished`.
    /// A later call may only shorten the grace period.
    async fn stop(&self, cell: &CellEndpoint, pod: &PodUid, grace: Duration, reason: &str) -> Result<()>;

    /// Log bytes of a container. `NotFound`: no such container or run. `InvalidRequest`: not started yet, with a text for the user.
    async fn logs(
        &self,
        cell: &CellEndpoint,
        pod: &PodUid,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>>;

    /// Opens an exec, attach or port-forward session as a raw HTTP connection to be upgraded: see [`Upgrade`].
    async fn open(&self, cell: &CellEndpoint, pod: &PodUid, kind: StreamKind) -> Result<Upgrade>;

    /// Resource usage now.
    async fn stats(&self, cell: &CellEndpoint, pod: &PodUid) -> Result<PodStats>;
}

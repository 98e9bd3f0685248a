//! Interactive sessions as raw bytes, so that SPDY, WebSocket, resize and exit codes are exactly what the host's runtime does.

use std::fmt;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::error::Result;

/// Which session is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamKind {
    /// A command in a container.
    Exec {
        /// Name of the container.
        container: String,
        /// The command and its arguments.
        command: Vec<String>,
        /// Connect stdin.
        stdin: bool,
        /// Connect stdout.
        stdout: bool,
        /// Connect stderr.
        stderr: bool,
        /// With a terminal.
        tty: bool,
    },
    /// The container's main process.
    Attach {
        /// Name of the container.
        container: String,
        /// Connect stdin.
        stdin: bool,
        /// Connect stdout.
        stdout: bool,
        /// Connect stderr.
        stderr: bool,
        /// With a terminal.
        tty: bool,
    },
    /// Connections to ports of the pod's loopback.
    PortForward {
        /// Ports, may be empty: SPDY clients name them on the stream.
        ports: Vec<u16>,
    },
}

/// A connection to the host's streaming server and the path to request on it. The caller sends the client's HTTP request with
/// its upgrade headers to that path, and relays bytes both ways after the `101`.
pub struct Upgrade {
    /// Path and query to request.
    pub path: String,
    /// The connection.
    pub io: ByteDuplex,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

/// A two-way byte stream, like a TCP connection. Dropping it closes both ways.
pub struct ByteDuplex {
    /// Bytes from the host. Its end is the host's half-close.
    pub from_host: BoxStream<'static, Result<Vec<u8>>>,
    /// Bytes to the host.
    pub to_host: Box<dyn ByteSink>,
}

impl fmt::Debug for ByteDuplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteDuplex").finish_non_exhaustive()
    }
}

/// Where bytes are sent. Waits when the other side is slow.
#[async_trait]
pub trait ByteSink: Send {
    /// Sends all of it.
    async fn send(&mut self, bytes: Vec<u8>) -> Result<()>;

    /// Half-close: no more bytes will be sent.
    async fn close(&mut self) -> Result<()>;
}

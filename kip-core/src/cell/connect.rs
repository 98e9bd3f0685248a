//! Dials an agent: TCP, TLS 1.3 with certificates on both sides, HTTP/2 that notices a dead peer.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::CellAuthority;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CellName;

/// How long one attempt to connect may take, TLS and HTTP/2 included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the TCP part of it may take. A host that is still booting drops packets, and TCP itself would repeat the first one only
/// after a second: attempts are short and many.
const TCP_TIMEOUT: Duration = Duration::from_millis(500);
/// With [`KEEP_ALIVE_TIMEOUT`]: how soon a dead cell is noticed on an idle connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A way to dial one agent.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    authority: Arc<CellAuthority>,
    cell: CellName,
    address: SocketAddr,
}

impl Dialer {
    pub(super) fn new(authority: Arc<CellAuthority>, cell: CellName, address: SocketAddr) -> Self {
        Self {
            authority,
            cell,
            address,
        }
    }

    /// Connects now. The connection is made again by itself when it breaks and a call needs it.
    pub(super) async fn connect(&self) -> Result<Channel> {
        let dialer = self.clone();
        self.endpoint()?
            .connect_with_connector(tower::service_fn(move |_: Uri| dial(dialer.clone())))
            .await
            .map_err(|source| {
                Error::new(kind_of(&source), "connect to cell", "cannot connect to the agent")
                    .with_context("cell", &self.cell)
                    .with_context("address", self.address)
                    .with_source(source)
            })
    }

    fn endpoint(&self) -> Result<Endpoint> {
        // The scheme is for tonic only, which would else insist on its own TLS: every byte goes through `dial`.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(|source| {
            Error::new(ErrorKind::Unexpected, "connect to cell", "not an address").with_source(source)
        })?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true))
    }
}

async fn dial(dialer: Dialer) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    // Read at each connection, so that the controller's certificate is never an old one.
    let config = dialer
        .authority
        .client_config(Timestamp::now())
        .map_err(io::Error::other)?;
    let name = ServerName::try_from(dialer.cell.to_string()).map_err(io::Error::other)?;
    let tcp = tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(dialer.address)).await??;
    tcp.set_nodelay(true)?;
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    Ok(TokioIo::new(tls))
}

/// Whether a connection failed because one side refused the other's identity, or for any other reason.
pub(super) fn kind_of(error: &(dyn StdError + 'static)) -> ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        // An `io::Error` answers for its inner error's source, not for the inner error itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(tls) = inner.or_else(|| error.downcast_ref()) {
            return match tls {
                rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_) => {
                    ErrorKind::Unauthenticated
                }
                _ => ErrorKind::Unavailable,
            };
        }
        next = error.source();
    }
    ErrorKind::Unavailable
}

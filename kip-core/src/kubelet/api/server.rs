//! Accepts connections: TLS, one task a connection, and an orderly end.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::access::{Gate, Identity, Reviewer};
use super::directory::PodDirectory;
use super::handler::{Handler, Metrics};
use super::stats::Sampler;
use crate::error::{Chain, Error, ErrorKind, Result};
use crate::ids::NodeName;
use crate::kubelet::config::{EndpointConfig, ServingCertificate};
use crate::runtime::PodRuntime;

const OPERATION: &str = "serve the kubelet endpoint";
/// Connections at once; a client beyond it waits in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Time for the TLS handshake, and for a request's headers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time that requests in flight have to end after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// The kubelet's HTTPS endpoint, bound and ready to run.
pub struct EndpointServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    handler: Arc<Handler>,
}

impl fmt::Debug for EndpointServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl EndpointServer {
    /// Binds the endpoint. Nothing is answered before [`run`](Self::run).
    ///
    /// # Errors
    /// `ConfigInvalid` when a certificate or key cannot be used, `AlreadyExists` when the port is taken, `Unavailable` when the address
    /// cannot be bound.
    pub async fn bind(
        config: &EndpointConfig,
        node: &NodeName,
        internal_ip: IpAddr,
        reviewer: Box<dyn Reviewer>,
        directory: Arc<dyn PodDirectory>,
        runtime: Arc<dyn PodRuntime>,
    ) -> Result<Self> {
        let tls = serving_config(config, node, internal_ip)?;
        let listener = TcpListener::bind(config.listen).await.map_err(|source| {
            let (kind, text) = match source.kind() {
                std::io::ErrorKind::AddrInUse => (
                    ErrorKind::AlreadyExists,
                    "the port is taken: stop what listens there, or choose another (0 takes a free one)",
                ),
                _ => (ErrorKind::Unavailable, "the address cannot be listened on"),
            };
            Error::new(kind, OPERATION, text)
                .with_context("listen", config.listen)
                .with_source(source)
        })?;
        let address = listener.local_addr().map_err(|source| {
            Error::new(ErrorKind::Unexpected, OPERATION, "no local address").with_source(source)
        })?;
        let handler = Handler {
            node: node.clone(),
            started: Timestamp::now(),
            gate: Gate::new(reviewer, node.clone(), config),
            directory,
            runtime,
            sampler: Sampler::default(),
            metrics: None,
        };
        Ok(Self {
            listener,
            address,
            tls: TlsAcceptor::from(Arc::new(tls)),
            handler: Arc::new(handler),
        })
    }

    /// Serves this text at `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let metrics: Metrics = Arc::new(metrics);
        if let Some(handler) = Arc::get_mut(&mut self.handler) {
            handler.metrics = Some(metrics);
        }
        self
    }

    /// The address it is bound to; with port 0 the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then gives requests in flight five seconds. Open sessions end with their clients' connections.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            // The semaphore is never closed, so a permit always comes.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let socket = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        // Out of file descriptors, most likely: others must end before one more can begin.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (tls, handler, watcher) = (self.tls.clone(), Arc::clone(&self.handler), graceful.watcher());
            tokio::spawn(async move {
                serve(socket, tls, handler, watcher).await;
                drop(slot);
            });
        }
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::debug!("requests were still in flight when the endpoint closed");
        }
    }
}

async fn serve(
    socket: TcpStream,
    tls: TlsAcceptor,
    handler: Arc<Handler>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let stream = match tokio::time::timeout(PATIENCE, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let identity = certificate
        .and_then(|leaf| Identity::of_certificate(leaf))
        .map(Arc::new);
    let service = service_fn(move |request| {
        let (handler, identity) = (Arc::clone(&handler), identity.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.answer(identity.as_deref(), request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %Chain::of(&*error), "a connection broke");
    }
}

/// The TLS settings the endpoint serves with: HTTP/1.1 only, client certificates asked for when there is a client CA, never required, because
/// bearer tokens are taken too.
///
/// # Errors
/// `ConfigInvalid` when a certificate or key cannot be used.
pub fn serving_config(config: &EndpointConfig, node: &NodeName, internal_ip: IpAddr) -> Result<ServerConfig> {
    let invalid = |what: &'static str, source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::ConfigInvalid, OPERATION, what).with_source(source)
    };
    let (certificate, key) = match &config.certificate {
        ServingCertificate::Given { certificate, key } => (certificate.clone(), key.clone()),
        ServingCertificate::SelfSigned => issue(None, node, internal_ip)
            .map_err(|source| invalid("a self-signed certificate could not be made", source.into()))?,
        ServingCertificate::SignedBy {
            ca_certificate,
            ca_key,
        } => issue(Some((ca_certificate, ca_key)), node, internal_ip)
            .map_err(|source| invalid("the certificate authority could not sign", source.into()))?,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| invalid("the serving certificate is not PEM", source.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|source| invalid("the serving key is not a PEM private key", source.into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| invalid("TLS 1.2 and 1.3 are not available", source.into()))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let authority =
                    authority.map_err(|source| invalid("the client CA is not PEM", source.into()))?;
                roots
                    .add(authority)
                    .map_err(|source| invalid("the client CA cannot be used", source.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|source| invalid("the client CA cannot be used", source.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(|source| {
        invalid(
            "the serving certificate and key do not fit together",
            source.into(),
        )
    })?;
    // An upgrade does not exist in HTTP/2.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Makes the endpoint's certificate: `CN=system:node:<name>`, which API servers may check.
fn issue(
    authority: Option<(&str, &str)>,
    node: &NodeName,
    internal_ip: IpAddr,
) -> Result<(String, String), rcgen::Error> {
    let names = [
        node.to_string(),
        internal_ip.to_string(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name = subject;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = match authority {
        None => params.self_signed(&key)?,
        Some((ca_certificate, ca_key)) => {
            let issuer = Issuer::from_ca_cert_pem(ca_certificate, KeyPair::from_pem(ca_key)?)?;
            params.signed_by(&key, &issuer)?
        }
    };
    Ok((certificate.pem(), key.serialize_pem()))
}

//! Accepts connections from whoever the cell's authority signed a client certificate for, and nobody else.

use std::sync::Arc;
use std::time::Duration;

use kip_cell_api::BootConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// A peer that does not finish its handshake in this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once: a flood of connections costs no more memory than this many.
const HANDSHAKES: usize = 64;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM text holds no usable block.
    #[error("{field} of the boot configuration holds no usable PEM block")]
    Pem {
        /// Which field.
        field: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not belong to the certificate, or the authority is no certificate.
    #[error("the certificates of the boot configuration do not fit together")]
    Config(#[source] rustls::Error),
    /// The authority cannot verify anyone.
    #[error("caPem of the boot configuration is no usable authority")]
    Authority(#[source] rustls::server::VerifierBuilderError),
}

/// TLS 1.3 only, client certificates required, HTTP/2 only.
pub(crate) fn server_config(config: &BootConfig) -> Result<rustls::ServerConfig, TlsError> {
    let pem = |field| move |source| TlsError::Pem { field, source };
    let certificates = |field, text: &str| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match all {
            Ok(all) if all.is_empty() => Err(TlsError::Pem {
                field,
                source: rustls::pki_types::pem::Error::NoItemsFound,
            }),
            other => other.map_err(pem(field)),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("caPem", &config.ca_pem)? {
        roots.add(authority).map_err(TlsError::Config)?;
    }
    let chain = certificates("certificatePem", &config.certificate_pem)?;
    let key =
        PrivateKeyDer::from_pem_slice(config.private_key_pem.as_bytes()).map_err(pem("privateKeyPem"))?;
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let clients = clients.build().map_err(TlsError::Authority)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(TlsError::Config)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// Connections whose handshake succeeded. Ends when dropped.
pub(crate) fn incoming(
    listener: TcpListener,
    config: rustls::ServerConfig,
) -> ReceiverStream<std::io::Result<TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, receiver) = mpsc::channel(HANDSHAKES);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            // The semaphore is never closed, so a place always comes.
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would only spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "small writes to this peer may be delayed");
                }
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    // A server that shuts down takes no more connections.
                    Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                    Ok(Err(error)) => tracing::warn!(%peer, %error, "a connection was refused"),
                    Err(_) => tracing::warn!(%peer, "a connection did not finish its handshake"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

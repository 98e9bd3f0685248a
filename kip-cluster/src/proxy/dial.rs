//! Open TLS connections to kubelets, as the user whose requests they trust.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::api::BoxError;
use crate::auth::Authority;
use crate::error::Error;

/// How long a kubelet may take to answer a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// Which serving certificates of kubelets are believed.
#[derive(Debug, Clone)]
pub(crate) enum KubeletTrust {
    /// Any: what kube-apiserver does unless it is given `--kubelet-certificate-authority`.
    Any,
    /// Those signed by one of these authorities.
    Roots(RootCertStore),
}

/// Connects to kubelets.
pub(crate) struct Dialer {
    connector: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    pub(crate) fn new(authority: &Authority, trust: KubeletTrust) -> Result<Self, Error> {
        let failed = |source: rustls::Error| Error::Certificate {
            what: "TLS configuration towards kubelets".to_owned(),
            source: Box::new(source),
        };
        let pair = authority.client("kube-apiserver-kubelet-client", &["system:masters"])?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = match trust {
            KubeletTrust::Roots(roots) => builder.with_root_certificates(roots),
            KubeletTrust::Any => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let mut config = builder
            .with_client_auth_cert(vec![pair.certificate.clone()], pair.key())
            .map_err(failed)?;
        // Upgrades do not exist in HTTP/2.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(crate) async fn dial(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, BoxError> {
        let name = ServerName::try_from(host.to_owned())?;
        let connect = async {
            let stream = TcpStream::connect((host, port))
                .await
                .map_err(|error| format!("dial tcp {host}:{port}: {error}"))?;
            stream.set_nodelay(true)?;
            let stream = self.connector.connect(name, stream).await?;
            Ok::<_, BoxError>(stream)
        };
        tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| format!("dial tcp {host}:{port}: i/o timeout"))?
    }
}

/// Believes every certificate; the signatures of the handshake are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

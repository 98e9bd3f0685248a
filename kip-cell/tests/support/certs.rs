//! An authority, and certificates of both sides.

use std::sync::Arc;

use kip_cell_api::v1::cell_client::CellClient;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Channel;

/// The authority.
pub(crate) struct Certs {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certs {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("key");
        Self {
            authority: CertifiedIssuer::self_signed(params, key).expect("authority"),
        }
    }

    pub(crate) fn authority(&self) -> String {
        self.authority.pem()
    }

    fn signed(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.authority).expect("certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Certificate and key for a server.
    pub(crate) fn server(&self, name: &str) -> (String, String) {
        self.signed(name, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client that trusts this authority and shows a certificate of `identity`'s authority.
    pub(crate) fn client_as(&self, address: &str, identity: &Self, tls12: bool) -> CellClient<Channel> {
        let (certificate, key) = identity.signed("controller", ExtendedKeyUsagePurpose::ClientAuth);
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority().as_bytes()).expect("pem"))
            .expect("root");
        let versions = if tls12 {
            [&rustls::version::TLS12]
        } else {
            [&rustls::version::TLS13]
        };
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("pem")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("pem"),
            )
            .expect("identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        CellClient::new(super::channel(
            address,
            tokio_rustls::TlsConnector::from(Arc::new(config)),
        ))
    }

    /// A client as the controller would be.
    pub(crate) fn client(&self, address: &str) -> CellClient<Channel> {
        self.client_as(address, self, false)
    }
}

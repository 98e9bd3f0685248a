//! The cluster's certificate authority: the serving certificate, client certificates, and who a client certificate is.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::User;
use crate::error::Error;

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    key_der: Vec<u8>,
}

impl Pair {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()))
    }
}

/// Signs everything the cluster's API serves with and trusts.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn failed(what: &str) -> impl Fn(rcgen::Error) -> Error + '_ {
    move |source| Error::Certificate {
        what: what.to_owned(),
        source: Box::new(source),
    }
}

impl Authority {
    pub(crate) fn new() -> Result<Self, Error> {
        let what = "certificate authority";
        let key = KeyPair::generate().map_err(failed(what))?;
        let mut params = CertificateParams::new(Vec::new()).map_err(failed(what))?;
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed(what))?;
        Ok(Self { issuer })
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn issue(
        &self,
        what: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair, Error> {
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(failed(what))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(what))?;
        Ok(Pair {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        })
    }

    /// A certificate for the API's own address and the names clients may know it by.
    pub(crate) fn serving(&self, address: IpAddr, names: &[String]) -> Result<Pair, Error> {
        let what = "serving certificate";
        let mut all = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            "kubernetes.default.svc.cluster.local".to_owned(),
        ];
        all.push(address.to_string());
        all.extend(names.iter().cloned());
        all.sort();
        all.dedup();
        let mut params = CertificateParams::new(all).map_err(failed(what))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        self.issue(what, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: the user is the common name, the groups are the organizations.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<Pair, Error> {
        let what = "client certificate";
        let mut params = CertificateParams::new(Vec::new()).map_err(failed(what))?;
        params.distinguished_name.push(DnType::CommonName, user);
        // rcgen keeps one value of a type; the numeric spelling of the same type gives room for a second group.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > kinds.len() {
            return Err(Error::TooManyGroups { count: groups.len() });
        }
        for (kind, group) in kinds.into_iter().zip(groups) {
            params.distinguished_name.push(kind, *group);
        }
        self.issue(what, params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.issuer.der().clone())
            .map_err(|source| Error::Certificate {
                what: "list of trusted authorities".to_owned(),
                source: Box::new(source),
            })?;
        Ok(roots)
    }
}

/// TLS for the API: client certificates are asked for, checked if sent, and not required.
pub(crate) fn serving_config(authority: &Authority, pair: &Pair) -> Result<ServerConfig, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Certificate {
        what: "TLS configuration".to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()?), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| failed(Box::new(error)))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(Box::new(error)))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pair.certificate.clone()], pair.key())
        .map_err(|error| failed(Box::new(error)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The user a (verified) client certificate stands for.
pub(crate) fn user_of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(User::new(name, &groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, a client certificate logs in as nobody or as somebody else.
    #[test]
    fn a_client_certificate_names_user_and_groups() {
        let authority = Authority::new().unwrap();
        let pair = authority.client("alice", &["dev", "ops"]).unwrap();
        let user = user_of_certificate(&pair.certificate).unwrap();
        assert_eq!(user.name, "alice");
        let mut groups = user.groups;
        groups.sort();
        assert_eq!(groups, ["dev", "ops", "system:authenticated"]);
        assert!(authority.client("a", &["1", "2", "3"]).is_err());
    }
}

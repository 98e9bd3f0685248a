//! The authority that gives cells and controllers their certificates, and refuses everybody else.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hmac_sha256::HKDF;
use jiff::Timestamp;
use kip_cell_api::{BOOT_CONFIG_VERSION, BootConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::user_data::{self, BootOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::UserData;
use crate::runtime::BootRequest;

/// How long the authority's own certificate is valid.
const AUTHORITY_DAYS: u64 = 3650;
/// How long a cell's certificate is valid: longer than any pod is expected to run on one instance.
const CELL_DAYS: u64 = 1825;
/// How long a controller's certificate is valid; it is replaced in memory at half of that.
const CONTROLLER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How far a peer's clock may be behind.
const SKEW: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What comes before the 32-byte seed in a PKCS#8 version 1 Ed25519 key (RFC 8410, section 7).
const ED25519_PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The certificate authority of one Kip installation.
///
/// Everything a cell is given is a pure function of the authority's key and the [`BootRequest`]: the cell's key is derived with
/// HKDF-SHA256 from the authority's key and the launch token, and Ed25519 signatures are deterministic. So a launch that is
/// repeated, even by another controller with the same authority, sends the same bytes.
///
/// `Debug` prints no key.
pub struct CellAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    /// Input of the derivation of cell keys.
    secret: [u8; 32],
    client: Mutex<Option<Client>>,
}

/// The controller's current identity, ready to dial with.
struct Client {
    config: Arc<ClientConfig>,
    replace_at: Timestamp,
}

impl fmt::Debug for CellAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellAuthority").finish_non_exhaustive()
    }
}

fn failed(operation: &'static str, message: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::new(ErrorKind::Unexpected, operation, message).with_source(source)
}

impl CellAuthority {
    /// Makes a new authority with a random key, valid for ten years from `now`. `name` is the certificate's common name, such as
    /// the name of the node.
    ///
    /// # Errors
    /// `Unexpected` when the system has no randomness.
    pub fn generate(name: &str, now: Timestamp) -> Result<Self> {
        const OP: &str = "make cell authority";
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed(OP, "cannot generate a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("kip cell authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = time(now, -SKEW.as_secs().cast_signed())?.into();
        params.not_after = time(now, (DAY * days(AUTHORITY_DAYS)).as_secs().cast_signed())?.into();
        let certificate = params
            .self_signed(&key)
            .map_err(failed(OP, "cannot sign its certificate"))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Loads an authority from its certificate and its PKCS#8 private key, as [`certificate_pem`](Self::certificate_pem) and
    /// [`private_key_pem`](Self::private_key_pem) gave them.
    ///
    /// # Errors
    /// `ConfigInvalid` when one cannot be read, the key is not Ed25519, or the two do not belong together.
    pub fn from_pem(certificate_pem: &str, private_key_pem: &str) -> Result<Self> {
        const OP: &str = "load cell authority";
        let invalid = |message: &str| Error::new(ErrorKind::ConfigInvalid, OP, message);
        // The sources of these errors are left out on purpose: they may quote the key.
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(private_key_pem, &PKCS_ED25519)
            .map_err(|_| invalid("the private key is not an Ed25519 key in PKCS#8 PEM"))?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|source| invalid("the certificate is not PEM").with_source(source))?
            .into_owned();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|source| invalid("the certificate cannot be parsed").with_source(source))?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(invalid("the private key does not belong to the certificate"));
        }
        if !parsed.is_ca() {
            return Err(invalid("the certificate is not a certificate authority's"));
        }
        let secret = HKDF::extract(b"kip cell authority v1", key.serialized_der());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| invalid("the certificate cannot issue others").with_source(source))?;
        Ok(Self {
            issuer,
            certificate_pem: certificate_pem.to_owned(),
            certificate,
            secret,
            client: Mutex::new(None),
        })
    }

    /// The authority's certificate, for whoever must trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key. Whoever has it can be any cell and any controller: keep it in a Secret or a file of mode 0600.
    pub fn private_key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The user-data of a cell: the agent's boot configuration, and what the options add.
    pub(crate) fn user_data(&self, request: &BootRequest, options: &BootOptions) -> Result<UserData> {
        let (certificate_pem, private_key_pem) = self.cell_identity(request)?;
        let config = BootConfig {
            version: BOOT_CONFIG_VERSION,
            cell: request.cell.to_string(),
            node: request.node.to_string(),
            pod_uid: request.pod.to_string(),
            ca_pem: self.certificate_pem.clone(),
            certificate_pem,
            private_key_pem,
            metadata: options.metadata.clone(),
            ..boot_defaults()?
        };
        user_data::user_data(&config, options)
    }

    /// Certificate and private key of a cell, as PEM. Pure: equal requests, equal bytes.
    fn cell_identity(&self, request: &BootRequest) -> Result<(String, String)> {
        const OP: &str = "make cell identity";
        let derive = |purpose: &str, out: &mut [u8]| {
            // The token is a hash over all that identifies the launch; the name is in the certificate anyway.
            let info = format!("{purpose}\0{}\0{}", request.token, request.cell);
            HKDF::expand(out, self.secret, info);
        };
        let mut pkcs8 = [0_u8; 48];
        pkcs8[..16].copy_from_slice(&ED25519_PKCS8_PREFIX);
        derive("cell key", &mut pkcs8[16..]);
        let key = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)
            .map_err(failed(OP, "cannot use the derived key"))?;
        let mut serial = [0_u8; 16];
        derive("serial", &mut serial);
        // Positive and without leading zeros, as RFC 5280 asks.
        serial[0] = (serial[0] & 0x7f) | 0x40;

        let mut params = CertificateParams::new([request.cell.to_string()])
            .map_err(failed(OP, "the cell's name is not a DNS name"))?;
        params.distinguished_name = common_name(request.cell.as_str());
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Server only: a stolen cell key opens no other cell.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = time(request.issued_at, -SKEW.as_secs().cast_signed())?.into();
        params.not_after = time(request.issued_at, (DAY * days(CELL_DAYS)).as_secs().cast_signed())?.into();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed(OP, "cannot sign the certificate"))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// How the controller dials: with a certificate of its own that is replaced in memory at half its life.
    pub(super) fn client_config(&self, now: Timestamp) -> Result<Arc<ClientConfig>> {
        // What is stored is replaced as a whole, so a panic elsewhere does not spoil it.
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*current
            && now < client.replace_at
        {
            return Ok(Arc::clone(&client.config));
        }
        let config = Arc::new(self.new_client(now)?);
        let half = jiff::SignedDuration::try_from(CONTROLLER_LIFE / 2).unwrap_or_default();
        *current = Some(Client {
            config: Arc::clone(&config),
            replace_at: now.saturating_add(half).unwrap_or(now),
        });
        Ok(config)
    }

    fn new_client(&self, now: Timestamp) -> Result<ClientConfig> {
        const OP: &str = "make controller identity";
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed(OP, "cannot generate a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("kip-controller");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = time(now, -SKEW.as_secs().cast_signed())?.into();
        params.not_after = time(now, CONTROLLER_LIFE.as_secs().cast_signed())?.into();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed(OP, "cannot sign the certificate"))?;

        let tls = |message: &'static str| {
            move |source: rustls::Error| Error::new(ErrorKind::Unexpected, OP, message).with_source(source)
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(tls("cannot trust the authority's certificate"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(tls("TLS 1.3 is not available"))?
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .map_err(tls("cannot use the controller's certificate"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The boot configuration's own defaults, so that they are written down in one place.
fn boot_defaults() -> Result<BootConfig> {
    serde_json::from_value(serde_json::json!({
        "version": BOOT_CONFIG_VERSION,
        "cell": "", "node": "", "podUid": "", "caPem": "", "certificatePem": "", "privateKeyPem": "",
    }))
    .map_err(|source| {
        Error::new(
            ErrorKind::Unexpected,
            "make user-data",
            "the boot configuration has no defaults",
        )
        .with_source(source)
    })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn days(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A moment as certificates know it: whole seconds, `offset` seconds away.
fn time(at: Timestamp, offset: i64) -> Result<SystemTime> {
    u64::try_from(at.as_second().saturating_add(offset))
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "make certificate",
                "the time is before 1970: set the machine's clock",
            )
            .with_context("time", at)
        })
}

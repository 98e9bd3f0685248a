//! For the certificates of a test control plane: one CA, made by openssl, thrown away with the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{cmd, read};

/// A certificate authority in a folder.
#[derive(Debug)]
pub(crate) struct Authority {
    folder: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let authority = Self {
            folder: folder.to_owned(),
        };
        let mut openssl = cmd(
            "openssl",
            [
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "30",
            ],
        );
        openssl.args([
            "-subj",
            "/CN=kip-test-ca",
            "-addext",
            "keyUsage=critical,digitalSignature,keyCertSign",
        ]);
        openssl
            .arg("-keyout")
            .arg(authority.key())
            .arg("-out")
            .arg(authority.cert());
        read(&mut openssl).context("cannot make a CA")?;
        Ok(authority)
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// `names` are subject alternative names in openssl's form (`DNS:localhost,IP:127.0.0.1`).
    pub(crate) fn server(&self, name: &str, names: &str) -> Result<Identity> {
        self.issue(
            name,
            &format!("/CN={name}"),
            &format!("extendedKeyUsage=serverAuth\nsubjectAltName={names}\n"),
        )
    }

    /// A client: Kubernetes takes the user from CN and the group from O.
    pub(crate) fn client(&self, name: &str, user: &str, group: Option<&str>) -> Result<Identity> {
        let subject = group.map_or_else(|| format!("/CN={user}"), |group| format!("/O={group}/CN={user}"));
        self.issue(name, &subject, "extendedKeyUsage=clientAuth\n")
    }

    /// A key that signs service-account tokens.
    pub(crate) fn signing_key(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}.key"));
        let mut openssl = cmd(
            "openssl",
            [
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ],
        );
        read(openssl.arg("-out").arg(&path)).context("cannot make a signing key")?;
        Ok(path)
    }

    fn issue(&self, name: &str, subject: &str, extensions: &str) -> Result<Identity> {
        let identity = Identity {
            cert: self.folder.join(format!("{name}.crt")),
            key: self.signing_key(name)?,
        };
        let request = self.folder.join(format!("{name}.csr"));
        let file = self.folder.join(format!("{name}.ext"));
        std::fs::write(&file, format!("keyUsage=critical,digitalSignature\n{extensions}"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut ask = cmd("openssl", ["req", "-new", "-subj", subject, "-key"]);
        read(ask.arg(&identity.key).arg("-out").arg(&request))
            .with_context(|| format!("no request for {name}"))?;
        let mut sign = cmd("openssl", ["x509", "-req", "-days", "30", "-in"]);
        sign.arg(&request)
            .arg("-CA")
            .arg(self.cert())
            .arg("-CAkey")
            .arg(self.key())
            .arg("-CAcreateserial");
        sign.arg("-CAserial")
            .arg(self.folder.join("ca.srl"))
            .arg("-extfile")
            .arg(&file)
            .arg("-out")
            .arg(&identity.cert);
        read(&mut sign).with_context(|| format!("no certificate for {name}"))?;
        Ok(identity)
    }
}

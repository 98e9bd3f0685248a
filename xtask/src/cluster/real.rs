//! For running the real control plane on loopback: authorizers Node and RBAC, admission as in any cluster.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;

use super::pki::{Authority, Identity};
use super::{Cluster, Kind, free_port, kubeconfig};
use crate::command::{cmd, outcome, read};
use crate::daemon::{Daemon, tail, wait_until};
use crate::{control_plane, ui};

const READY: Duration = Duration::from_secs(90);

/// Starts the four programs with data, certificates and logs in `folder`, and waits until each is healthy.
pub(super) fn start(folder: &Path) -> Result<Cluster> {
    let programs = control_plane::provide()?;
    let begin = Instant::now();
    let launcher = Launcher {
        programs,
        folder: folder.to_owned(),
        pki: Authority::create(&folder.join("pki"))?,
    };
    let admin = launcher
        .pki
        .client("admin", "kip-test-admin", Some("system:masters"))?;
    let mut daemons = Vec::new();
    let etcd = launcher.etcd(&mut daemons)?;
    let port = free_port()?;
    let server = format!("https://127.0.0.1:{port}");
    launcher.apiserver(&mut daemons, &etcd, port, &admin)?;
    let kubeconfig = launcher.kubeconfig(&server, "admin", &admin)?;
    launcher.controllers(&mut daemons, &server, &admin)?;
    ui::ok(&format!(
        "control plane {} at {server} ({})",
        control_plane::KUBERNETES,
        ui::duration(begin.elapsed())
    ));
    Ok(Cluster {
        kind: Kind::Real,
        kubeconfig,
        server,
        ca_file: launcher.pki.cert(),
        daemons,
    })
}

struct Launcher {
    programs: PathBuf,
    folder: PathBuf,
    pki: Authority,
}

impl Launcher {
    fn daemon(&self, program: &str, args: &[String]) -> Result<Daemon> {
        let command = cmd(self.programs.join(program), args);
        // SIGKILL: nothing of a test control plane is worth a tidy end once its owner is dead.
        Daemon::start(
            program,
            &command,
            &self.folder.join(format!("{program}.log")),
            Signal::SIGKILL,
        )
    }

    fn etcd(&self, daemons: &mut Vec<Daemon>) -> Result<String> {
        let client = format!("http://127.0.0.1:{}", free_port()?);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let mut etcd = self.daemon(
            "etcd",
            &[
                format!("--data-dir={}", self.folder.join("etcd").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // The data is thrown away with the run.
                "--unsafe-no-fsync=true".into(),
            ],
        )?;
        wait_healthy(&mut etcd, &format!("{client}/health"), None, None)?;
        daemons.push(etcd);
        Ok(client)
    }

    fn apiserver(&self, daemons: &mut Vec<Daemon>, etcd: &str, port: u16, admin: &Identity) -> Result<()> {
        let tls = self.pki.server(
            "kube-apiserver",
            "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc",
        )?;
        let kubelet = self.pki.client(
            "kubelet-client",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
        )?;
        let signing = self.pki.signing_key("service-account")?;
        let public = self.folder.join("pki/service-account.pub");
        let mut openssl = cmd("openssl", ["pkey", "-pubout", "-in"]);
        read(openssl.arg(&signing).arg("-out").arg(&public)).context("cannot derive a public key")?;
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let mut apiserver = self.daemon(
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={port}"),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction,ServiceAccount".into(),
                "--allow-privileged=true".into(),
                "--endpoint-reconciler-type=none".into(),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                "--kubelet-preferred-address-types=InternalIP".into(),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                file("service-account-key-file", &public),
                file("service-account-signing-key-file", &signing),
                file("client-ca-file", &self.pki.cert()),
                file("tls-cert-file", &tls.cert),
                file("tls-private-key-file", &tls.key),
                file("kubelet-client-certificate", &kubelet.cert),
                file("kubelet-client-key", &kubelet.key),
            ],
        )?;
        wait_healthy(
            &mut apiserver,
            &format!("https://127.0.0.1:{port}/readyz"),
            Some(admin),
            Some(&self.pki.cert()),
        )?;
        daemons.push(apiserver);
        Ok(())
    }

    fn controllers(&self, daemons: &mut Vec<Daemon>, server: &str, admin: &Identity) -> Result<()> {
        let mut started = Vec::new();
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let identity = self.pki.client(name, &format!("system:{name}"), None)?;
            let config = self.kubeconfig(server, name, &identity)?.display().to_string();
            let tls = self
                .pki
                .server(&format!("{name}-serving"), "IP:127.0.0.1,DNS:localhost")?;
            let port = free_port()?;
            let mut args = vec![
                format!("--kubeconfig={config}"),
                format!("--authentication-kubeconfig={config}"),
                format!("--authorization-kubeconfig={config}"),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", tls.cert.display()),
                format!("--tls-private-key-file={}", tls.key.display()),
            ];
            if name == "kube-controller-manager" {
                args.extend([
                    "--use-service-account-credentials=true".into(),
                    format!("--root-ca-file={}", self.pki.cert().display()),
                    format!(
                        "--service-account-private-key-file={}",
                        self.folder.join("pki/service-account.key").display()
                    ),
                ]);
            }
            started.push((
                self.daemon(name, &args)?,
                format!("https://127.0.0.1:{port}/healthz"),
            ));
        }
        for (mut daemon, url) in started {
            wait_healthy(&mut daemon, &url, Some(admin), Some(&self.pki.cert()))?;
            daemons.push(daemon);
        }
        Ok(())
    }

    fn kubeconfig(&self, server: &str, name: &str, identity: &Identity) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let user = json!({"client-certificate": identity.cert, "client-key": identity.key});
        std::fs::write(&path, kubeconfig(server, &self.pki.cert(), user))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn wait_healthy(daemon: &mut Daemon, url: &str, client: Option<&Identity>, ca: Option<&Path>) -> Result<()> {
    let healthy = wait_until(&format!("{url} to answer 200"), READY, || {
        daemon.check_alive()?;
        let mut curl = cmd(
            "curl",
            ["--silent", "--fail", "--max-time", "5", "--output", "/dev/null"],
        );
        if let Some(identity) = client {
            curl.arg("--cert")
                .arg(&identity.cert)
                .arg("--key")
                .arg(&identity.key);
        }
        if let Some(ca) = ca {
            curl.arg("--cacert").arg(ca);
        }
        Ok(outcome(curl.arg(url))?.status.success().then_some(()))
    });
    // A program that ended has its last words in the error already.
    let alive = daemon.check_alive().is_ok();
    healthy.map_err(|error| match alive {
        true => error.context(format!(
            "the end of {}:\n{}",
            daemon.log().display(),
            tail(daemon.log(), 20)
        )),
        false => error,
    })
}

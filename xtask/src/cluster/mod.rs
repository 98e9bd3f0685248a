//! For a Kubernetes API to test against, real or in-process, started for one run and gone with it.

mod embedded;
mod pki;
mod real;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use crate::build::Scope;
use crate::daemon::Daemon;

/// Which Kubernetes API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
    Real,
    /// The in-process API of kip-cluster.
    Embedded,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Embedded => "embedded",
        })
    }
}

/// A running control plane. Dropping it ends its processes, the last started first.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) kind: Kind,
    /// Credentials of an administrator.
    pub(crate) kubeconfig: PathBuf,
    /// Whose address and CA a kubeconfig for another identity needs.
    pub(crate) server: String,
    pub(crate) ca_file: PathBuf,
    daemons: Vec<Daemon>,
}

impl Cluster {
    /// Starts a control plane with its data and logs in `folder` and waits until it serves.
    pub(crate) fn start(kind: Kind, folder: &Path, kubectl: &Path, scope: Scope) -> Result<Self> {
        match kind {
            Kind::Real => real::start(folder),
            Kind::Embedded => embedded::start(folder, kubectl, scope),
        }
    }

    /// Fails with the end of its log when a part has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::check_alive)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        while let Some(daemon) = self.daemons.pop() {
            drop(daemon);
        }
    }
}

/// A kubeconfig as JSON (which is YAML as well) for one user of one cluster.
pub(crate) fn kubeconfig(server: &str, ca_file: &Path, user: serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kip", "cluster": {"server": server, "certificate-authority": ca_file}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "kip", "context": {"cluster": "kip", "user": "user"}}],
        "current-context": "kip",
    })
    .to_string()
}

/// A free port on loopback. Another process may take it before it is used; two runs at once draw different ones.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

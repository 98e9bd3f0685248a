//! For everything a case stands on: a control plane, its client, a namespace of its own.

use anyhow::{Context, Result};
use serde_json::json;

use super::Case;
use super::client::Api;
use crate::cluster::{Cluster, Kind};
use crate::setup::Machine;

/// Dropping it ends what was started.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) cluster: Cluster,
    pub(crate) machine: Machine,
    /// How many namespaces there were, for the next one's name.
    namespaces: usize,
    // Last: removed when nothing writes into it any more.
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn start(kind: Kind, machine: Machine) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kip-e2e-").tempdir().context("cannot make a folder")?;
        let cluster = Cluster::start(kind, folder.path(), &machine.kubectl)?;
        let api = Api::from_kubeconfig(&cluster.kubeconfig, &machine.kubectl, folder.path())?;
        Ok(Self { api, cluster, machine, namespaces: 0, folder })
    }

    pub(super) fn case(&mut self, case: &Case) -> Result<()> {
        self.cluster.check_alive()?;
        (case.run)(self)
    }

    /// A fresh namespace, ready for pods.
    pub(crate) fn namespace(&mut self) -> Result<String> {
        self.namespaces += 1;
        let name = format!("e2e-{}", self.namespaces);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.api.post("/api/v1/namespaces", &namespace)?.ok()?;
        // A real controller makes this account a moment later, and no pod is admitted before.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let made = self.api.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account)?;
        if made.code != 409 {
            made.ok()?;
        }
        Ok(name)
    }
}

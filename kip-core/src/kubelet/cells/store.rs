//! The store of cell records over `Cell` objects, with compare-and-swap by resource version.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::definition::not_served;
use super::resource::{Cell, FINALIZER, NODE_LABEL, label_value, object, record};
use crate::driver::{CellStore, StoredCell};
use crate::error::{Chain, Error, Result};
use crate::ids::{CellName, NodeName};
use crate::kubelet::client::Client;
use crate::kubelet::errors::{api_error, is_missing};
use crate::model::{CellPhase, CellRecord};

/// Cells listed in one request.
const PAGE: u32 = 500;

/// Addresses pods got with their cells, for manifests.
#[derive(Debug, Default)]
pub(crate) struct CellAddresses {
    pod_ips: Mutex<HashMap<CellName, IpAddr>>,
}

impl CellAddresses {
    /// The pod's address on this cell, when the cloud assigned one.
    pub(crate) fn pod_ip(&self, cell: &CellName) -> Option<IpAddr> {
        self.locked().get(cell).copied()
    }

    fn learn(&self, record: &CellRecord) {
        if let Some(ip) = record.addresses.pod {
            self.locked().insert(record.host(), ip);
        }
    }

    fn forget(&self, cell: &CellName) {
        self.locked().remove(cell);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<CellName, IpAddr>> {
        // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
        self.pod_ips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps cell records as `Cell` objects. The definition must be installed: [`install`](super::install).
#[derive(Debug)]
pub struct KubeCellStore {
    client: Client,
    node: NodeName,
    addresses: Arc<CellAddresses>,
}

impl KubeCellStore {
    /// The records of this node.
    pub fn new(client: kube::Client, node: NodeName) -> Self {
        Self::with_addresses(client.into(), node, Arc::default())
    }

    pub(crate) fn with_addresses(client: Client, node: NodeName, addresses: Arc<CellAddresses>) -> Self {
        Self {
            client,
            node,
            addresses,
        }
    }

    fn api(&self) -> Api<Cell> {
        Api::all(self.client.get())
    }

    fn keep(&self, cell: &Cell) -> Result<CellRecord> {
        let record = record(cell)?;
        self.addresses.learn(&record);
        Ok(record)
    }
}

fn failed(operation: &'static str, name: &CellName) -> impl Fn(kube::Error) -> Error {
    move |error| api_error(operation, error).with_context("cell", name)
}

#[async_trait]
impl CellStore for KubeCellStore {
    async fn create(&self, new: &CellRecord) -> Result<CellRecord> {
        // The API drops the status of a new object; all of an intent is in the spec.
        let created = self
            .api()
            .create(&PostParams::default(), &object(new))
            .await
            .map_err(|error| not_served(failed("create cell", &new.name)(error)))?;
        self.keep(&created)
    }

    async fn update(&self, changed: &CellRecord) -> Result<CellRecord> {
        let mut cell = object(changed);
        cell.metadata.resource_version = Some(changed.version.clone());
        let (api, name, params) = (self.api(), changed.name.as_str(), PostParams::default());
        // The next attempt is the one change of the spec; its status is that of an attempt before, which counts for nothing.
        let is_new_attempt = changed.phase == CellPhase::Launching && changed.instance.is_none();
        let updated = if is_new_attempt {
            api.replace(name, &params, &cell).await
        } else {
            api.replace_status(name, &params, &cell).await
        };
        let updated = updated.map_err(failed("update cell", &changed.name))?;
        self.keep(&updated)
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        let api = self.api();
        let failed = failed("remove cell", name);
        let Some(cell) = api.get_opt(name.as_str()).await.map_err(&failed)? else {
            self.addresses.forget(name);
            return Ok(());
        };
        // Against the version the caller knows: who began another attempt in this record meanwhile keeps it.
        let mut newest = version.to_owned();
        let mut finalizers = cell.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            let patch = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": version } });
            let params = PatchParams::default();
            match api.patch(name.as_str(), &params, &Patch::Merge(&patch)).await {
                Ok(patched) => newest = patched.metadata.resource_version.unwrap_or_default(),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        // An object that was being deleted went with its last finalizer.
        if cell.metadata.deletion_timestamp.is_none() {
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: cell.metadata.uid.clone(),
                resource_version: Some(newest),
            });
            match api.delete(name.as_str(), &params).await {
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.addresses.forget(name);
        Ok(())
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        let cell = self.api().get_opt(name.as_str()).await;
        let cell = cell.map_err(|error| not_served(failed("read cell", name)(error)))?;
        cell.map(|cell| self.keep(&cell).map(StoredCell::judge))
            .transpose()
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        let selector = format!("{NODE_LABEL}={}", label_value(&self.node));
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        let mut records = Vec::new();
        loop {
            let page = self
                .api()
                .list(&params)
                .await
                .map_err(|error| not_served(api_error("list cells", error)))?;
            for cell in &page.items {
                match self.keep(cell) {
                    Ok(record) if record.node == self.node => records.push(StoredCell::judge(record)),
                    Ok(_) => {}
                    // One object somebody broke must not hide all others.
                    Err(error) => tracing::error!(error = %Chain::of(&error), "a Cell object cannot be used"),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(records),
            }
        }
    }
}

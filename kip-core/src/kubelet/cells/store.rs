//! The store of cell records over `Cell` objects, with compare-and-swap by resource version.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kube::ResourceExt as _;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use serde_json::{Value, json};

use super::convert::{object, stored};
use super::definition::not_served;
use super::resource::{Cell, FINALIZER, NODE_LABEL, label_value};
use crate::driver::{CellStore, StoredCell};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, NodeName};
use crate::kubelet::client::Client;
use crate::kubelet::errors::{api_error, is_missing};
use crate::model::{CellPhase, CellRecord};

/// Cells listed in one request.
const PAGE: u32 = 500;

/// Addresses pods got with their cells, for manifests.
#[derive(Debug, Default)]
pub(crate) struct CellAddresses(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    /// By host: two attempts of a pod may be there at once, each with its own address.
    pod_ips: HashMap<CellName, IpAddr>,
    /// The hosts of each record, to be forgotten with it.
    hosts: HashMap<CellName, BTreeSet<CellName>>,
}

impl CellAddresses {
    /// The pod's address on this host, when the cloud assigned one.
    pub(crate) fn pod_ip(&self, host: &CellName) -> Option<IpAddr> {
        self.locked().pod_ips.get(host).copied()
    }

    fn learn(&self, record: &CellRecord) {
        if let Some(ip) = record.addresses.pod {
            let mut known = self.locked();
            known.pod_ips.insert(record.host(), ip);
            known
                .hosts
                .entry(record.name.clone())
                .or_default()
                .insert(record.host());
        }
    }

    fn forget(&self, record: &CellName) {
        let mut known = self.locked();
        for host in known.hosts.remove(record).unwrap_or_default() {
            known.pod_ips.remove(&host);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Addresses> {
        // Each critical section leaves the maps consistent, so a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps cell records as `Cell` objects. The definition must be installed: [`install`](super::install).
#[derive(Debug)]
pub struct KubeCellStore {
    client: Client,
    node: NodeName,
    addresses: Arc<CellAddresses>,
    /// Objects somebody deleted, and that this was told of.
    deleted: Mutex<BTreeSet<CellName>>,
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
            deleted: Mutex::default(),
        }
    }

    /// Objects of any shape: one that somebody broke must not hide the others.
    fn api(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.get(), &ApiResource::erase::<Cell>(&()))
    }

    /// Whether it is of this node, by its spec or, where that does not tell, by its label.
    fn is_ours(&self, cell: &DynamicObject) -> bool {
        match cell.data.pointer("/spec/node").and_then(Value::as_str) {
            Some(node) => node == self.node.as_str(),
            None => cell.labels().get(NODE_LABEL) == Some(&label_value(&self.node)),
        }
    }

    fn judge(&self, raw: DynamicObject) -> StoredCell {
        let is_deleted = raw.metadata.deletion_timestamp.is_some();
        let stored = stored(raw);
        if is_deleted && self.deleted().insert(stored.name().clone()) {
            tracing::warn!(cell = %stored.name(), "a Cell object was deleted by hand; it stays until its pod is over");
        }
        if let StoredCell::Sound(record) = &stored {
            self.addresses.learn(record);
        }
        stored
    }

    fn forget(&self, name: &CellName) {
        self.addresses.forget(name);
        self.deleted().remove(name);
    }

    fn deleted(&self) -> MutexGuard<'_, BTreeSet<CellName>> {
        // Each critical section leaves the set whole, so a panic elsewhere does not spoil it.
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write of one half of an object; the API ignores the other half.
    async fn put(&self, half: Half, cell: &Cell) -> Result<DynamicObject, kube::Error> {
        let raw: DynamicObject = serde_json::to_value(cell)
            .and_then(serde_json::from_value)
            .map_err(kube::Error::SerdeError)?;
        let name = raw.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        match half {
            Half::Spec => self.api().replace(&name, &params, &raw).await,
            Half::Status => self.api().replace_status(&name, &params, &raw).await,
        }
    }

    /// Puts back what was changed by hand in the object with the version of `wanted`, both halves if need be. When nothing was, a
    /// `refusal` stands: the rules let only forward what is sound.
    async fn restore(&self, wanted: &CellRecord, refusal: Option<kube::Error>) -> Result<CellRecord> {
        let failed = |error| api_error("restore cell", error).with_context("cell", &wanted.name);
        let conflict = |why: &str| {
            let error = Error::new(ErrorKind::Conflict, "update cell", why);
            Err(error.with_context("cell", &wanted.name))
        };
        let Some(mut current) = self.api().get_opt(wanted.name.as_str()).await.map_err(failed)? else {
            return Err(Error::new(ErrorKind::NotFound, "update cell", "it was removed")
                .with_context("cell", &wanted.name));
        };
        if let Some(refusal) = refusal {
            if current.metadata.resource_version.as_deref() != Some(&wanted.version) {
                return conflict("the object was changed by another writer");
            }
            if let StoredCell::Sound(_) = stored(current.clone()) {
                return Err(api_error("update cell", refusal).with_context("cell", &wanted.name));
            }
        }
        for half in [Half::Spec, Half::Status] {
            if matches!(stored(current.clone()), StoredCell::Sound(record) if is_same(&record, wanted)) {
                break;
            }
            let mut cell = object(wanted);
            let restorations = |pointer: &str| {
                let before = current.data.pointer(pointer).and_then(Value::as_u64);
                before
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(0)
                    .saturating_add(1)
            };
            cell.spec.restorations = restorations("/spec/restorations");
            if let Some(status) = &mut cell.status {
                status.restorations = restorations("/status/restorations");
            }
            let finalizers = cell.metadata.finalizers.take();
            cell.metadata = current.metadata.clone();
            if cell.metadata.deletion_timestamp.is_none() {
                cell.metadata.finalizers = finalizers;
            }
            current = self.put(half, &cell).await.map_err(failed)?;
        }
        match self.judge(current) {
            StoredCell::Sound(record) if is_same(&record, wanted) => {
                tracing::warn!(cell = %record.name, pod = %record.pod, "put back what was changed by hand in the Cell object");
                Ok(record)
            }
            StoredCell::Sound(_) => conflict("somebody wrote it while it was put back"),
            StoredCell::Damaged(damaged) => Err(Error::new(
                ErrorKind::Unexpected,
                "restore cell",
                format!("it cannot be put back: {}", damaged.problem),
            )
            .with_context("cell", &wanted.name)),
        }
    }
}

/// Which part of an object one write can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Spec,
    Status,
}

/// Whether two records say the same of what a seal covers.
fn is_same(one: &CellRecord, other: &CellRecord) -> bool {
    one.attempt == other.attempt && one.token == other.token && one.seal() == other.seal()
}

/// Whether all a record says is in the spec of its object: an attempt that has not got anywhere yet.
fn is_intent(record: &CellRecord) -> bool {
    record.phase == CellPhase::Launching && record.instance.is_none()
}

fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

fn failed(operation: &'static str, name: &CellName) -> impl Fn(kube::Error) -> Error {
    move |error| api_error(operation, error).with_context("cell", name)
}

#[async_trait]
impl CellStore for KubeCellStore {
    async fn create(&self, new: &CellRecord) -> Result<CellRecord> {
        let mut cell = object(new);
        let failed = failed("create cell", &new.name);
        let raw: DynamicObject = serde_json::to_value(&cell)
            .and_then(serde_json::from_value)
            .map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let mut created = self
            .api()
            .create(&PostParams::default(), &raw)
            .await
            .map_err(|error| not_served(failed(error)))?;
        // The API drops the status of a new object. An intent is all in the spec; a record that is restored is not.
        if !is_intent(new) {
            cell.metadata = created.metadata;
            created = self.put(Half::Status, &cell).await.map_err(failed)?;
        }
        match self.judge(created) {
            StoredCell::Sound(record) => Ok(record),
            StoredCell::Damaged(damaged) => {
                Err(Error::new(ErrorKind::Unexpected, "create cell", damaged.problem)
                    .with_context("cell", &new.name))
            }
        }
    }

    async fn update(&self, changed: &CellRecord) -> Result<CellRecord> {
        let mut cell = object(changed);
        cell.metadata.resource_version = Some(changed.version.clone());
        // The next attempt is the one change of the spec; its status is that of an attempt before, which counts for nothing.
        let half = if is_intent(changed) {
            Half::Spec
        } else {
            Half::Status
        };
        match self.put(half, &cell).await {
            Ok(updated) => match self.judge(updated) {
                StoredCell::Sound(record) if is_same(&record, changed) => Ok(record),
                // The other half was changed by hand.
                StoredCell::Sound(_) | StoredCell::Damaged(_) => self.restore(changed, None).await,
            },
            Err(error) if is_invalid(&error) => self.restore(changed, Some(error)).await,
            Err(error) => Err(failed("update cell", &changed.name)(error)),
        }
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        let api = self.api();
        let failed = failed("remove cell", name);
        let Some(cell) = api.get_opt(name.as_str()).await.map_err(&failed)? else {
            self.forget(name);
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
        self.forget(name);
        Ok(())
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        let cell = self.api().get_opt(name.as_str()).await;
        let cell = cell.map_err(|error| not_served(failed("read cell", name)(error)))?;
        Ok(cell.map(|cell| self.judge(cell)))
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        // Not by label: somebody may have taken it off.
        let mut params = ListParams::default().limit(PAGE);
        let mut records = Vec::new();
        loop {
            let page = self
                .api()
                .list(&params)
                .await
                .map_err(|error| not_served(api_error("list cells", error)))?;
            let ours = page.items.into_iter().filter(|cell| self.is_ours(cell));
            records.extend(ours.map(|cell| self.judge(cell)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(records),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ids::{ClusterUid, InstanceType, LaunchToken, OfferingId, PodRef, PodUid, Zone};
    use crate::model::{CapacityType, Price};

    #[test]
    fn the_addresses_of_all_attempts_go_with_the_record_or_memory_would_grow_for_ever() {
        let addresses = CellAddresses::default();
        let records: Vec<CellRecord> = (1..=3).map(record).collect();
        for record in &records {
            addresses.learn(record);
        }
        for record in &records {
            assert_eq!(addresses.pod_ip(&record.host()), record.addresses.pod);
        }
        addresses.forget(&records[0].name);
        let known = addresses.locked();
        assert!(known.pod_ips.is_empty() && known.hosts.is_empty(), "{known:?}");
    }

    fn record(attempt: u32) -> CellRecord {
        let pod = PodRef {
            uid: PodUid::new("u"),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
        };
        let offering = OfferingId {
            instance_type: InstanceType::new("small"),
            zone: Zone::new("z1"),
            capacity_type: CapacityType::Spot,
        };
        let (cluster, node) = (ClusterUid::new("c"), NodeName::new("kip"));
        let token = LaunchToken::derive(&cluster, &node, &pod.uid, attempt, &offering);
        let mut record = CellRecord::intent(
            pod,
            node,
            cluster,
            attempt,
            token,
            offering,
            Price(1),
            Timestamp::UNIX_EPOCH,
        );
        record.addresses.pod = Some(IpAddr::from([10, 0, 0, u8::try_from(attempt).unwrap_or(0)]));
        record
    }
}

//! Where cell records are kept, with compare-and-swap.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CellName;
use crate::model::{CellRecord, DamagedCell, StoredCell};

/// Keeps cell records: in Kubernetes as `Cell` objects, or in memory.
///
/// # Guarantees an implementer gives
/// A record that was written is returned by `list` from then on, also to another process. `update` and `remove` succeed only with
/// the newest version.
#[async_trait]
pub trait CellStore: fmt::Debug + Send + Sync + 'static {
    /// Writes a new record; returns it with its version.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of that name.
    async fn create(&self, record: &CellRecord) -> Result<CellRecord>;

    /// Replaces a record; returns it with its new version.
    ///
    /// # Errors
    /// `Conflict` when `record.version` is not the newest, `NotFound` when it is gone.
    async fn update(&self, record: &CellRecord) -> Result<CellRecord>;

    /// Removes a record for good. Called only after the provider said the instance is gone. Already removed is success.
    ///
    /// # Errors
    /// `Conflict` when `version` is not the newest: somebody else may have begun another attempt in this record.
    async fn remove(&self, name: &CellName, version: &str) -> Result<()>;

    /// One record as it is now, not as a cache remembers it.
    ///
    /// # Errors
    /// Only when the store does not answer; absence is `None`.
    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>>;

    /// All records of this node, damaged ones included.
    async fn list(&self) -> Result<Vec<StoredCell>>;
}

/// Keeps records in memory: for embedders that need no restart, and for tests.
#[derive(Debug, Default)]
pub struct MemoryCellStore {
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    /// The newest version given out.
    version: u64,
    by_name: BTreeMap<CellName, Sealed>,
}

#[derive(Debug)]
struct Sealed {
    record: CellRecord,
    seal: String,
}

impl Sealed {
    fn judge(&self) -> StoredCell {
        match StoredCell::judge(self.record.clone()) {
            StoredCell::Sound(record) if record.seal() != self.seal => {
                StoredCell::Damaged(DamagedCell::of(&record, "it does not match its seal"))
            }
            judged => judged,
        }
    }
}

impl Records {
    fn put(&mut self, record: &CellRecord, seal: String) -> CellRecord {
        self.version += 1;
        let record = CellRecord {
            version: self.version.to_string(),
            ..record.clone()
        };
        let sealed = Sealed {
            record: record.clone(),
            seal,
        };
        self.by_name.insert(record.name.clone(), sealed);
        record
    }
}

fn conflict(operation: &'static str, name: &CellName) -> Error {
    let message = "the record was changed by another writer";
    Error::new(ErrorKind::Conflict, operation, message).with_context("cell", name)
}

impl MemoryCellStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes a record as a hand would, without renewing its seal: for tests. False when there is none of that name.
    pub fn tamper(&self, name: &CellName, change: impl FnOnce(&mut CellRecord)) -> bool {
        let mut records = self.locked();
        let Some(sealed) = records.by_name.remove(name) else {
            return false;
        };
        let mut record = sealed.record;
        change(&mut record);
        records.put(&record, sealed.seal);
        true
    }

    fn locked(&self) -> MutexGuard<'_, Records> {
        // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CellStore for MemoryCellStore {
    async fn create(&self, record: &CellRecord) -> Result<CellRecord> {
        let mut records = self.locked();
        if records.by_name.contains_key(&record.name) {
            let message = "a record of this name exists";
            return Err(Error::new(ErrorKind::AlreadyExists, "create cell", message)
                .with_context("cell", &record.name));
        }
        Ok(records.put(record, record.seal()))
    }

    async fn update(&self, record: &CellRecord) -> Result<CellRecord> {
        let mut records = self.locked();
        let Some(current) = records.by_name.get(&record.name) else {
            let message = "there is no record of this name";
            return Err(
                Error::new(ErrorKind::NotFound, "update cell", message).with_context("cell", &record.name)
            );
        };
        if current.record.version != record.version {
            return Err(conflict("update cell", &record.name));
        }
        Ok(records.put(record, record.seal()))
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        let mut records = self.locked();
        let current = records.by_name.get(name);
        if current.is_some_and(|current| current.record.version != version) {
            return Err(conflict("remove cell", name));
        }
        records.by_name.remove(name);
        Ok(())
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        Ok(self.locked().by_name.get(name).map(Sealed::judge))
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        Ok(self.locked().by_name.values().map(Sealed::judge).collect())
    }
}

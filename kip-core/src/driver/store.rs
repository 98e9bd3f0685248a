//! Where cell records are kept, with compare-and-swap.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, InstanceId, PodUid};
use crate::model::CellRecord;

/// A record as it is found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are sound, and a box would cost each of them"
)]
pub enum StoredCell {
    /// It is as a controller wrote it.
    Sound(CellRecord),
    /// It was changed by hand, or cannot be read. It is never acted on; what it may stand for is left alone.
    Damaged(DamagedCell),
}

impl StoredCell {
    /// Sound or damaged, by what the record says of itself.
    pub fn judge(record: CellRecord) -> Self {
        match record.problem() {
            None => Self::Sound(record),
            Some(problem) => Self::Damaged(DamagedCell {
                name: record.name.clone(),
                version: record.version.clone(),
                pod: Some(record.pod.uid.clone()),
                instance: record.instance.clone(),
                problem,
            }),
        }
    }

    /// The record's name.
    pub fn name(&self) -> &CellName {
        match self {
            Self::Sound(record) => &record.name,
            Self::Damaged(damaged) => &damaged.name,
        }
    }

    /// The store's version of it.
    pub fn version(&self) -> &str {
        match self {
            Self::Sound(record) => &record.version,
            Self::Damaged(damaged) => &damaged.version,
        }
    }

    /// The record, if it is sound.
    pub fn sound(self) -> Option<CellRecord> {
        match self {
            Self::Sound(record) => Some(record),
            Self::Damaged(_) => None,
        }
    }
}

/// What can still be told of a record that was changed by hand or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCell {
    /// Its name.
    pub name: CellName,
    /// The store's version of it, for compare-and-swap.
    pub version: String,
    /// The pod it names, if it does.
    pub pod: Option<PodUid>,
    /// The instance it names, if it does.
    pub instance: Option<InstanceId>,
    /// What is wrong with it, in one sentence.
    pub problem: String,
}

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
    async fn remove(&self, name: &CellName) -> Result<()>;

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
    records: Mutex<(u64, BTreeMap<CellName, CellRecord>)>,
}

impl MemoryCellStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, (u64, BTreeMap<CellName, CellRecord>)> {
        // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CellStore for MemoryCellStore {
    async fn create(&self, record: &CellRecord) -> Result<CellRecord> {
        let (version, records) = &mut *self.locked();
        if records.contains_key(&record.name) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "create cell",
                "a record of this name exists",
            )
            .with_context("cell", &record.name));
        }
        *version += 1;
        let stored = CellRecord {
            version: version.to_string(),
            ..record.clone()
        };
        records.insert(record.name.clone(), stored.clone());
        Ok(stored)
    }

    async fn update(&self, record: &CellRecord) -> Result<CellRecord> {
        let (version, records) = &mut *self.locked();
        let Some(current) = records.get_mut(&record.name) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                "update cell",
                "there is no record of this name",
            )
            .with_context("cell", &record.name));
        };
        if current.version != record.version {
            return Err(Error::new(
                ErrorKind::Conflict,
                "update cell",
                "the record was changed by another writer",
            )
            .with_context("cell", &record.name));
        }
        *version += 1;
        *current = CellRecord {
            version: version.to_string(),
            ..record.clone()
        };
        Ok(current.clone())
    }

    async fn remove(&self, name: &CellName) -> Result<()> {
        self.locked().1.remove(name);
        Ok(())
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        Ok(self.locked().1.get(name).cloned().map(StoredCell::judge))
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        Ok(self.locked().1.values().cloned().map(StoredCell::judge).collect())
    }
}

//! A record store in memory that outlives a crash, counts writes and can be told to fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt as _;
use kip_core::driver::{CellStore, MemoryCellStore, StoredCell};
use kip_core::ids::CellName;
use kip_core::model::CellRecord;
use kip_core::{Error, ErrorKind, Result};

use crate::fault::Faults;
use crate::tripwire::Tripwire;

/// An operation of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreOp {
    /// `create`.
    Create,
    /// `update`.
    Update,
    /// `remove`.
    Remove,
    /// `get`.
    Get,
    /// `list`.
    List,
}

/// A record store in memory that outlives a crash, counts writes and can be told to fail.
#[derive(Debug, Default)]
pub struct FakeStore {
    records: MemoryCellStore,
    faults: Faults<StoreOp>,
    tripwire: Tripwire,
    writes: Mutex<BTreeMap<CellName, u32>>,
}

impl FakeStore {
    /// An empty store, stoppable at any call.
    pub fn new(tripwire: Tripwire) -> Self {
        Self {
            tripwire,
            ..Self::default()
        }
    }

    /// Faults to come.
    pub fn faults(&self) -> &Faults<StoreOp> {
        &self.faults
    }

    /// All sound records, without counting as a call.
    pub fn records(&self) -> Vec<CellRecord> {
        self.stored().into_iter().filter_map(StoredCell::sound).collect()
    }

    /// All records, damaged ones included, without counting as a call.
    pub fn stored(&self) -> Vec<StoredCell> {
        // The store underneath never waits and never fails.
        let all = self.records.list().now_or_never();
        all.and_then(Result::ok).unwrap_or_default()
    }

    /// Changes a record as a hand would: its seal is not renewed. False when there is none.
    pub fn edit_by_hand(&self, cell: &CellName, change: impl FnOnce(&mut CellRecord)) -> bool {
        self.records.tamper(cell, change)
    }

    /// Puts a record there as a hand, or another controller, would, in the place of any of its name.
    pub fn put_by_hand(&self, record: &CellRecord) {
        self.delete_by_hand(&record.name);
        // The store underneath never waits, and has none of this name now.
        let _ = self.records.create(record).now_or_never();
    }

    /// Removes a record as a hand would, finalizer and all.
    pub fn delete_by_hand(&self, cell: &CellName) {
        let version = self
            .stored()
            .into_iter()
            .find(|stored| stored.name() == cell)
            .map(|stored| stored.version().to_owned());
        if let Some(version) = version {
            // The store underneath never waits, and this is its newest version.
            let _ = self.records.remove(cell, &version).now_or_never();
        }
    }

    /// How often a record was created or updated.
    pub fn writes(&self, cell: &CellName) -> u32 {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.get(cell).copied().unwrap_or(0)
    }

    /// Cells ever written.
    pub fn cells(&self) -> Vec<CellName> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.keys().cloned().collect()
    }

    fn count(&self, cell: &CellName) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        *writes.entry(cell.clone()).or_default() += 1;
    }

    async fn call<T: Send>(
        &self,
        op: StoreOp,
        name: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.tripwire.pass().await;
        let effect = || {
            // The store underneath never waits.
            call.now_or_never().unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Unexpected,
                    name,
                    "the store in memory had to wait",
                ))
            })
        };
        let result = self.faults.strike(op, name, effect).await;
        self.tripwire.pass().await;
        result
    }
}

#[async_trait]
impl CellStore for FakeStore {
    async fn create(&self, record: &CellRecord) -> Result<CellRecord> {
        self.call(StoreOp::Create, "create cell", async {
            self.count(&record.name);
            self.records.create(record).await
        })
        .await
    }

    async fn update(&self, record: &CellRecord) -> Result<CellRecord> {
        self.call(StoreOp::Update, "update cell", async {
            self.count(&record.name);
            self.records.update(record).await
        })
        .await
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        self.call(StoreOp::Remove, "remove cell", self.records.remove(name, version))
            .await
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        self.call(StoreOp::Get, "get cell", self.records.get(name)).await
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        self.call(StoreOp::List, "list cells", self.records.list()).await
    }
}

//! Records behind the driver's own trait, with compare-and-swap.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kip_core::driver::{CellStore, StoredCell};
use kip_core::ids::CellName;
use kip_core::model::CellRecord;
use kip_core::{Error, ErrorKind, Result};

use super::port::Port;
use super::scenario::Op;
use super::world::{At, State};

/// How old a stale list of records is.
const STALE_MS: u64 = 45_000;

/// The record store as one controller sees it.
#[derive(Debug)]
pub(super) struct SimStore {
    pub(super) port: Arc<Port>,
}

pub(super) fn subject(record: &CellRecord) -> String {
    let instance = record.instance.as_ref().map_or("-", |id| id.as_str());
    let replaces = record
        .replaces
        .as_ref()
        .map_or(String::new(), |old| format!(" replaces {}", old.instance));
    let ending = record
        .ending
        .as_ref()
        .map_or(String::new(), |ending| format!(" ending {ending:?}"));
    format!(
        "{} ({}) attempt {} {:?} {instance}{replaces}{ending} @{}",
        record.name, record.pod.uid, record.attempt, record.phase, record.version
    )
}

impl State {
    fn put(&mut self, record: &CellRecord, at: At) -> CellRecord {
        self.version += 1;
        let mut stored = record.clone();
        stored.version = self.version.to_string();
        self.remember_records(at);
        let old = self.records.insert(stored.name.clone(), stored.clone());
        self.judge_record(old.as_ref(), Some(&stored), at);
        stored
    }
}

impl State {
    /// Keeps what a lagging replica of the store would still answer.
    fn remember_records(&mut self, at: At) {
        let since = at.ms.saturating_sub(STALE_MS);
        self.old_records.push_back((at.ms, self.records.clone()));
        while self.old_records.get(1).is_some_and(|(until, _)| *until <= since) {
            self.old_records.pop_front();
        }
    }

    fn records_seen(&self, at: At) -> &BTreeMap<CellName, CellRecord> {
        // Each entry is what there was until its time.
        let then = at.ms.saturating_sub(STALE_MS);
        let old = self.old_records.iter().find(|(until, _)| *until > then);
        old.filter(|_| at.is_stale)
            .map_or(&self.records, |(_, records)| records)
    }
}

#[async_trait]
impl CellStore for SimStore {
    async fn create(&self, record: &CellRecord) -> Result<CellRecord> {
        let record = record.clone();
        let subject = subject(&record);
        let effect = move |state: &mut State, at: At| {
            if state.records.contains_key(&record.name) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    "create cell",
                    "there is one",
                ));
            }
            Ok(state.put(&record, at))
        };
        self.port
            .world
            .call(&self.port, Op::Create, subject, effect)
            .await
    }

    async fn update(&self, record: &CellRecord) -> Result<CellRecord> {
        let record = record.clone();
        let subject = subject(&record);
        let effect = move |state: &mut State, at: At| match state.records.get(&record.name) {
            None => Err(Error::new(ErrorKind::NotFound, "update cell", "it is gone")),
            Some(current) if current.version != record.version => Err(Error::new(
                ErrorKind::Conflict,
                "update cell",
                "another was first",
            )),
            Some(_) => Ok(state.put(&record, at)),
        };
        self.port
            .world
            .call(&self.port, Op::Update, subject, effect)
            .await
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        let (name, version) = (name.clone(), version.to_owned());
        let subject = name.to_string();
        let effect = move |state: &mut State, at: At| {
            if state
                .records
                .get(&name)
                .is_some_and(|current| current.version != version)
            {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "remove cell",
                    "another was first",
                ));
            }
            state.remember_records(at);
            if let Some(old) = state.records.remove(&name) {
                state.judge_record(Some(&old), None, at);
            }
            Ok(())
        };
        self.port
            .world
            .call(&self.port, Op::Remove, subject, effect)
            .await
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        let name = name.clone();
        let subject = name.to_string();
        let effect = move |state: &mut State, _| Ok(state.records.get(&name).cloned().map(StoredCell::judge));
        self.port.world.call(&self.port, Op::Read, subject, effect).await
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        let effect = |state: &mut State, at: At| {
            let records = state.records_seen(at);
            Ok(records.values().cloned().map(StoredCell::judge).collect())
        };
        self.port
            .world
            .call(&self.port, Op::Read, "all".into(), effect)
            .await
    }
}

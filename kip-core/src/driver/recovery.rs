//! Takes over what a controller before this one left: records and instances become states, before any pod is acted on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clock::Repeat;
use super::core::{Core, Key, Slot};
use super::store::StoredCell;
use crate::error::{ErrorKind, Result};
use crate::ids::{InstanceId, LaunchToken, PodRef, PodUid};
use crate::machine::{Event, recover};
use crate::model::{CellPhase, CellRecord, Instance, InstancePhase, Price};
use crate::provider::tags;

/// Reads records and instances, for as long as it takes, and makes a machine of each.
pub(super) async fn recover_all(core: &Arc<Core>) {
    let mut repeat = Repeat::new(core.config.repeat);
    let (instances, records) = loop {
        // Instances first: one launched in between by nobody else is then claimed by its record, not the other way round.
        match read(core).await {
            Ok(read) => break read,
            Err(error) => {
                repeat
                    .failed(&*core.clock, "read records and instances", &error)
                    .await
            }
        }
    };
    let identity = &core.step.identity;
    let (records, foreign): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| record.cluster == identity.cluster && record.node == identity.node);
    for record in foreign {
        tracing::warn!(cell = %record.name, node = %record.node, "a record of another node or cluster is left alone");
    }

    let mut all = Vec::new();
    for record in records {
        let found = instances
            .iter()
            .find(|instance| claims(&record, instance))
            .cloned();
        all.push((record, found));
    }
    for instance in instances {
        let is_leaving = matches!(
            instance.phase,
            InstancePhase::Terminating | InstancePhase::Terminated
        );
        if is_leaving || all.iter().any(|(record, _)| claims(record, &instance)) {
            continue;
        }
        if let Some(record) = record_of(core, &instance) {
            tracing::warn!(instance = %instance.id, pod = %record.pod, "an instance without record is taken over by its tags");
            if let Some(record) = create(core, record).await {
                all.push((record, Some(instance)));
            }
        }
    }
    if !all.is_empty() {
        tracing::info!(cells = all.len(), "taking over cells");
    }
    core.counters.adopted(all.len());
    adopt(core, all);
    core.recovered();
}

async fn read(core: &Core) -> Result<(Vec<Instance>, Vec<CellRecord>)> {
    let instances = core.list_ours().await?;
    let stored = core.store.list().await?;
    let records = stored.into_iter().filter_map(StoredCell::sound).collect();
    Ok((instances, records))
}

fn claims(record: &CellRecord, instance: &Instance) -> bool {
    match &record.instance {
        Some(id) => *id == instance.id,
        None => token_of(instance).is_some_and(|token| token == record.token),
    }
}

fn token_of(instance: &Instance) -> Option<LaunchToken> {
    let tag = || instance.tags.get(tags::TOKEN).map(LaunchToken::from_stored);
    instance.token.clone().or_else(tag)
}

/// The record an instance must have had. It may have been told to run its pod, so that is what the record says. None when its tags do
/// not tell enough: then it is left to the sweeps.
fn record_of(core: &Core, instance: &Instance) -> Option<CellRecord> {
    let token = token_of(instance)?;
    let uid = PodUid::new(instance.tags.get(tags::POD_UID)?);
    let (namespace, name) = instance.tags.get(tags::POD)?.split_once('/')?;
    let identity = &core.step.identity;
    let mut record = CellRecord::intent(
        PodRef {
            uid,
            namespace: namespace.into(),
            name: name.into(),
        },
        identity.node.clone(),
        identity.cluster.clone(),
        1,
        token,
        instance.offering.clone(),
        Price(0),
        instance.launched_at,
    );
    record.phase = CellPhase::Running;
    record.instance = Some(instance.id.clone());
    record.addresses = instance.addresses;
    record.marks.launched_at = Some(instance.launched_at);
    Some(record)
}

async fn create(core: &Core, record: CellRecord) -> Option<CellRecord> {
    let mut repeat = Repeat::new(core.config.repeat);
    loop {
        match core.store.create(&record).await {
            Ok(stored) => return Some(stored),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return None,
            Err(error) => repeat.failed(&*core.clock, "create cell record", &error).await,
        }
    }
}

/// Makes a machine of each record. Of several cells of one pod the one most likely to run it keeps the pod; the others are ended as
/// soon as the source has spoken.
fn adopt(core: &Core, mut all: Vec<(CellRecord, Option<Instance>)>) {
    all.sort_by_key(|(record, _)| (is_better_last(record), record.attempt));
    let mut best: BTreeMap<PodUid, InstanceId> = BTreeMap::new();
    let now = core.clock.now();
    for (record, found) in all.into_iter().rev() {
        let uid = record.pod.uid.clone();
        let version = record.version.clone();
        let (name, instance) = (record.name.clone(), record.instance.clone());
        let state = recover(&core.step, record, found.as_ref(), now);
        let key = {
            let mut slots = core.slots();
            let key = Key::Pod(uid.clone());
            let key = if slots.contains_key(&key) {
                tracing::warn!(cell = %name, pod = %uid, other = ?best.get(&uid), "a pod has more than one cell");
                Key::Cell(name)
            } else {
                if let Some(instance) = instance {
                    best.insert(uid, instance);
                }
                key
            };
            slots.insert(key.clone(), Slot::new(state, version));
            key
        };
        core.deliver(&key, Event::Woke);
    }
}

/// Sorts what should keep the pod last.
fn is_better_last(record: &CellRecord) -> u8 {
    match record.phase {
        CellPhase::Terminating => 0,
        CellPhase::Launching => 1,
        CellPhase::Booting => 2,
        CellPhase::Running => 3,
    }
}

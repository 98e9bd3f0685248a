//! Takes over what a controller before this one left: records and instances become states, before any pod is acted on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clock::Repeat;
use super::core::{Core, Slot};
use super::source::PodNotice;
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::ids::{CellName, PodRef, PodUid};
use crate::machine::{Event, recover};
use crate::model::{
    CellPhase, CellRecord, DamagedCell, Instance, InstancePhase, Price, Replaced, StoredCell,
};
use crate::plan::{Ownership, Proof, ownership, token_of};
use crate::provider::tags;

/// Something to be told about a pod once the source knows the pods.
pub(super) type Notices = Vec<(PodUid, PodNotice)>;

/// An instance that is proved ours and is not on its way out.
struct Owned {
    instance: Instance,
    proof: Proof,
}

/// Reads records and instances, for as long as it takes, and makes a machine of each.
pub(super) async fn recover_all(core: &Arc<Core>) -> Notices {
    let mut repeat = Repeat::new(core.config.repeat);
    let (instances, stored) = loop {
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
    let mut records = Vec::new();
    let mut damaged = BTreeMap::new();
    for stored in stored {
        match stored {
            StoredCell::Sound(record) if core.is_own(&record) => records.push(record),
            StoredCell::Sound(record) => {
                tracing::warn!(cell = %record.name, node = %record.node, cluster = %record.cluster,
                    "a record of another node or cluster is left alone");
            }
            StoredCell::Damaged(found) => {
                damaged.insert(found.name.clone(), found);
            }
        }
    }
    let mut owned = owned(core, &instances);
    let mut notices = Vec::new();
    for record in &records {
        owned.remove(&record.name);
    }
    for (name, of_pod) in owned {
        let Some(record) = record_of(core, of_pod) else {
            continue;
        };
        let restored = match damaged.remove(&name) {
            Some(found) => restore(core, record, &found, &mut notices).await,
            None => {
                tracing::warn!(cell = %name, pod = %record.pod, "an instance without record is taken over by its tags");
                write(core, &record).await
            }
        };
        records.extend(restored);
    }
    for found in damaged.into_values() {
        tracing::error!(cell = %found.name, pod = ?found.pod, instance = ?found.instance, problem = found.problem,
            "a record was changed by hand and no instance of ours shows what it was: it is left alone, and its pod held back");
    }
    if !records.is_empty() {
        tracing::info!(cells = records.len(), "taking over cells");
    }
    core.counters.adopted(records.len());
    for record in records {
        let found = instances.iter().find(|instance| claims(&record, instance));
        adopt(core, record, found);
    }
    core.recovered();
    notices
}

async fn read(core: &Core) -> Result<(Vec<Instance>, Vec<StoredCell>)> {
    let instances = core.list_ours().await?;
    let stored = core.list_records().await?;
    Ok((instances, stored))
}

fn claims(record: &CellRecord, instance: &Instance) -> bool {
    match &record.instance {
        Some(id) => *id == instance.id,
        None => token_of(instance).is_some_and(|token| token == record.token),
    }
}

/// The instances that are proved ours, by the name of their pod's record, oldest attempt first.
fn owned(core: &Core, instances: &[Instance]) -> BTreeMap<CellName, Vec<Owned>> {
    let identity = &core.step.identity;
    let mut owned: BTreeMap<CellName, Vec<Owned>> = BTreeMap::new();
    for instance in instances {
        match ownership(instance, &identity.cluster, &identity.node) {
            Ownership::Proved(proof) => {
                let is_leaving = matches!(
                    instance.phase,
                    InstancePhase::Terminating | InstancePhase::Terminated
                );
                if !is_leaving {
                    let of_pod = owned.entry(CellName::of_pod(&proof.pod)).or_default();
                    let instance = instance.clone();
                    of_pod.push(Owned { instance, proof });
                }
            }
            // The sweeps report those that only look like ours.
            Ownership::Foreign(_) | Ownership::Elsewhere => {}
        }
    }
    for of_pod in owned.values_mut() {
        of_pod.sort_by_key(|owned| owned.proof.attempt);
    }
    owned
}

/// The record that a pod's instances must have had. The newest attempt is the one that counts; the one before it may have been told to
/// run the pod, so it goes first. None when their tags do not tell enough: then they are left to the sweeps.
fn record_of(core: &Core, mut of_pod: Vec<Owned>) -> Option<CellRecord> {
    let Owned { instance, proof } = of_pod.pop()?;
    let (namespace, name) = instance.tags.get(tags::POD)?.split_once('/')?;
    let identity = &core.step.identity;
    let mut record = CellRecord::intent(
        PodRef {
            uid: proof.pod,
            namespace: namespace.into(),
            name: name.into(),
        },
        identity.node.clone(),
        identity.cluster.clone(),
        proof.attempt,
        proof.token,
        instance.offering.clone(),
        Price(0),
        instance.launched_at,
    );
    record.replaces = of_pod.pop().map(|older| Replaced {
        attempt: older.proof.attempt,
        token: older.proof.token,
        instance: older.instance.id,
        address: older.instance.addresses.management,
    });
    // It may have been told to run its pod, so that is what the record says; beside another that may run it, it was not yet.
    record.phase = match record.replaces {
        None => CellPhase::Running,
        Some(_) => CellPhase::Booting,
    };
    record.instance = Some(instance.id);
    record.addresses = instance.addresses;
    record.marks.launched_at = Some(instance.launched_at);
    Some(record)
}

/// Puts the record that the tags tell in the place of one that was changed by hand.
async fn restore(
    core: &Core,
    mut record: CellRecord,
    damaged: &DamagedCell,
    notices: &mut Notices,
) -> Option<CellRecord> {
    let instance = record.instance.as_ref().map_or("", |instance| instance.as_str());
    tracing::warn!(cell = %record.name, pod = %record.pod, instance, problem = damaged.problem, named = ?damaged.instance,
        "a record was changed by hand and is restored from its instance's tags");
    let message = format!(
        "Restored the record of this pod's cell, {}, from the tags of instance {instance}: it was changed by hand: {}.",
        record.name, damaged.problem
    );
    let notice = PodNotice::warning("CellRestored", message);
    notices.push((record.pod.uid.clone(), notice));
    record.version.clone_from(&damaged.version);
    write(core, &record).await
}

/// Writes a record made of tags. None when somebody else was first or the store will not have it: then the pod finds out what stands
/// when it is to be launched for, and the sweeps see to the rest.
async fn write(core: &Core, record: &CellRecord) -> Option<CellRecord> {
    let mut repeat = Repeat::new(core.config.repeat);
    loop {
        match core.write_record(record).await {
            Ok(stored) => return Some(stored),
            Err(error) if is_final(&error) => {
                tracing::error!(cell = %record.name, pod = %record.pod, error = %error.chain(), "the record cannot be written");
                return None;
            }
            Err(error) => repeat.failed(&*core.clock, "write cell record", &error).await,
        }
    }
}

fn is_final(error: &Error) -> bool {
    error.kind() == ErrorKind::Conflict || (error.retry() == Retry::Never && !error.is_ambiguous())
}

/// Makes a machine of a record.
pub(super) fn adopt(core: &Core, record: CellRecord, found: Option<&Instance>) {
    let key = record.pod.uid.clone();
    let stored = Arc::new(record.clone());
    let state = recover(&core.step, record, found, core.clock.now());
    core.slots()
        .entry(key.clone())
        .or_insert_with(|| Slot::new(state, Some(stored)));
    core.deliver(&key, Event::Woke);
    #[cfg(kip_mutants)]
    if crate::mutants::is(crate::mutants::Mutant::ActBeforeSync) {
        core.deliver(&key, super::persist::gone());
    }
}

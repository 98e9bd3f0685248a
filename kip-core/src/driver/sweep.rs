//! Carries out the planner's sweeps for leftovers, and reports what it may not touch.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::core::Core;
use super::persist::gone;
use super::recovery::{self, Notices};
use super::source::{PodNotice, Presence};
use crate::ids::{CellName, PodRef, PodUid};
use crate::machine::{Event, Failure, Wanted};
use crate::model::{DamagedCell, StoredCell};
use crate::plan::{ForeignInstance, KnownCell, PlanAction, Suspects, World, plan};

/// What a sweep hands to the next one.
#[derive(Default)]
struct Memory {
    suspects: Suspects,
    /// Reported already.
    foreign: BTreeSet<ForeignInstance>,
    /// Reported already, by name and version.
    damaged: BTreeSet<(CellName, String)>,
}

/// Sweeps for as long as the driver runs, beginning when the source has told all pods.
pub(super) async fn sweep_forever(core: Arc<Core>, notices: Notices) {
    while !core.is_synced() {
        core.sync_changed.notified().await;
    }
    for (pod, notice) in notices {
        core.tell(&pod, notice).await;
    }
    #[cfg(kip_mutants)]
    if crate::mutants::is(crate::mutants::Mutant::NoSweep) {
        return;
    }
    let mut memory = Memory::default();
    loop {
        memory = sweep(&core, memory).await;
        core.counters.orphans(memory.suspects.len());
        core.counters.foreign(memory.foreign.len());
        core.counters.damaged(memory.damaged.len());
        core.clock.sleep(core.config.sweep_interval).await;
    }
}

async fn sweep(core: &Arc<Core>, mut memory: Memory) -> Memory {
    let identity = &core.step.identity;
    let mut world = World::new(identity.cluster.clone(), identity.node.clone());
    world.synced = core.is_synced();
    world.suspects = std::mem::take(&mut memory.suspects);
    // In this order: what is created meanwhile then looks claimed.
    world.instances = unless_failed("list instances", core.list_ours().await);
    world.stored = unless_failed("list records", core.list_records().await);
    let mut pods = BTreeSet::new();
    {
        let slots = core.slots();
        for (pod, slot) in &*slots {
            world.known.push(KnownCell {
                pod: pod.clone(),
                record: slot.state.record().cloned(),
                version: slot
                    .stored
                    .as_ref()
                    .map_or_else(String::new, |stored| stored.version.clone()),
            });
            if !matches!(slot.state.pod.wanted, Wanted::Unknown | Wanted::Gone) {
                pods.insert(pod.clone());
            }
        }
    }
    world.pods = Some(pods);
    let plan = plan(&world, &core.config.policy, core.clock.now());
    for action in &plan.withheld {
        tracing::info!(%action, "left over; nothing is done because sweeps only report");
    }
    for action in plan.actions {
        tracing::warn!(%action, "left over");
        carry_out(core, action, &world);
    }
    memory.foreign = report_foreign(plan.foreign, &memory.foreign);
    memory.damaged = report_damaged(core, plan.damaged, &memory.damaged).await;
    memory.suspects = plan.suspects;
    memory
}

fn report_foreign(
    found: Vec<ForeignInstance>,
    reported: &BTreeSet<ForeignInstance>,
) -> BTreeSet<ForeignInstance> {
    let found: BTreeSet<ForeignInstance> = found.into_iter().collect();
    for foreign in found.difference(reported) {
        tracing::warn!(instance = %foreign.instance, why = foreign.why,
            "an instance carries our cluster and node in its tags and was not launched by Kip; it is left alone");
    }
    found
}

async fn report_damaged(
    core: &Core,
    found: Vec<DamagedCell>,
    reported: &BTreeSet<(CellName, String)>,
) -> BTreeSet<(CellName, String)> {
    let mut all = BTreeSet::new();
    for damaged in found {
        let seen = (damaged.name.clone(), damaged.version.clone());
        if !reported.contains(&seen) {
            tracing::warn!(cell = %damaged.name, pod = ?damaged.pod, instance = ?damaged.instance, problem = damaged.problem,
                "a record was changed by hand; it is left alone, and so is what it names");
            let pod = core.slots().keys().find(|pod| damaged.is_for(pod)).cloned();
            if let Some(pod) = pod {
                let message = format!(
                    "The record of this pod's cell, {}, was changed by hand and is not acted on: {}.",
                    damaged.name, damaged.problem
                );
                core.tell(&pod, PodNotice::warning("CellDamaged", message)).await;
            }
        }
        all.insert(seen);
    }
    all
}

fn carry_out(core: &Arc<Core>, action: PlanAction, world: &World) {
    match action {
        PlanAction::TerminateInstance { instance, .. } => {
            let task_core = Arc::clone(core);
            core.tasks.spawn(async move {
                // The next sweep sees what this did not achieve. Failures are counted and logged by the call.
                let _ = task_core.terminate(&instance).await;
            });
        }
        PlanAction::RetireRecord { cell, pod } => {
            let stored = world
                .stored
                .iter()
                .flatten()
                .find(|stored| *stored.name() == cell);
            let (task_core, stored) = (Arc::clone(core), stored.cloned());
            core.tasks.spawn(async move {
                retire(&task_core, &cell, &pod, stored).await;
            });
        }
        PlanAction::VerifyInstance { pod, instance, .. } => {
            let attempt = {
                let slots = core.slots();
                let record = slots.get(&pod).and_then(|slot| slot.state.record());
                record.map(|record| record.attempt)
            };
            let Some(attempt) = attempt else {
                return;
            };
            let task_core = Arc::clone(core);
            core.tasks.spawn(async move {
                let asked_at = task_core.clock.now();
                let result = task_core.get(&instance).await.map_err(Failure::from);
                task_core.deliver_answer(&pod, Event::Observed { attempt, result }, asked_at);
            });
        }
        PlanAction::RestoreRecord { pod, .. } | PlanAction::Resync { pod, .. } => core.doubt(&pod),
    }
}

/// Ends a record's machine if its pod does not exist, by the word of those who keep the pods.
async fn retire(core: &Arc<Core>, cell: &CellName, pod: &PodRef, stored: Option<StoredCell>) {
    let presence = core.source.presence(pod);
    let presence = super::clock::within(core.config.call_timeout, "read pod", presence).await;
    #[cfg(kip_mutants)]
    let presence = if crate::mutants::is(crate::mutants::Mutant::OneSweep) {
        Ok(Presence::Gone)
    } else {
        presence
    };
    match presence {
        Ok(Presence::Gone | Presence::Ended) => {}
        Ok(Presence::Wanted | Presence::Deleting) => {
            tracing::warn!(%cell, %pod, uid = %pod.uid, "the pod of a record exists although nobody told of it; the record stays");
            return;
        }
        Err(error) => {
            tracing::warn!(%cell, %pod, error = %error.chain(), "the pod of a record could not be read; the record stays");
            return;
        }
    }
    // Written by somebody else since we started, if there is no machine.
    if !has_machine(core, &pod.uid)
        && let Some(StoredCell::Sound(record)) = stored
        && core.is_own(&record)
    {
        recovery::adopt(core, record, None);
    }
    core.deliver(&pod.uid, gone());
}

fn has_machine(core: &Core, pod: &PodUid) -> bool {
    core.slots().contains_key(pod)
}

fn unless_failed<T>(what: &'static str, result: crate::error::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(what, error = %error.chain(), "this sweep draws no conclusions from it");
            None
        }
    }
}

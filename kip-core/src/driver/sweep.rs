//! Carries out the planner's sweeps for leftovers, and ends the cells that recovery found to be one too many.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::core::{Core, Key, Slot};
use super::store::StoredCell;
use crate::machine::{Event, Failure, PodState, Wanted, recover};
use crate::plan::{PlanAction, Suspects, World, plan};

/// Sweeps for as long as the driver runs, beginning when the source has told all pods.
pub(super) async fn sweep_forever(core: Arc<Core>) {
    while !core.is_synced() {
        core.sync_changed.notified().await;
    }
    retire_extras(&core);
    let mut suspects = Suspects::default();
    loop {
        suspects = sweep(&core, suspects).await;
        core.counters.orphans(suspects.len());
        core.clock.sleep(core.config.sweep_interval).await;
    }
}

fn gone() -> Event {
    Event::Wanted {
        wanted: Wanted::Gone,
        refresh: false,
        started_before: false,
    }
}

fn retire_extras(core: &Core) {
    let extras: Vec<Key> = {
        let slots = core.slots();
        let extras = slots.keys().filter(|key| matches!(key, Key::Cell(_)));
        extras.cloned().collect()
    };
    for key in extras {
        core.deliver(&key, gone());
    }
}

async fn sweep(core: &Arc<Core>, suspects: Suspects) -> Suspects {
    let identity = &core.step.identity;
    let mut world = World::new(identity.cluster.clone(), identity.node.clone());
    world.synced = core.is_synced();
    world.suspects = suspects;
    // In this order: what is created meanwhile then looks claimed.
    world.instances = unless_failed("list instances", core.list_ours().await);
    world.cells = unless_failed("list records", core.store.list().await)
        .map(|stored| stored.into_iter().filter_map(StoredCell::sound).collect());
    let known = core.snapshot(|state| {
        let is_pod = !matches!(state.pod.wanted, Wanted::Unknown | Wanted::Gone);
        (
            state.record().cloned(),
            is_pod.then(|| state.pod.reference.uid.clone()),
        )
    });
    let mut pods = BTreeSet::new();
    for (record, pod) in known {
        if let (Some(cells), Some(record)) = (&mut world.cells, record) {
            match cells.iter_mut().find(|cell| cell.name == record.name) {
                // What the machine knows is newer than what was listed.
                Some(cell) => *cell = (*record).clone(),
                None => cells.push((*record).clone()),
            }
        }
        pods.extend(pod);
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
    plan.suspects
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
        PlanAction::RetireRecord { cell, .. } => {
            let key = key_of(core, |state| {
                state.record().is_some_and(|record| record.name == cell)
            });
            let key = key.or_else(|| {
                // Written by somebody else since we started.
                let record = world.cells.iter().flatten().find(|record| record.name == cell)?;
                let key = Key::Cell(cell.clone());
                let version = record.version.clone();
                let state = recover(&core.step, record.clone(), None, core.clock.now());
                core.slots().insert(key.clone(), Slot::new(state, version));
                Some(key)
            });
            if let Some(key) = key {
                core.deliver(&key, gone());
            }
        }
        PlanAction::VerifyInstance { cell, instance, .. } => {
            let key = key_of(core, |state| {
                state.record().is_some_and(|record| record.name == cell)
            });
            let attempt = world
                .cells
                .iter()
                .flatten()
                .find_map(|record| (record.name == cell).then_some(record.attempt));
            let (Some(key), Some(attempt)) = (key, attempt) else {
                return;
            };
            let task_core = Arc::clone(core);
            core.tasks.spawn(async move {
                let result = task_core.get(&instance).await.map_err(Failure::from);
                task_core.deliver(&key, Event::Observed { attempt, result });
            });
        }
    }
}

fn key_of(core: &Core, is_it: impl Fn(&PodState) -> bool) -> Option<Key> {
    let slots = core.slots();
    slots
        .iter()
        .find_map(|(key, slot)| is_it(&slot.state).then(|| key.clone()))
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

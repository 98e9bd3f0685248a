//! The driver as others see it while it runs.

use std::sync::Arc;

use super::core::Core;
use super::metrics::DriverMetrics;
use super::source::PodIntent;
use crate::ids::{InstanceId, PodRef, PodUid};
use crate::machine::{Phase, project};
use crate::model::{CellRecord, Offering, PodReport};
use crate::runtime::{CellEndpoint, PodRuntime};

/// A pod and its cell at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CellSnapshot {
    /// The pod.
    pub pod: PodRef,
    /// Where its machine is.
    pub phase: Phase,
    /// The cell's record, while there is a cell.
    pub record: Option<Arc<CellRecord>>,
    /// The instance, once known.
    pub instance: Option<InstanceId>,
    /// What the source is told.
    pub report: PodReport,
}

/// The driver as others see it: cheap to clone, every call returns at once. After the driver ended, calls have no effect.
#[derive(Clone, Debug)]
pub struct DriverHandle {
    pub(super) core: Arc<Core>,
}

impl DriverHandle {
    /// Tells what is wanted of a pod. Intents of one pod are acted on in order. May be called before the driver runs: nothing is lost.
    pub fn intent(&self, pod: PodUid, intent: PodIntent) {
        self.core.intent(pod, intent);
    }

    /// Tells that every pod there is has been told: from now on a cell without a pod is an orphan. Repeating it is harmless.
    pub fn synced(&self) {
        self.core.synced();
    }

    /// Every pod the driver knows, with its cell, in no order.
    pub fn snapshot(&self) -> Vec<CellSnapshot> {
        self.core.snapshot(|state| CellSnapshot {
            pod: state.pod.reference.clone(),
            phase: state.phase(),
            record: state.record().cloned(),
            instance: state.instance().cloned(),
            report: project(state),
        })
    }

    /// Where a pod's host is reached, from when it has an address until it is given up.
    pub fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint> {
        self.core.read(pod, |state| state.endpoint()).flatten()
    }

    /// What is known about a pod.
    pub fn report(&self, pod: &PodUid) -> Option<PodReport> {
        self.core.read(pod, project)
    }

    /// The hosts themselves, for logs, sessions and statistics.
    pub fn runtime(&self) -> Arc<dyn PodRuntime> {
        Arc::clone(&self.core.runtime)
    }

    /// What can be bought, as last heard from the provider.
    pub fn offerings(&self) -> Arc<Vec<Offering>> {
        self.core.catalogue.offerings()
    }

    /// Whether records and instances have been read and taken over after the start.
    pub fn is_recovered(&self) -> bool {
        self.core.is_recovered()
    }

    /// Whether [`synced`](Self::synced) was called.
    pub fn is_synced(&self) -> bool {
        self.core.is_synced()
    }

    /// What was counted so far.
    pub fn metrics(&self) -> DriverMetrics {
        self.core.metrics()
    }
}

//! What the virtual node needs of the driver behind it.

use std::fmt;
use std::sync::Arc;

use crate::driver::{DriverHandle, PodIntent};
use crate::ids::PodUid;
use crate::model::{Bytes, CpuMillis, PodReport};
use crate::runtime::{CellEndpoint, PodRuntime};

/// The driver as the virtual node sees it: it is told what pods are wanted, and asked where they run.
///
/// Every call returns at once. `DriverHandle` is the usual implementation; an embedder may put its own in its place.
pub trait PodDriver: fmt::Debug + Send + Sync + 'static {
    /// Tells what is wanted of a pod. A later intent for the same pod replaces an earlier one that was not acted on yet.
    fn intent(&self, pod: PodUid, intent: PodIntent);

    /// Tells that every pod there is has been told: from now on a cell without a pod is an orphan.
    fn synced(&self);

    /// Where a pod's host is reached, once its cell answers.
    fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint>;

    /// What is known about a pod.
    fn report(&self, pod: &PodUid) -> Option<PodReport>;

    /// CPU and memory of the pod's cell: what a container may use when it has no limit of its own.
    fn cell_size(&self, pod: &PodUid) -> Option<(CpuMillis, Bytes)>;

    /// The hosts themselves, for logs, sessions and statistics.
    fn runtime(&self) -> Arc<dyn PodRuntime>;
}

impl PodDriver for DriverHandle {
    fn intent(&self, pod: PodUid, intent: PodIntent) {
        Self::intent(self, pod, intent);
    }

    fn synced(&self) {
        Self::synced(self);
    }

    fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint> {
        Self::endpoint(self, pod)
    }

    fn report(&self, pod: &PodUid) -> Option<PodReport> {
        Self::report(self, pod)
    }

    fn cell_size(&self, pod: &PodUid) -> Option<(CpuMillis, Bytes)> {
        let bought = self.report(pod)?.offering?;
        let offerings = self.offerings();
        let offering = offerings.iter().find(|offering| offering.id == bought)?;
        Some((offering.cpu, offering.memory))
    }

    fn runtime(&self) -> Arc<dyn PodRuntime> {
        Self::runtime(self)
    }
}

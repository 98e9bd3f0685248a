//! What the virtual node needs of the driver behind it.

use std::fmt;
use std::sync::Arc;

use crate::driver::PodIntent;
use crate::ids::PodUid;
use crate::model::PodReport;
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

    /// The hosts themselves, for logs, sessions and statistics.
    fn runtime(&self) -> Arc<dyn PodRuntime>;
}

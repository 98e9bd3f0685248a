//! Where pods come from and where their status goes: the seam between the driver and Kubernetes, or any other source.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::ids::{CellName, PodRef, PodUid};
use crate::model::{PodDemand, PodManifest, PodReport};

/// What a source wants of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PodIntent {
    /// The pod is to run. Sent again whenever the pod changed, but never once its phase is `Succeeded` or `Failed`: it would run again.
    Run {
        /// What it needs.
        demand: Box<PodDemand>,
        /// Whether the pod's mutable parts changed since it was deployed: the driver fetches the manifest anew and updates the cell.
        refresh: bool,
        /// Seconds it may be active at most, counted from its start.
        active_deadline_seconds: Option<u64>,
        /// Whether a lost pod may be started again on another cell (restart policy not `Never`).
        restartable: bool,
        /// Whether the source has already reported this pod as started, before this controller began.
        started_before: bool,
    },
    /// The pod cannot be run at all; the text is the reason users read. The pod is reported Failed, nothing is launched.
    Refuse {
        /// What it would need, for its names.
        demand: Box<PodDemand>,
        /// CamelCase reason.
        reason: String,
        /// One sentence: which field, and what to do.
        message: String,
    },
    /// The pod is being deleted: stop it gracefully, then release it.
    Delete {
        /// How long its containers have from now on, before they are killed. A length and not a moment: clocks differ.
        grace: Duration,
    },
    /// The pod object is gone: stop at once, nothing to report to.
    Gone,
}

/// Something a user should see as an event on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodNotice {
    /// Whether it is a warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The container it is about, empty for the pod.
    pub container: String,
}

impl PodNotice {
    /// An ordinary notice about the pod.
    pub fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason: reason.into(),
            message: message.into(),
            container: String::new(),
        }
    }

    /// A warning about the pod.
    pub fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason: reason.into(),
            message: message.into(),
            container: String::new(),
        }
    }

    /// Names the container it is about.
    #[must_use]
    pub fn for_container(mut self, container: impl Into<String>) -> Self {
        self.container = container.into();
        self
    }
}

/// How a pod stands where pods live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not exist.
    Gone,
    /// It exists and has ended: its phase is `Succeeded` or `Failed`. Nothing of it may run again.
    Ended,
    /// It is being deleted, ended or not: it waits to be released.
    Deleting,
    /// It exists and is to run.
    Wanted,
}

/// Where pods come from and where their status goes. The driver calls it; it feeds the driver through
/// `DriverHandle`.
///
/// # Guarantees an implementer gives
/// Every call is safe to repeat. `publish` writes only what changed. A pod that no longer exists is success. What was published last stands:
/// when somebody else writes over it, a controller that was cut off for example, the source puts it right by itself, as the driver publishes
/// only what changes.
#[async_trait]
pub trait PodSource: fmt::Debug + Send + Sync + 'static {
    /// The pod with everything resolved, for the cell it will run on. Called just before deploy and before each update.
    ///
    /// # Errors
    /// `NotFound` when the pod is gone. Problems with a single container's configuration are not errors: they go into the manifest
    /// as `config_error`. Retryable errors delay the deploy.
    async fn manifest(&self, pod: &PodUid, cell: &CellName, host_ip: Option<IpAddr>) -> Result<PodManifest>;

    /// Tells the source the pod's status.
    ///
    /// # Errors
    /// Retryable errors are tried again with the then newest report.
    async fn publish(&self, pod: &PodUid, report: &PodReport) -> Result<()>;

    /// Tells a user something, best effort: failures are the implementer's to log.
    async fn notify(&self, pod: &PodUid, notice: PodNotice);

    /// How a pod with this name and UID stands now, read from where pods live and not from a cache. Asked before something is done that
    /// would be wrong if a cache had lost the pod, or its end.
    ///
    /// # Errors
    /// When it cannot be told: then nothing is done.
    async fn presence(&self, pod: &PodRef) -> Result<Presence>;

    /// Removes the pod object: it is stopped and its cell is on the way out. Only for the pod with this UID.
    ///
    /// # Errors
    /// Retryable errors are tried again. Already removed is success.
    async fn release(&self, pod: &PodUid) -> Result<()>;

    /// The driver's run is over, however it came: it asks and tells nothing any more. What is still going on for it ends here. Provided:
    /// nothing.
    fn ended(&self) {}
}

//! What the machine asks the driver to do. Each is safe to do twice.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{CellName, InstanceId, LaunchToken};
use crate::model::CellRecord;
use crate::runtime::CellEndpoint;

/// Something a user should see as an event on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The container it is about, empty for the pod.
    pub container: String,
}

/// Something to do. The driver does a step's actions in order; [`Save`](Self::Save) and [`Remove`](Self::Remove) are complete
/// before the next one starts, all others are only started.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Store this record (create or replace). Nothing after it happens unless it was stored.
    Save(Arc<CellRecord>),
    /// Remove the record: its instance is gone, or never existed.
    Remove {
        /// The record.
        cell: CellName,
    },
    /// Run the sizer: answers `Placed`, `NoFit` or `OfferingsFailed`.
    Place,
    /// Launch for this record: answers `Launched`.
    Launch(Arc<CellRecord>),
    /// List by token: answers `Found`.
    Find {
        /// Which cell.
        attempt: u32,
        /// The token to look for.
        token: LaunchToken,
    },
    /// Ask for the instance: answers `Observed`.
    Observe {
        /// Which cell.
        attempt: u32,
        /// The instance.
        instance: InstanceId,
    },
    /// Terminate: answers `Terminated`.
    Terminate {
        /// Which cell.
        attempt: u32,
        /// The instance.
        instance: InstanceId,
    },
    /// Follow the agent's reports, replacing an earlier connection: answers `Reported` many times, then `Disconnected`.
    Connect {
        /// Which cell.
        attempt: u32,
        /// Where its agent is.
        endpoint: CellEndpoint,
        /// How long dialling may take.
        patience: Duration,
    },
    /// Stop following.
    Disconnect {
        /// Which cell.
        attempt: u32,
    },
    /// Fetch the manifest and tell the agent to run it: answers `Deployed`.
    Deploy {
        /// Which cell.
        attempt: u32,
        /// Where its agent is.
        endpoint: CellEndpoint,
    },
    /// Fetch the manifest and give the agent what changed: answers `Updated`.
    Update {
        /// Which cell.
        attempt: u32,
        /// Where its agent is.
        endpoint: CellEndpoint,
    },
    /// Tell the agent to stop the pod: answers `Stopped`.
    Stop {
        /// Which cell.
        attempt: u32,
        /// Where its agent is.
        endpoint: CellEndpoint,
        /// How long containers have.
        grace: Duration,
        /// CamelCase reason.
        reason: &'static str,
    },
    /// Publish the state's report: answers `Published`. Only the newest matters.
    Publish,
    /// Tell the user something.
    Notify(Notice),
    /// Remove the pod object: answers `Released`.
    Release,
    /// Nothing of the pod is left: forget the state, unless there is an event it has not seen yet.
    Forget,
    /// Nothing was done about the event, for this reason.
    Ignored(&'static str),
}

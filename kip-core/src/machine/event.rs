//! What can happen to a pod: everything the machine ever learns.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::state::Wanted;
use crate::error::{Error, ErrorKind, Retry};
use crate::ids::InstanceId;
use crate::model::{Instance, RuntimeReport};
use crate::sizing::{Choice, NoFit};

/// What the machine needs to know of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What a retry is worth.
    pub retry: Retry,
    /// One line for people.
    pub message: String,
}

impl Failure {
    /// A failure with its kind's default retry.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: kind.default_retry(),
            message: message.into(),
        }
    }

    /// Whether the effect may have happened although the call failed.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Unexpected
        )
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            retry: error.retry(),
            message: error.chain().to_string(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Something that happened. `attempt` says which cell it is about: news of an earlier cell changes nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The source said what it wants.
    Wanted {
        /// What it wants.
        wanted: Wanted,
        /// The running pod's mutable parts changed.
        refresh: bool,
        /// The source has reported this pod as started before.
        started_before: bool,
    },
    /// The sizer chose.
    Placed(Choice),
    /// The sizer found nothing.
    NoFit(NoFit),
    /// There is nothing to choose from yet.
    OfferingsFailed(Failure),
    /// There are new offerings to choose from.
    OfferingsChanged,
    /// A launch call answered.
    Launched {
        /// Which cell.
        attempt: u32,
        /// The instance.
        result: Result<Instance, Failure>,
    },
    /// A list by token answered.
    Found {
        /// Which cell.
        attempt: u32,
        /// The instance with the cell's token, if the whole list had one.
        result: Result<Option<Instance>, Failure>,
    },
    /// The provider answered about the instance.
    Observed {
        /// Which cell.
        attempt: u32,
        /// What it answered.
        result: Result<Instance, Failure>,
    },
    /// A terminate call answered; `NotFound` is the end.
    Terminated {
        /// Which cell.
        attempt: u32,
        /// What it answered.
        result: Result<(), Failure>,
    },
    /// The agent reported.
    Reported {
        /// Which cell.
        attempt: u32,
        /// All it knows.
        report: Arc<RuntimeReport>,
    },
    /// The agent cannot be reached, or the connection broke.
    Disconnected {
        /// Which cell.
        attempt: u32,
        /// Why.
        failure: Failure,
    },
    /// A deploy ended. Success means the agent accepted; that it has the pod is in its report.
    Deployed {
        /// Which cell.
        attempt: u32,
        /// What happened.
        result: Result<(), Failure>,
    },
    /// An update ended.
    Updated {
        /// Which cell.
        attempt: u32,
        /// What happened.
        result: Result<(), Failure>,
    },
    /// A stop call answered.
    Stopped {
        /// Which cell.
        attempt: u32,
        /// What it answered.
        result: Result<(), Failure>,
    },
    /// The cloud will take the instance back.
    Interrupted {
        /// Which instance.
        instance: InstanceId,
        /// When at the latest.
        deadline: Timestamp,
        /// In the cloud's words.
        reason: String,
    },
    /// The source took the report of this revision.
    Published {
        /// [`Pod::revision`](super::Pod::revision) of that report.
        revision: u64,
    },
    /// The source removed the pod object, or it was gone.
    Released,
    /// The time asked for by `wake_at` has come.
    Woke,
}

impl Event {
    /// Whether it says that the pod is being deleted.
    #[cfg(feature = "driver")]
    pub(crate) const fn is_deletion(&self) -> bool {
        matches!(
            self,
            Self::Wanted {
                wanted: Wanted::Deleted { .. },
                ..
            }
        )
    }

    /// The event's name, for logs and counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Wanted { .. } => "wanted",
            Self::Placed(_) => "placed",
            Self::NoFit(_) => "no_fit",
            Self::OfferingsFailed(_) => "offerings_failed",
            Self::OfferingsChanged => "offerings_changed",
            Self::Launched { .. } => "launched",
            Self::Found { .. } => "found",
            Self::Observed { .. } => "observed",
            Self::Terminated { .. } => "terminated",
            Self::Reported { .. } => "reported",
            Self::Disconnected { .. } => "disconnected",
            Self::Deployed { .. } => "deployed",
            Self::Updated { .. } => "updated",
            Self::Stopped { .. } => "stopped",
            Self::Interrupted { .. } => "interrupted",
            Self::Published { .. } => "published",
            Self::Released => "released",
            Self::Woke => "woke",
        }
    }
}

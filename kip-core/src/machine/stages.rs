//! What is known only in one stage of a pod's life.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::ids::InstanceId;
use crate::model::{CellRecord, Replaced};
use crate::runtime::CellEndpoint;
use crate::sizing::NoFit;

/// A cell whose instance is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The durable record, as it should be in the store.
    pub record: Arc<CellRecord>,
    /// The instance.
    pub instance: InstanceId,
    /// When this controller learned of it, by its own clock: clocks of different controllers differ, so a mark that another one set tells
    /// nothing about how long the cloud has had to make the instance known.
    pub known_at: Timestamp,
}

impl Cell {
    pub(crate) fn endpoint(&self, address: IpAddr) -> CellEndpoint {
        CellEndpoint {
            cell: self.record.host(),
            address,
        }
    }
}

/// Why a pod is not placed yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// The sizer has not answered yet.
    Placement,
    /// Nothing fits.
    NoFit(NoFit),
    /// There are no offerings to choose from; why.
    Offerings(String),
    /// The source has not spoken.
    Source,
}

/// Waits to be placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Since when.
    pub since: Timestamp,
    /// For what.
    pub waiting: Waiting,
    /// Whether the sizer is being asked.
    pub asking: bool,
    /// When it is asked again.
    pub retry_at: Timestamp,
}

/// What is under way about a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchCall {
    /// The launch call is on its way.
    InFlight,
    /// It is repeated then.
    RepeatAt(Timestamp),
    /// The list by token is on its way.
    Looking,
    /// The list by token is asked for then.
    LookAt(Timestamp),
    /// Recovered, and nothing was tried yet.
    Held,
}

/// The only stage in which it is unknown whether an instance exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Launching {
    /// The intent.
    pub record: Arc<CellRecord>,
    /// Since when.
    pub since: Timestamp,
    /// When the last launch call ended, or began if it has not: absence counts from here.
    pub last_call: Timestamp,
    /// Whether an instance may exist although no call said so.
    pub ambiguous: bool,
    /// Whether an instance of this token is to be terminated even if the pod should run: it was made with other parameters.
    pub discard: bool,
    /// What is under way.
    pub call: LaunchCall,
    /// Calls that failed.
    pub tries: u32,
    /// Why the last one failed.
    pub problem: Option<String>,
}

/// The instance exists, its address is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Booting {
    /// The cell.
    pub cell: Cell,
    /// Then it counts as failed.
    pub deadline: Timestamp,
    /// Whether a question is on its way.
    pub asking: bool,
    /// When the next question is due.
    pub ask_at: Timestamp,
    /// Questions asked.
    pub asked: u32,
}

/// The connection to an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// Dialling; failed so often before.
    Dialling {
        /// Failures in a row.
        tries: u32,
        /// Since when.
        since: Timestamp,
    },
    /// Connected, and reporting.
    Up {
        /// The last report.
        last_seen: Timestamp,
    },
    /// To be dialled again.
    Down {
        /// Failures in a row.
        tries: u32,
        /// When.
        redial_at: Timestamp,
        /// Why it is down.
        problem: String,
    },
}

/// The address is known, the agent has not answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Connecting {
    /// The cell.
    pub cell: Cell,
    /// Its address.
    pub address: IpAddr,
    /// Then it counts as failed.
    pub deadline: Timestamp,
    /// The connection.
    pub link: Link,
}

/// What is under way about a call that is repeated until it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Not needed now.
    Idle,
    /// On its way.
    InFlight {
        /// Failures before.
        tries: u32,
    },
    /// Repeated then.
    RepeatAt {
        /// Failures so far.
        tries: u32,
        /// When.
        at: Timestamp,
    },
    /// Succeeded.
    Done,
}

/// The agent answers, and is told to run the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploying {
    /// The cell.
    pub cell: Cell,
    /// Its address.
    pub address: IpAddr,
    /// Then it counts as failed.
    pub deadline: Timestamp,
    /// The connection.
    pub link: Link,
    /// The deploy.
    pub deploy: Call,
    /// Why the last deploy failed.
    pub problem: Option<String>,
}

/// The agent has the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The cell.
    pub cell: Cell,
    /// Its address, if known: an adopted cell may have to be asked for it.
    pub address: Option<IpAddr>,
    /// The connection.
    pub link: Link,
    /// Since when nothing was heard.
    pub silent_since: Option<Timestamp>,
    /// Whether users were told of the silence: a short one is not worth a word.
    pub is_announced: bool,
    /// Whether the provider is being asked about the instance.
    pub asking: bool,
    /// When it is asked next, while the agent is silent.
    pub ask_at: Timestamp,
    /// The update owed to the host.
    pub update: Call,
}

/// Why a running pod is being stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainCause {
    /// It is being deleted.
    Deleted,
    /// It was active for too long.
    DeadlineExceeded,
    /// The cloud takes the instance back; in its words.
    Interrupted(String),
}

impl DrainCause {
    /// What an agent is told, and tells again: that the cloud takes the instance back.
    pub(crate) const INTERRUPTED: &'static str = "Interrupted";

    /// The reason as an agent is told it.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Deleted => "Deleted",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Interrupted(_) => Self::INTERRUPTED,
        }
    }
}

/// The agent is told to stop the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Draining {
    /// The cell.
    pub cell: Cell,
    /// Its address, if known.
    pub address: Option<IpAddr>,
    /// The connection.
    pub link: Link,
    /// Why.
    pub cause: DrainCause,
    /// When the agent kills the containers.
    pub kill_at: Timestamp,
    /// Then the instance is terminated, confirmed or not.
    pub deadline: Timestamp,
    /// The stop.
    pub stop: Call,
    /// Whether a deploy was under way when the stop was decided: it may reach the agent after a stop that found nothing to stop.
    pub is_deploying: bool,
}

/// The instance of an earlier attempt on its way out, while the next attempt is made beside it: the replacement of an interrupted
/// cell. The next one is not told to run the pod before [`is_over`](Self::is_over).
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Which instance, and where its agent is.
    pub replaced: Replaced,
    /// From then on the provider's `NotFound` is believed.
    pub absence_counts_at: Timestamp,
    /// Why it goes.
    pub why: String,
    /// When its agent kills the containers.
    pub kill_at: Timestamp,
    /// Then it is terminated, confirmed or not.
    pub deadline: Timestamp,
    /// The connection.
    pub link: Link,
    /// The stop.
    pub stop: Call,
    /// Whether a deploy was under way when it was interrupted: it may reach the agent after a stop that found nothing to stop.
    pub is_deploying: bool,
    /// Whether it runs nothing any more, or never did: its agent said so.
    pub has_ended: bool,
    /// Since when it is being terminated.
    pub terminating_since: Option<Timestamp>,
    /// The repeated terminate.
    pub terminate: Call,
    /// Whether the provider accepted a terminate.
    pub accepted: bool,
}

impl Outgoing {
    /// Whether the pod cannot run there any more: its agent said it has ended, and the provider takes the instance down. Anything less
    /// waits until the provider says the instance is gone.
    pub fn is_over(&self) -> bool {
        self.has_ended && self.accepted
    }
}

/// What comes after the instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing: the pod has ended.
    Finish,
    /// Another attempt.
    Retry(Setback),
}

/// What kind of setback of the infrastructure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetbackKind {
    /// An account limit is reached.
    Quota,
    /// The cloud did not launch.
    Launch,
    /// The instance never became a host.
    Boot,
    /// The instance vanished under the running pod.
    Lost,
    /// The cloud took the instance back.
    Interrupted,
}

/// A setback of the infrastructure. The workload's own failures are never one: they are the agent's to retry, or a [`Verdict`](super::Verdict).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// What kind.
    pub kind: SetbackKind,
    /// One sentence.
    pub message: String,
}

/// The instance is to be terminated, and asked for until it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Terminating {
    /// The cell.
    pub cell: Cell,
    /// What comes after.
    pub after: After,
    /// Since when.
    pub since: Timestamp,
    /// Whether the provider accepted a terminate.
    pub accepted: bool,
    /// The repeated terminate.
    pub call: Call,
    /// Why the last terminate failed.
    pub problem: Option<String>,
}

/// Waits before another attempt after the infrastructure failed.
#[derive(Clone, Debug, PartialEq)]
pub struct BackingOff {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub cause: Setback,
}

/// Ended, with nothing left in the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Since when.
    pub since: Timestamp,
}

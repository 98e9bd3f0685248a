//! What the reconciler's one task hears from the rest of the agent.

use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::{InstanceNotice, Pod};
use tokio::sync::oneshot;

use crate::cri::{CallError, RuntimeEvent};
use crate::pod::model::{Image, Observed, Op, Run, Sandbox};
use crate::probes::Report;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the agent holds no pod")]
    NoPod,
    #[error("the agent holds pod {held}, and a cell is never used for a second pod ({asked})")]
    OtherPod { held: String, asked: String },
    #[error("this cell was launched for pod {meant_for}, not for {asked}")]
    OtherCell { meant_for: String, asked: String },
    #[error("pod {0} was told to stop on this cell, and is never started here again")]
    Stopped(String),
    #[error("{0}")]
    Immutable(String),
    #[error("the request could not be stored, and would not survive the agent: {0}")]
    Store(String),
}

/// Answers a request.
pub(crate) type Reply = oneshot::Sender<Result<(), Refusal>>;

/// One piece of news.
#[derive(Debug)]
pub(crate) enum Message {
    Deploy(Box<Pod>, Reply),
    Update(Box<Pod>, Reply),
    Stop {
        pod_uid: String,
        deadline: Timestamp,
        reason: String,
        reply: Reply,
    },
    Runtime(RuntimeEvent),
    /// Something may have been missed.
    Relist,
    /// A listing that began when the loop's count stood at `began`.
    Listed {
        began: u64,
        result: Result<Observed, CallError>,
    },
    /// A container as just read.
    Seen(Box<Run>),
    Pulling {
        container: String,
        image: String,
    },
    /// A credential provider could not tell the login for a container's image.
    NoCredentials {
        container: String,
        problem: String,
    },
    Created {
        container: String,
    },
    HookFailed {
        container: String,
        error: String,
    },
    Done(Op, Done),
    Probe(Report),
    /// All that the cloud announces about the instance now.
    Notices(Vec<InstanceNotice>),
    /// A record was written in the background.
    Saved {
        version: u64,
        result: Result<(), String>,
    },
}

/// How a piece of work ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// Remarks worth an event, or what went wrong.
    Volumes(Result<Vec<String>, String>),
    Sandbox(Result<Sandbox, String>),
    Image {
        container: String,
        /// The name it was asked for by.
        image: String,
        /// The image and how long its pull took, or reason and message.
        result: Result<(Image, Option<Duration>), (String, String)>,
    },
    /// The run's id and the outcome of its post-start hook, or reason and message.
    Started {
        container: String,
        result: Result<(String, Result<(), String>), (String, String)>,
    },
    /// The run afterwards, nothing when the runtime has it no more.
    Stopped {
        id: String,
        result: Result<Option<Box<Run>>, String>,
    },
    SandboxStopped {
        id: String,
        result: Result<(), String>,
    },
    ContainerRemoved {
        id: String,
        result: Result<(), String>,
    },
    SandboxRemoved {
        id: String,
        result: Result<(), String>,
    },
}

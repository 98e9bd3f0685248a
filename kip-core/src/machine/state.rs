//! Where a pod is: what is common to all stages, and what only one stage has.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::edges::Phase;
use crate::ids::{InstanceId, PodRef};
use crate::model::{CellMarks, CellRecord, PodDemand, PodPhase, RuntimeReport};
use crate::runtime::CellEndpoint;
use crate::sizing::{Avoid, NoFit};

/// What the source wants of the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// The source has not spoken since the controller started: nothing is launched and nothing is ended.
    Unknown,
    /// It is to run.
    Run {
        /// What it needs.
        demand: Arc<PodDemand>,
        /// How long it may be active, from when it was first seen.
        active_deadline: Option<Duration>,
        /// Whether it may be started again on another cell when its cell is lost.
        restartable: bool,
    },
    /// It cannot run.
    Refused {
        /// CamelCase reason.
        reason: String,
        /// One sentence.
        message: String,
    },
    /// It is being deleted.
    Deleted {
        /// When its containers are killed at the latest.
        deadline: Timestamp,
    },
    /// The object is gone.
    Gone,
}

/// How the pod ended, decided once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Succeeded` or `Failed`.
    pub phase: PodPhase,
    /// CamelCase reason, may be empty.
    pub reason: String,
    /// One sentence, may be empty.
    pub message: String,
    /// Set when the infrastructure is to blame: why.
    pub disruption: Option<String>,
}

/// How far the removal of the pod object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Not asked for.
    No,
    /// Asked for.
    Asked,
    /// Done.
    Done,
}

/// What all stages have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Which pod it is.
    pub reference: PodRef,
    /// What the source wants.
    pub wanted: Wanted,
    /// The last attempt made; 0 before the first.
    pub attempt: u32,
    /// Failures of the infrastructure in a row.
    pub failures: u32,
    /// Of these, those that cost an instance.
    pub failed_boots: u32,
    /// Offerings this pod is not to try.
    pub avoid: Avoid,
    /// When it was first seen: its active deadline counts from here.
    pub seen_at: Timestamp,
    /// How it ended, once decided.
    pub verdict: Option<Verdict>,
    /// What the host said last, also after the host is gone.
    pub report: Option<Arc<RuntimeReport>>,
    /// Newest agent event that was passed on; None before the first report of an adopted cell.
    pub told_events: Option<u64>,
    /// The host's boot the above belongs to.
    pub boot_id: String,
    /// Whether an update of the running pod is owed to the host.
    pub refresh: bool,
    /// Grows with every change of the report.
    pub revision: u64,
    /// Newest revision the source took.
    pub published: u64,
    /// Since when only the source's confirmation is waited for.
    pub final_since: Option<Timestamp>,
    /// How far the removal of the pod object is.
    pub release: Release,
    /// Marks of the newest cell, kept after it is gone.
    pub marks: CellMarks,
}

/// A cell whose instance is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The durable record, as it should be in the store.
    pub record: Arc<CellRecord>,
    /// The instance.
    pub instance: InstanceId,
}

impl Cell {
    pub(crate) fn endpoint(&self, address: IpAddr) -> CellEndpoint {
        CellEndpoint {
            cell: self.record.name.clone(),
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

/// A setback of the infrastructure. The workload's own failures are never one: they are the agent's to retry, or a [`Verdict`].
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

/// Where a pod is in its life, with what is known only there.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Waits to be placed.
    Pending(Pending),
    /// Being launched: whether an instance exists is unknown.
    Launching(Launching),
    /// Has an instance without address.
    Booting(Booting),
    /// Has an address, the agent has not answered.
    Connecting(Connecting),
    /// The agent is being told to run it.
    Deploying(Deploying),
    /// The agent has it.
    Running(Running),
    /// The agent is being told to stop it.
    Draining(Draining),
    /// The instance is being terminated.
    Terminating(Terminating),
    /// Waits before another attempt.
    BackingOff(BackingOff),
    /// Ended.
    Finished(Finished),
}

/// Where a pod is: the machine's whole memory.
#[derive(Clone, Debug, PartialEq)]
pub struct PodState {
    /// What all stages have in common.
    pub pod: Pod,
    /// Where it is.
    pub stage: Stage,
}

impl PodState {
    /// A pod never heard of before. What is wanted of it comes as the first event.
    pub fn new(reference: PodRef, now: Timestamp) -> Self {
        Self {
            pod: Pod {
                reference,
                wanted: Wanted::Unknown,
                attempt: 0,
                failures: 0,
                failed_boots: 0,
                avoid: Avoid::none(),
                seen_at: now,
                verdict: None,
                report: None,
                told_events: Some(0),
                boot_id: String::new(),
                refresh: false,
                revision: 0,
                published: 0,
                final_since: None,
                release: Release::No,
                marks: CellMarks {
                    seen_at: Some(now),
                    ..CellMarks::default()
                },
            },
            stage: Stage::Pending(Pending {
                since: now,
                waiting: Waiting::Source,
                asking: false,
                retry_at: now,
            }),
        }
    }

    /// Which stage it is in.
    pub fn phase(&self) -> Phase {
        self.stage.phase()
    }

    /// The durable record, while there is one.
    pub fn record(&self) -> Option<&Arc<CellRecord>> {
        match &self.stage {
            Stage::Pending(_) | Stage::BackingOff(_) | Stage::Finished(_) => None,
            Stage::Launching(s) => Some(&s.record),
            Stage::Booting(s) => Some(&s.cell.record),
            Stage::Connecting(s) => Some(&s.cell.record),
            Stage::Deploying(s) => Some(&s.cell.record),
            Stage::Running(s) => Some(&s.cell.record),
            Stage::Draining(s) => Some(&s.cell.record),
            Stage::Terminating(s) => Some(&s.cell.record),
        }
    }

    /// The instance, while one is known.
    pub fn instance(&self) -> Option<&InstanceId> {
        match &self.stage {
            Stage::Pending(_) | Stage::BackingOff(_) | Stage::Finished(_) | Stage::Launching(_) => None,
            Stage::Booting(s) => Some(&s.cell.instance),
            Stage::Connecting(s) => Some(&s.cell.instance),
            Stage::Deploying(s) => Some(&s.cell.instance),
            Stage::Running(s) => Some(&s.cell.instance),
            Stage::Draining(s) => Some(&s.cell.instance),
            Stage::Terminating(s) => Some(&s.cell.instance),
        }
    }

    /// Where the agent is, while it holds the pod or is about to.
    pub fn endpoint(&self) -> Option<CellEndpoint> {
        match &self.stage {
            Stage::Connecting(s) => Some(s.cell.endpoint(s.address)),
            Stage::Deploying(s) => Some(s.cell.endpoint(s.address)),
            Stage::Running(s) => s.address.map(|address| s.cell.endpoint(address)),
            Stage::Draining(s) => s.address.map(|address| s.cell.endpoint(address)),
            Stage::Pending(_)
            | Stage::Launching(_)
            | Stage::Booting(_)
            | Stage::Terminating(_)
            | Stage::BackingOff(_)
            | Stage::Finished(_) => None,
        }
    }
}

impl Stage {
    /// Which stage it is.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Pending(_) => Phase::Pending,
            Self::Launching(_) => Phase::Launching,
            Self::Booting(_) => Phase::Booting,
            Self::Connecting(_) => Phase::Connecting,
            Self::Deploying(_) => Phase::Deploying,
            Self::Running(_) => Phase::Running,
            Self::Draining(_) => Phase::Draining,
            Self::Terminating(_) => Phase::Terminating,
            Self::BackingOff(_) => Phase::BackingOff,
            Self::Finished(_) => Phase::Finished,
        }
    }
}

impl Pod {
    /// Whether the source said the pod should go, or the pod has ended.
    pub fn must_end(&self) -> bool {
        self.verdict.is_some() || matches!(self.wanted, Wanted::Deleted { .. } | Wanted::Gone)
    }

    /// Whether the source has said that the pod should run, and it has not ended.
    pub fn may_run(&self) -> bool {
        self.verdict.is_none() && matches!(self.wanted, Wanted::Run { .. })
    }

    /// Whether the source has not spoken yet: then nothing is launched and nothing is ended.
    pub fn is_held(&self) -> bool {
        matches!(self.wanted, Wanted::Unknown)
    }

    /// Whether a lost pod may be started again.
    pub fn is_restartable(&self) -> bool {
        matches!(
            self.wanted,
            Wanted::Run {
                restartable: true,
                ..
            }
        )
    }
}

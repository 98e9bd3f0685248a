//! Where a pod is: what is common to all stages, and what only one stage has.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::edges::Phase;
pub use super::stages::{
    After, BackingOff, Booting, Call, Cell, Connecting, Deploying, DrainCause, Draining, Finished,
    LaunchCall, Launching, Link, Outgoing, Pending, Running, Setback, SetbackKind, Terminating, Waiting,
};
use crate::ids::{InstanceId, PodRef};
pub use crate::model::Verdict;
use crate::model::{CellMarks, CellRecord, PodDemand, RuntimeReport};
use crate::runtime::CellEndpoint;
use crate::sizing::Avoid;

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
    /// Failures of the infrastructure in a row, without the pod having run for [`settled_after`](crate::machine::StepConfig::settled_after).
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
    /// The record between attempts, as it is in the store: the next attempt overwrites it, the end removes it.
    pub kept: Option<Arc<CellRecord>>,
    /// The instance of an earlier attempt that is still on its way out.
    pub outgoing: Option<Box<Outgoing>>,
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
                kept: None,
                outgoing: None,
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

    /// The durable record, while there is one: of the attempt under way, or of the last one.
    pub fn record(&self) -> Option<&Arc<CellRecord>> {
        match &self.stage {
            Stage::Pending(_) | Stage::BackingOff(_) | Stage::Finished(_) => self.pod.kept.as_ref(),
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

    /// Every instance that may exist: of the attempt under way, and of one before that is on its way out.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        let outgoing = self
            .pod
            .outgoing
            .as_ref()
            .map(|outgoing| &outgoing.replaced.instance);
        self.instance().into_iter().chain(outgoing)
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

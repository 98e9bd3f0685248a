//! What the decisions are made from: the runtime's state as observed, and the agent's own memory beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::{Container, Pod};

use super::restart;

/// Sandboxes and containers of the pod, rebuilt from the runtime at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Every sandbox the runtime knows for the pod.
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    /// Every container the runtime knows for the pod, by id.
    pub(crate) runs: BTreeMap<String, Run>,
}

/// One sandbox as the runtime reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) ips: Vec<String>,
}

/// One run of a container: its n-th start is attempt n-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) sandbox_id: String,
    pub(crate) phase: Phase,
    /// Image name as the runtime reports it.
    pub(crate) image: String,
    /// Digest reference as the runtime reports it.
    pub(crate) image_ref: String,
    /// Image the pod asked for when this run was created.
    pub(crate) wanted_image: String,
    /// What is waited after this run ends before the next is started.
    pub(crate) backoff: Duration,
    pub(crate) log_path: String,
}

/// Where a run is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Created and not started.
    Created,
    /// Its process runs.
    Running { started_at: Timestamp },
    /// Its process ended, or never could be started.
    Exited(Exit),
    /// The runtime does not know.
    Unknown,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
}

impl Exit {
    /// Whether nothing of it ever ran: the runtime could not start it.
    pub(crate) fn is_start_error(&self) -> bool {
        self.reason == restart::START_ERROR
    }
}

impl Run {
    /// How the run ended, nothing while it has not.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Exited(exit) => Some(exit),
            Phase::Created | Phase::Running { .. } | Phase::Unknown => None,
        }
    }

    /// Its process may be alive.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Unknown)
    }
}

impl Observed {
    /// The newest sandbox that is ready.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes
            .values()
            .filter(|sandbox| sandbox.ready)
            .max_by_key(|sandbox| sandbox.attempt)
    }

    /// The newest run of a container, in whatever sandbox.
    pub(crate) fn newest(&self, name: &str) -> Option<&Run> {
        self.of(name).max_by_key(|run| run.attempt)
    }

    /// The run before the newest.
    pub(crate) fn previous(&self, name: &str) -> Option<&Run> {
        let newest = self.newest(name)?.attempt;
        self.of(name)
            .filter(|run| run.attempt < newest)
            .max_by_key(|run| run.attempt)
    }

    /// The newest run of a container, if it is in this sandbox.
    pub(crate) fn run_in(&self, sandbox_id: &str, name: &str) -> Option<&Run> {
        self.newest(name).filter(|run| run.sandbox_id == sandbox_id)
    }

    /// All runs of a container.
    pub(crate) fn of<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Run> + use<'a, 'n> {
        self.runs.values().filter(move |run| run.name == name)
    }
}

/// A request to end the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When the containers are killed.
    pub(crate) deadline: Timestamp,
    /// Why, for the events.
    pub(crate) reason: String,
}

/// Work under way. At most one of each at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    Volumes,
    Sandbox,
    Image(String),
    Start(String),
    /// By container id.
    Stop(String),
    StopSandbox(String),
    RemoveContainer(String),
    RemoveSandbox(String),
}

/// A failure that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For example `ErrImagePull`.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
    pub(crate) backoff: Duration,
}

impl Failure {
    /// When it is tried again.
    pub(crate) fn retry_at(&self) -> Timestamp {
        self.at
            .saturating_add(jiff::SignedDuration::try_from(self.backoff).unwrap_or_default())
            .unwrap_or(self.at)
    }
}

/// An image made ready for a container's next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The name asked for.
    pub(crate) name: String,
    /// The runtime's id, to create the container from exactly this one.
    pub(crate) id: String,
    /// User the image names by number.
    pub(crate) uid: Option<i64>,
    /// User the image names by name.
    pub(crate) username: String,
}

/// How far an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageState {
    Ready(Image),
    Failed(Failure),
}

/// What the agent knows besides the runtime's state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// Work under way.
    pub(crate) busy: BTreeSet<Op>,
    /// Volumes are in place.
    pub(crate) volumes_ready: bool,
    pub(crate) volumes_failure: Option<Failure>,
    pub(crate) sandbox_failure: Option<Failure>,
    /// Outcome of the last look at each container's image, used up by a start.
    pub(crate) images: BTreeMap<String, ImageState>,
    /// Containers that could not be created.
    pub(crate) failures: BTreeMap<String, Failure>,
    /// Ids of runs that passed their startup probe and post-start hook.
    pub(crate) started: BTreeSet<String>,
    /// Ids of runs whose readiness probe passes.
    pub(crate) ready: BTreeSet<String>,
    /// Runs to kill (failed probe, failed hook, changed image): grace period, by id.
    pub(crate) condemned: BTreeMap<String, Duration>,
    /// Names of containers that are restarted whatever the policy says, since their definition changed.
    pub(crate) replaced: BTreeSet<String>,
    /// Ids of runs that could not be started, as the runtime told the agent that asked.
    pub(crate) start_errors: BTreeSet<String>,
    /// Sandboxes that were stopped, so their network is free.
    pub(crate) stopped_sandboxes: BTreeSet<String>,
}

impl Memory {
    /// The run as it counts. The runtime breaks a start off when the agent that asked is killed, and calls the container
    /// ended: nothing of it ran and the pod did not fail, so it counts as created, and is made anew.
    pub(crate) fn counted(&self, mut run: Run) -> Run {
        let broken_off = run.exit().is_some_and(Exit::is_start_error) && !self.start_errors.contains(&run.id);
        if broken_off {
            run.phase = Phase::Created;
        }
        run
    }
}

/// One step to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    PrepareVolumes,
    RunSandbox {
        attempt: u32,
    },
    EnsureImage {
        container: String,
    },
    Start {
        container: String,
        attempt: u32,
        /// Stored with the run: what is waited after it ends.
        backoff: Duration,
        sandbox_id: String,
    },
    /// Runs the pre-stop hook, sends the stop signal and kills at the deadline.
    Stop {
        id: String,
        deadline: Timestamp,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
}

impl Action {
    /// The work it starts.
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::PrepareVolumes => Op::Volumes,
            Self::RunSandbox { .. } => Op::Sandbox,
            Self::EnsureImage { container } => Op::Image(container.clone()),
            Self::Start { container, .. } => Op::Start(container.clone()),
            Self::Stop { id, .. } => Op::Stop(id.clone()),
            Self::StopSandbox { id } => Op::StopSandbox(id.clone()),
            Self::RemoveContainer { id } => Op::RemoveContainer(id.clone()),
            Self::RemoveSandbox { id } => Op::RemoveSandbox(id.clone()),
        }
    }
}

/// Every container of the pod with its place in it.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Kind, &Container)> {
    let inits = pod
        .init_containers
        .iter()
        .map(|c| (if c.sidecar { Kind::Sidecar } else { Kind::Init }, c));
    inits.chain(pod.containers.iter().map(|c| (Kind::Main, c)))
}

/// Finds a container by name.
pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, &'a Container)> {
    containers(pod).find(|(_, container)| container.name == name)
}

/// A container's place in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to completion before the next.
    Init,
    /// Init container that keeps running.
    Sidecar,
    Main,
}

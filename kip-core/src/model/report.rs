//! What is known about a running pod: as a host reports it, and as Kip tells Kubernetes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CellMarks, InstanceNotice};
use crate::ids::{CellName, InstanceId, OfferingId};

/// Everything a host knows about its pod. Always complete, never a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeReport {
    /// UID of the pod the host holds, empty when none was deployed.
    pub pod_uid: String,
    /// Generation of the manifest this is about; 0 before the first deploy.
    pub observed_generation: u64,
    /// Changes whenever the host boots.
    pub boot_id: String,
    /// The pod's network exists.
    pub sandbox_ready: bool,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// Init containers, in the order of the spec.
    pub init_containers: Vec<ContainerReport>,
    /// Containers, in the order of the spec.
    pub containers: Vec<ContainerReport>,
    /// Termination was asked for.
    pub stopping: bool,
    /// Why it was asked for first, in the word of whoever asked; empty when it was not, and from hosts that do not tell.
    pub stop_reason: String,
    /// Every container has ended and none will be started again.
    pub finished: bool,
    /// Why the pod's sandbox could not be made; the host keeps trying.
    pub sandbox_error: Option<String>,
    /// When each step of the start was reached.
    pub marks: StartMarks,
    /// What a user should see as events, newest 64; ids grow.
    pub events: Vec<AgentEvent>,
    /// What the cloud announces about the instance now, as the host hears it.
    #[serde(default)]
    pub notices: Vec<InstanceNotice>,
}

/// When each step of the pod's start was reached, by the host's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartMarks {
    /// The agent started.
    pub agent_started_at: Option<Timestamp>,
    /// The manifest arrived.
    pub deployed_at: Option<Timestamp>,
    /// The sandbox had its network.
    pub sandbox_ready_at: Option<Timestamp>,
    /// Every image was present.
    pub images_ready_at: Option<Timestamp>,
    /// Every container was running or had run.
    pub running_at: Option<Timestamp>,
}

/// Something a user should see as a Kubernetes Event on the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentEvent {
    /// Grows with each event of one boot, so each is told once.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Whether it is a warning.
    pub warning: bool,
    /// CamelCase reason, as a kubelet uses.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The container it is about, empty for the pod.
    pub container: String,
}

/// One container's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerReport {
    /// Name in the pod spec.
    pub name: String,
    /// Image as asked for.
    pub image: String,
    /// Digest reference of the image that runs.
    pub image_id: String,
    /// `containerd://<id>`, empty before the first start.
    pub container_id: String,
    /// How often it was restarted.
    pub restart_count: u32,
    /// What it does now.
    pub state: ContainerState,
    /// How its previous run ended.
    pub last_state: Option<Termination>,
    /// Passes its readiness probe.
    pub ready: bool,
    /// Passed its startup probe.
    pub started: bool,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// Not running yet, or waiting to be restarted.
    Waiting {
        /// CamelCase reason, as a kubelet uses.
        reason: String,
        /// One sentence, may be empty.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Terminated(Termination),
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// Exit code; 137 is killed.
    pub exit_code: i32,
    /// Signal that ended it, 0 when none.
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// When the run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// `containerd://<id>` of that run.
    pub container_id: String,
}

/// A pod's phase, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PodPhase {
    /// Accepted; not all containers have started.
    Pending,
    /// At least one container runs or restarts.
    Running,
    /// All containers ended with exit code 0.
    Succeeded,
    /// All containers ended, at least one badly, or the pod was lost.
    Failed,
}

impl PodPhase {
    /// The name, as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// What Kip tells Kubernetes about a pod: a projection of the machine's state, never stored by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodReport {
    /// The phase.
    pub phase: PodPhase,
    /// CamelCase reason of the pod's state (`Launching`, `NoFit`, `Booting`, `DeadlineExceeded`, ...), empty when all is ordinary.
    pub reason: String,
    /// One sentence for people: why it waits, why it failed.
    pub message: String,
    /// The cell, once there is one.
    pub cell: Option<CellName>,
    /// The instance, once known.
    pub instance: Option<InstanceId>,
    /// What was bought.
    pub offering: Option<OfferingId>,
    /// The cell's management address: the pod's host address.
    pub host_ip: Option<IpAddr>,
    /// What the host said last, also after it is gone.
    pub runtime: Option<Arc<RuntimeReport>>,
    /// Whether the pod is lost through the infrastructure's fault (condition `DisruptionTarget`); the text is its message.
    pub disruption: Option<String>,
    /// When each stage of the cell was reached.
    pub marks: CellMarks,
    /// Why nothing is heard of a host that may well run the pod. None: it is heard, or there is no such host. While it is set, a pod whose
    /// status says that it runs is not told to have stopped.
    pub unheard: Option<Unheard>,
}

/// Why nothing is heard of a host that may well run the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unheard {
    /// The controller has just started and has not reached the host yet: there is nothing to say that is not said already.
    NotYet,
    /// The host does not answer, or not any more: the pod is told to run, and not as it should.
    Silent,
}

impl PodReport {
    /// A report with a phase, a reason and a message.
    pub fn new(phase: PodPhase, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            phase,
            reason: reason.into(),
            message: message.into(),
            cell: None,
            instance: None,
            offering: None,
            host_ip: None,
            runtime: None,
            disruption: None,
            marks: CellMarks::default(),
            unheard: None,
        }
    }
}

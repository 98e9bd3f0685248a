//! Plain data that every part of Kip shares: what a pod needs, what a cloud offers, what runs where.

mod cell;
mod demand;
mod instance;
mod labels;
mod launch_options;
mod manifest;
mod notice;
mod offering;
mod report;
mod requirement;
mod stored;
mod units;
mod verdict;

pub use cell::{CellMarks, CellPhase, CellRecord, Ending, Replaced};
pub use demand::PodDemand;
pub use instance::{Addresses, Instance, InstancePhase};
pub use labels::Labels;
pub use launch_options::LaunchOptions;
pub use manifest::{
    ContainerManifest, ContainerResources, ContainerSecurity, Dns, EmptyDir, EnvValue, EnvVar, FileContent,
    Files, Handler, HostAlias, HostPath, HttpHeader, PodManifest, PodSecurity, Probe, PullPolicy, PullSecret,
    RestartPolicy, Seccomp, VolumeManifest, VolumeMount, VolumeSource,
};
pub use notice::{InstanceNotice, NoticeKind};
pub use offering::{Architecture, CapacityType, Offering};
pub use report::{
    AgentEvent, ContainerReport, ContainerState, PodPhase, PodReport, RuntimeReport, StartMarks, Termination,
    Unheard,
};
pub use requirement::{Operator, Requirement};
pub use stored::{DamagedCell, StoredCell};
pub use units::{Bytes, CpuMillis, Price};
pub use verdict::Verdict;

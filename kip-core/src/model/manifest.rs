//! A pod with everything resolved that needs the cluster: what a host is told to run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Bytes, CpuMillis};
use crate::ids::PodRef;

/// When an ended container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always,
    /// When its exit code was not 0.
    OnFailure,
    /// Never.
    Never,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When it is not on the host.
    #[default]
    IfNotPresent,
    /// Never: it must be on the host.
    Never,
}

/// A pod with everything resolved that needs the cluster: environment, file contents, pull secrets, DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PodManifest {
    /// Which pod it is.
    pub pod: PodRef,
    /// Grows with every change sent to a host.
    pub generation: u64,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// Host name inside the pod.
    pub hostname: String,
    /// Fully qualified name for `/etc/hosts`, when the pod has a subdomain.
    pub fqdn: Option<String>,
    /// When ended containers are started again.
    pub restart_policy: RestartPolicy,
    /// Seconds a container has to end by itself.
    pub termination_grace_seconds: u32,
    /// Init containers in order.
    pub init_containers: Vec<ContainerManifest>,
    /// Containers.
    pub containers: Vec<ContainerManifest>,
    /// Volumes.
    pub volumes: Vec<VolumeManifest>,
    /// Registry credentials, in order of preference.
    pub pull_secrets: Vec<PullSecret>,
    /// Name resolution.
    pub dns: Dns,
    /// Extra lines of `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
    /// Uses the host's network.
    pub host_network: bool,
    /// Uses the host's process ids.
    pub host_pid: bool,
    /// Uses the host's IPC.
    pub host_ipc: bool,
    /// Containers see each other's processes.
    pub share_process_namespace: bool,
    /// Security settings of the pod.
    pub security: PodSecurity,
    /// Address reported as the pod's host.
    pub host_ip: String,
    /// Seconds the pod may run at most.
    pub active_deadline_seconds: Option<u64>,
}

impl PodManifest {
    /// A manifest with Kubernetes' defaults and no containers.
    pub fn new(pod: PodRef) -> Self {
        let hostname = pod.name.clone();
        Self {
            pod,
            generation: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            hostname,
            fqdn: None,
            restart_policy: RestartPolicy::Always,
            termination_grace_seconds: 30,
            init_containers: Vec::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            pull_secrets: Vec::new(),
            dns: Dns::default(),
            host_aliases: Vec::new(),
            host_network: false,
            host_pid: false,
            host_ipc: false,
            share_process_namespace: false,
            security: PodSecurity::default(),
            host_ip: String::new(),
            active_deadline_seconds: None,
        }
    }
}

/// One container, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerManifest {
    /// Name, unique in the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// When to pull it.
    pub pull_policy: PullPolicy,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty.
    pub args: Vec<String>,
    /// Working directory; empty is the image's.
    pub working_dir: String,
    /// Environment, in order.
    pub env: Vec<EnvVar>,
    /// Mounts.
    pub mounts: Vec<VolumeMount>,
    /// Requests and limits.
    pub resources: ContainerResources,
    /// Security settings.
    pub security: ContainerSecurity,
    /// Keeps stdin open.
    pub stdin: bool,
    /// Closes stdin after the first attach.
    pub stdin_once: bool,
    /// Allocates a terminal.
    pub tty: bool,
    /// Where the termination message is read from.
    pub termination_message_path: String,
    /// `FallbackToLogsOnError` instead of `File`.
    pub termination_message_from_logs: bool,
    /// For an init container: restarts always and does not hold up the next.
    pub sidecar: bool,
    /// Liveness probe.
    pub liveness: Option<Probe>,
    /// Readiness probe.
    pub readiness: Option<Probe>,
    /// Startup probe.
    pub startup: Option<Probe>,
    /// Hook after start.
    pub post_start: Option<Handler>,
    /// Hook before stop.
    pub pre_stop: Option<Handler>,
    /// Why this container's configuration could not be resolved: it waits as `CreateContainerConfigError`.
    pub config_error: Option<String>,
}

/// One environment variable. `Debug` does not print values, which may be secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, or what the host fills in.
    pub value: EnvValue,
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvVar({}=…)", self.name)
    }
}

/// The value of an environment variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// Resolved.
    Text(String),
    /// The pod's first address, known on the host.
    PodIp,
    /// All the pod's addresses, joined by commas.
    PodIps,
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::PodIp => "PodIp",
            Self::PodIps => "PodIps",
        })
    }
}

/// One mount of a volume in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// Name of the volume.
    pub volume: String,
    /// Absolute path in the container.
    pub mount_path: String,
    /// Path inside the volume, empty for its root.
    pub sub_path: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// `None`, `HostToContainer` or `Bidirectional`; empty is `None`.
    pub propagation: String,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeManifest {
    /// Name, unique in the pod.
    pub name: String,
    /// Where its content comes from.
    pub source: VolumeSource,
}

/// Where a volume's content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VolumeSource {
    /// Empty at the start.
    EmptyDir(EmptyDir),
    /// Files the controller resolved.
    Files(Files),
    /// A path on the host.
    HostPath(HostPath),
}

/// An empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyDir {
    /// In memory instead of on disk.
    pub memory: bool,
    /// At most so much; zero is no limit.
    pub size_limit: Bytes,
}

/// Files the controller resolved: ConfigMap, Secret, downward API, projected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The files.
    pub files: Vec<FileContent>,
    /// Holds secret material.
    pub secret: bool,
}

/// One file. `Debug` does not print its content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// Path relative to the volume, without `..`.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits, e.g. `0o644`.
    pub mode: u32,
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FileContent({}, {} bytes, {:o})",
            self.path,
            self.content.len(),
            self.mode
        )
    }
}

/// A path on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPath {
    /// Absolute path.
    pub path: String,
    /// As in Kubernetes: empty, `Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`, `Socket`.
    pub kind: String,
}

/// Credentials for one registry. `Debug` prints only the registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecret {
    /// Registry host, optionally with port and path, as in `.dockerconfigjson`.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Identity token, instead of a password.
    pub identity_token: String,
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullSecret({})", self.registry)
    }
}

/// Name resolution inside the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers; empty leaves the host's.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Names.
    pub hostnames: Vec<String>,
}

/// Security settings of a pod. None leaves the image's or the runtime's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurity {
    /// User id.
    pub run_as_user: Option<i64>,
    /// Group id.
    pub run_as_group: Option<i64>,
    /// Refuses to run as user 0.
    pub run_as_non_root: Option<bool>,
    /// Group that owns the volumes.
    pub fs_group: Option<i64>,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Seccomp profile.
    pub seccomp: Option<Seccomp>,
}

/// Security settings of a container; a set field beats the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSecurity {
    /// User id.
    pub run_as_user: Option<i64>,
    /// Group id.
    pub run_as_group: Option<i64>,
    /// Refuses to run as user 0.
    pub run_as_non_root: Option<bool>,
    /// All devices and capabilities.
    pub privileged: bool,
    /// Whether a process may gain privileges.
    pub allow_privilege_escalation: Option<bool>,
    /// Root file system is read-only.
    pub read_only_root_filesystem: bool,
    /// Capabilities to add.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Seccomp profile.
    pub seccomp: Option<Seccomp>,
}

/// A seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Seccomp {
    /// The runtime's default.
    RuntimeDefault,
    /// None at all.
    Unconfined,
    /// A file on the host.
    Localhost(String),
}

/// Requests and limits of a container; zero is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    /// CPU request.
    pub cpu_request: CpuMillis,
    /// CPU limit.
    pub cpu_limit: CpuMillis,
    /// Memory request.
    pub memory_request: Bytes,
    /// Memory limit.
    pub memory_limit: Bytes,
    /// Extended resources.
    pub extended: BTreeMap<String, u64>,
}

/// What a probe or a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Handler {
    /// Runs a command in the container; exit code 0 is success.
    Exec {
        /// The command and its arguments.
        command: Vec<String>,
    },
    /// Asks over HTTP; a status from 200 to 399 is success.
    HttpGet {
        /// Host, empty for the pod's address.
        host: String,
        /// Port.
        port: u16,
        /// Path.
        path: String,
        /// HTTPS, without checking the certificate.
        https: bool,
        /// Extra headers.
        headers: Vec<HttpHeader>,
    },
    /// Connects over TCP.
    Tcp {
        /// Host, empty for the pod's address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Asks the gRPC health service.
    Grpc {
        /// Port.
        port: u16,
        /// Service name, may be empty.
        service: String,
    },
    /// Waits (hooks only).
    Sleep {
        /// For so many seconds.
        seconds: u32,
    },
}

/// A header of an HTTP probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A probe, with Kubernetes' meaning and defaults already filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What it does.
    pub handler: Handler,
    /// Seconds before the first.
    pub initial_delay_seconds: u32,
    /// Seconds between two.
    pub period_seconds: u32,
    /// Seconds it may take.
    pub timeout_seconds: u32,
    /// Successes in a row that count.
    pub success_threshold: u32,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Overrides the pod's grace period when this probe kills the container.
    pub termination_grace_seconds: Option<u32>,
}

//! What a cell is told at boot: its identity and how to run, carried in user-data.

/// Where the boot configuration lies on a cell, relative to the cell's root folder.
pub const BOOT_CONFIG_PATH: &str = "/etc/kip/cell.json";

/// TCP port the agent listens on, on the cell's management address.
pub const AGENT_PORT: u16 = 6421;

/// Newest version of the boot configuration this crate writes and reads.
pub const BOOT_CONFIG_VERSION: u32 = 1;

/// The boot configuration: JSON at [`BOOT_CONFIG_PATH`], written by the cloud's user-data mechanism.
///
/// Unknown fields are ignored, so an older agent can be booted by a newer controller. It holds the cell's private key:
/// the file's mode is 0600 and [`Debug`](std::fmt::Debug) does not print the key.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootConfig {
    /// Version of this format, [`BOOT_CONFIG_VERSION`].
    pub version: u32,
    /// The cell's name: the DNS name in the server certificate.
    pub cell: String,
    /// The virtual node the cell belongs to.
    pub node: String,
    /// UID of the pod the cell was launched for.
    pub pod_uid: String,
    /// PEM certificate of the authority that signs both sides.
    pub ca_pem: String,
    /// PEM certificate the agent serves with.
    pub certificate_pem: String,
    /// PEM private key of that certificate.
    pub private_key_pem: String,
    /// Address and port to listen on; the default is every address, port [`AGENT_PORT`].
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Socket of the CRI runtime.
    #[serde(default = "default_runtime_socket")]
    pub runtime_socket: String,
    /// Folder for the agent's state, kept across restarts of the agent.
    #[serde(default = "default_state_dir")]
    pub state_dir: String,
    /// Parent cgroup for the pod, empty for the runtime's default.
    #[serde(default)]
    pub cgroup_parent: String,
    /// The cloud's metadata service, in which it announces what it will do to the instance. None: nothing is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataService>,
}

/// A cloud's metadata service, as an instance reaches it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataService {
    /// What is spoken there.
    pub kind: MetadataKind,
    /// Its URL without a path, such as `http://169.254.169.254`. Only plain HTTP, as clouds have it.
    pub endpoint: String,
}

impl MetadataService {
    /// EC2's, at the address every instance finds it. Source: "Access instance metadata for an EC2 instance", Amazon EC2 User Guide.
    pub fn ec2() -> Self {
        Self {
            kind: MetadataKind::Ec2,
            endpoint: "http://169.254.169.254".into(),
        }
    }
}

/// What a metadata service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum MetadataKind {
    /// EC2's, version 2: requests carry a token.
    Ec2,
    /// One that this version does not know: it is not asked.
    #[serde(other)]
    Unknown,
}

fn default_listen() -> String {
    format!("0.0.0.0:{AGENT_PORT}")
}

fn default_runtime_socket() -> String {
    "/run/containerd/containerd.sock".into()
}

fn default_state_dir() -> String {
    "/var/lib/kip-cell".into()
}

impl std::fmt::Debug for BootConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootConfig")
            .field("version", &self.version)
            .field("cell", &self.cell)
            .field("node", &self.node)
            .field("pod_uid", &self.pod_uid)
            .field("listen", &self.listen)
            .field("runtime_socket", &self.runtime_socket)
            .field("state_dir", &self.state_dir)
            .field("cgroup_parent", &self.cgroup_parent)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

//! What an embedder decides about the virtual node: its name, size, addresses, and how its endpoint is served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::NodeName;
use crate::model::Architecture;

/// Which of a container's two numbers counts when a cell is sized for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizingBasis {
    /// The limit where there is one, else the request.
    #[default]
    Limits,
    /// The request only.
    Requests,
}

/// A taint on the virtual node, so that only pods that tolerate it are placed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTaint {
    /// Its key; `virtual-kubelet.io/provider` by default.
    pub key: String,
    /// Its value; `kip` by default.
    pub value: String,
    /// `NoSchedule` (the default), `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Default for NodeTaint {
    fn default() -> Self {
        Self {
            key: "virtual-kubelet.io/provider".to_owned(),
            value: "kip".to_owned(),
            effect: "NoSchedule".to_owned(),
        }
    }
}

/// What the Kubernetes Node object says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeConfig {
    /// More labels; they win over Kip's own.
    pub labels: BTreeMap<String, String>,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
    /// The taint; None for none.
    pub taint: Option<NodeTaint>,
    /// Capacity and allocatable, by resource name, as Kubernetes quantities.
    pub capacity: BTreeMap<String, String>,
    /// `kubernetes.io/os`.
    pub operating_system: String,
    /// `kubernetes.io/arch`: what pods without any wish get.
    pub architecture: String,
    /// `topology.kubernetes.io/region`, when it is one.
    pub region: Option<String>,
    /// `topology.kubernetes.io/zone`, when all cells are in one.
    pub zone: Option<String>,
    /// `spec.providerID`, when wanted. It cannot be changed once set.
    pub provider_id: Option<String>,
    /// The address at which the API server reaches the endpoint, and the host address of the pods.
    pub internal_ip: IpAddr,
    /// Version shown by `kubectl get nodes`; must be `vMAJOR.MINOR.PATCH-...` of a Kubernetes the cluster accepts kubelets of.
    pub version: String,
    /// Keep cloud load balancers from sending traffic to the node.
    pub exclude_from_load_balancers: bool,
    /// How often the status is written although nothing changed; 5 minutes by default.
    pub status_interval: Duration,
}

impl NodeConfig {
    /// The version reported when nothing else is configured.
    pub const VERSION: &str = concat!("v1.37.0-kip-", env!("CARGO_PKG_VERSION"));

    /// A node reached at `internal_ip`, with room for 110 pods of 1000 CPUs and 4 TiB together.
    pub fn new(internal_ip: IpAddr) -> Self {
        let capacity = [
            ("cpu", "1000"),
            ("memory", "4Ti"),
            ("ephemeral-storage", "40Ti"),
            ("pods", "110"),
        ];
        Self {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taint: Some(NodeTaint::default()),
            capacity: capacity
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), amount.to_owned()))
                .collect(),
            operating_system: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            region: None,
            zone: None,
            provider_id: None,
            internal_ip,
            version: Self::VERSION.to_owned(),
            exclude_from_load_balancers: true,
            status_interval: Duration::from_secs(300),
        }
    }
}

/// How pods are read and turned into work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodsConfig {
    /// Only pods of this namespace; None is all.
    pub namespace: Option<String>,
    /// Which numbers a cell is sized by.
    pub basis: SizingBasis,
    /// What pods may run on that select no architecture and name no family of instance types; amd64 by default, for most images are
    /// made for that. Empty means any. See [`usual_architectures`].
    pub architectures: BTreeSet<Architecture>,
    /// Addresses of the cluster's DNS service, for pods with `dnsPolicy: ClusterFirst`. Empty: such pods use the cell's resolver.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain; `cluster.local` by default.
    pub cluster_domain: String,
    /// Whether a broken watch comes back after a wait with jitter, so that many controllers do not come back at once; true by default.
    /// A test that must play the same way each time says no.
    pub watch_jitter: bool,
}

impl Default for PodsConfig {
    fn default() -> Self {
        Self {
            namespace: None,
            basis: SizingBasis::Limits,
            architectures: BTreeSet::from([Architecture::Amd64]),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            watch_jitter: true,
        }
    }
}

/// What pods that say nothing may run on where these are offered: amd64 where there is some, else whatever there is. An image made for
/// amd64 alone would never start elsewhere, so arm64 is for pods that allow it.
pub fn usual_architectures(offered: impl IntoIterator<Item = Architecture>) -> BTreeSet<Architecture> {
    let offered: BTreeSet<Architecture> = offered.into_iter().collect();
    if offered.is_empty() || offered.contains(&Architecture::Amd64) {
        BTreeSet::from([Architecture::Amd64])
    } else {
        offered
    }
}

/// The certificate the endpoint serves.
#[derive(Clone, Default)]
pub enum ServingCertificate {
    /// A self-signed one, made at start. The API server must not be told to verify kubelet certificates.
    #[default]
    SelfSigned,
    /// Signed at start by this certificate authority.
    SignedBy {
        /// The authority's certificate, PEM.
        ca_certificate: String,
        /// The authority's private key, PEM.
        ca_key: String,
    },
    /// This one.
    Given {
        /// Certificate chain, PEM.
        certificate: String,
        /// Private key, PEM.
        key: String,
    },
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SelfSigned => "SelfSigned",
            Self::SignedBy { .. } => "SignedBy(…)",
            Self::Given { .. } => "Given(…)",
        })
    }
}

/// How the kubelet's HTTPS endpoint is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// Where it listens; port 0 takes a free one, and the Node object says which.
    pub listen: SocketAddr,
    /// Its certificate.
    pub certificate: ServingCertificate,
    /// Authorities whose client certificates are believed, PEM. None: only bearer tokens are.
    pub client_ca: Option<String>,
    /// How long a token the API server accepted is believed without asking again; 2 minutes by default.
    pub token_cache: Duration,
    /// How long a permission is believed; 5 minutes by default.
    pub allow_cache: Duration,
    /// How long a refusal is believed; 30 seconds by default.
    pub deny_cache: Duration,
}

impl EndpointConfig {
    /// The port kubelets listen on.
    pub const PORT: u16 = 10250;

    /// An endpoint on this address, self-signed, with bearer tokens only.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            certificate: ServingCertificate::SelfSigned,
            client_ca: None,
            token_cache: Duration::from_secs(120),
            allow_cache: Duration::from_secs(300),
            deny_cache: Duration::from_secs(30),
        }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, Self::PORT)))
    }
}

/// Everything the virtual node is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KubeletConfig {
    /// Name of the Node object.
    pub name: NodeName,
    /// What the Node object says.
    pub node: NodeConfig,
    /// How pods are read.
    pub pods: PodsConfig,
    /// How the endpoint is served.
    pub endpoint: EndpointConfig,
    /// How long the node counts as alive after its lease was last renewed; renewed four times as often. 40 seconds by default.
    pub lease_duration: Duration,
}

impl KubeletConfig {
    /// A node of this name, reached at `internal_ip`, with defaults for all else.
    pub fn new(name: NodeName, internal_ip: IpAddr) -> Self {
        Self {
            name,
            node: NodeConfig::new(internal_ip),
            pods: PodsConfig::default(),
            endpoint: EndpointConfig::default(),
            lease_duration: Duration::from_secs(40),
        }
    }

    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.name.as_str().is_empty() {
            problems.push("node name: give one".to_owned());
        }
        if let Some(taint) = &self.node.taint {
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
                problems.push(format!(
                    "taint effect {:?}: use NoSchedule, PreferNoSchedule or NoExecute",
                    taint.effect
                ));
            }
            if taint.key.is_empty() {
                problems.push("taint key: give one, or disable the taint".to_owned());
            }
        }
        for (name, amount) in &self.node.capacity {
            if let Err(error) = super::quantity::millis(amount) {
                problems.push(format!("capacity {name}: {error}"));
            }
        }
        if self.lease_duration < Duration::from_secs(4) {
            problems.push("lease duration: at least 4 seconds".to_owned());
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ConfigInvalid,
            "configure node",
            problems.join("; "),
        ))
    }
}

//! A cloud's record of one instance.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, LaunchToken, OfferingId};

/// Where an instance is in its life, in the words all clouds share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InstancePhase {
    /// Accepted, not yet running; costs nothing or little.
    Pending,
    /// Running and paid for.
    Running,
    /// On its way out.
    Terminating,
    /// Gone; the record may be shown for a while.
    Terminated,
}

/// The addresses of an instance. Each appears when the cloud has assigned it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Where the controller reaches the agent.
    pub management: Option<IpAddr>,
    /// The address the pod has, where it is another than the management address.
    pub pod: Option<IpAddr>,
}

/// A cloud's record of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Instance {
    /// The cloud's id.
    pub id: InstanceId,
    /// The whole name Kubernetes uses for it, such as `aws:///us-east-1a/i-0abc`.
    pub provider_id: String,
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// Its addresses, as far as they are known.
    pub addresses: Addresses,
    /// What was bought.
    pub offering: OfferingId,
    /// The token it was launched with, read back from its tags.
    pub token: Option<LaunchToken>,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
    /// When the cloud accepted the launch.
    pub launched_at: Timestamp,
    /// Why it ended or failed, in the cloud's words.
    pub reason: Option<String>,
}

impl Instance {
    /// A pending instance without addresses or tags.
    pub fn new(
        id: InstanceId,
        provider_id: impl Into<String>,
        offering: OfferingId,
        launched_at: Timestamp,
    ) -> Self {
        Self {
            id,
            provider_id: provider_id.into(),
            phase: InstancePhase::Pending,
            addresses: Addresses::default(),
            offering,
            token: None,
            tags: BTreeMap::new(),
            launched_at,
            reason: None,
        }
    }
}

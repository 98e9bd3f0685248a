//! Identifiers as types: a pod UID, an instance id and a launch token cannot be mistaken for one another.

use std::fmt;

use hmac_sha256::Hash;
use serde::{Deserialize, Serialize};

use crate::model::CapacityType;

macro_rules! string_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a value that came from its authority (an API server, a cloud). Nothing is checked.
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

string_id!(
    /// UID of the Kubernetes cluster: the UID of its `kube-system` namespace.
    ClusterUid
);
string_id!(
    /// Name of the virtual Kubernetes Node.
    NodeName
);
string_id!(
    /// UID of a Kubernetes Pod: the key of everything Kip does. Names are reused, UIDs are not.
    PodUid
);
string_id!(
    /// Name of a cell: a DNS label, and the DNS name in the cell's certificate.
    CellName
);
string_id!(
    /// A cloud's id of an instance, unique within one provider.
    InstanceId
);
string_id!(
    /// A cloud's name of an instance type, such as `c7g.large`.
    InstanceType
);
string_id!(
    /// A cloud's name of a zone, such as `us-east-1a`.
    Zone
);

/// What makes repeated launches one launch: the cloud's idempotency token, and a tag on the instance.
///
/// A pure function of everything that identifies an attempt, so a controller that forgot its state computes the same
/// token again. 40 hexadecimal characters: within the 64 ASCII characters EC2 allows for a client token.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchToken(String);

impl LaunchToken {
    /// The token of one attempt to launch a cell for a pod with the given offering. A changed offering is another token,
    /// because clouds reject a token that comes back with other parameters.
    pub fn derive(
        cluster: &ClusterUid,
        node: &NodeName,
        pod: &PodUid,
        attempt: u32,
        offering: &OfferingId,
    ) -> Self {
        let mut hash = Hash::new();
        let attempt = attempt.to_string();
        let offering = offering.to_string();
        for part in [cluster.as_str(), node.as_str(), pod.as_str(), &attempt, &offering] {
            // Length first, so that no two lists of parts run together to the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex(&hash.finalize()[..20]))
    }

    /// Wraps a token read back from an instance's tags or a stored record.
    pub fn from_stored(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the host this token launches: `cell-` and the token's first twelve characters.
    pub fn host_name(&self) -> CellName {
        CellName::new(format!("cell-{}", self.0.get(..12).unwrap_or(&self.0)))
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}

impl CellName {
    /// The name of a pod's record: `cell-` and twelve characters made of its UID. One name, so one record, for a pod's whole life.
    pub fn of_pod(pod: &PodUid) -> Self {
        Self(format!("cell-{}", hex(&Hash::hash(pod.as_str().as_bytes())[..6])))
    }
}

impl fmt::Display for LaunchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LaunchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaunchToken({})", self.0)
    }
}

/// What can be bought: an instance type in a zone under a capacity type. Displayed as `type/zone/capacity-type`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferingId {
    /// The instance type.
    pub instance_type: InstanceType,
    /// The zone.
    pub zone: Zone,
    /// How the capacity is bought.
    pub capacity_type: CapacityType,
}

impl fmt::Display for OfferingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.instance_type, self.zone, self.capacity_type)
    }
}

impl fmt::Debug for OfferingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfferingId({self})")
    }
}

/// A pod's UID together with the names people know it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// The UID, which identifies.
    pub uid: PodUid,
    /// The namespace, for messages and paths.
    pub namespace: String,
    /// The name, for messages and paths.
    pub name: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(name: &str) -> OfferingId {
        OfferingId {
            instance_type: InstanceType::new(name),
            zone: Zone::new("z1"),
            capacity_type: CapacityType::OnDemand,
        }
    }

    fn token(pod: &str, attempt: u32, instance_type: &str) -> LaunchToken {
        LaunchToken::derive(
            &ClusterUid::new("c"),
            &NodeName::new("n"),
            &PodUid::new(pod),
            attempt,
            &offering(instance_type),
        )
    }

    #[test]
    fn the_same_attempt_has_the_same_token_or_a_restart_would_buy_a_second_instance() {
        assert_eq!(token("p", 1, "small"), token("p", 1, "small"));
        assert_eq!(token("p", 1, "small").as_str().len(), 40);
    }

    #[test]
    fn whatever_changes_the_launch_changes_the_token_or_the_cloud_would_reject_or_confuse_it() {
        let base = token("p", 1, "small");
        for other in [
            token("q", 1, "small"),
            token("p", 2, "small"),
            token("p", 1, "large"),
        ] {
            assert_ne!(base, other);
        }
    }
}

//! What a pod asks of its instance beyond size and place.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Bytes;

/// What a pod asks of its instance beyond size and place. It is part of the launch call itself, so nothing of it is missing for a moment;
/// a provider refuses what it cannot give. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct LaunchOptions {
    /// Local storage the pod asked for by its resources, beside what the image holds; zero when it did not say.
    pub ephemeral_storage: Bytes,
    /// Size of the whole root volume, where the pod names one; zero when it did not say.
    pub volume_size: Bytes,
    /// No public address, whatever the provider's default.
    pub private_address_only: bool,
    /// Security groups (AWS) or network tags (GCP) beside the provider's own.
    pub security_groups: BTreeSet<String>,
    /// Identity of the instance, such as an instance profile, in place of the provider's default.
    pub identity: Option<String>,
    /// Address ranges, such as `10.9.0.0/16`, whose traffic the cloud's routers bring to the instance.
    pub routes: BTreeSet<String>,
    /// Hardware that no other customer's instances share, such as an EC2 Dedicated Instance.
    pub dedicated: bool,
    /// Labels of the pod, to be tags where the cloud takes them: the bill can be split by them.
    pub labels: BTreeMap<String, String>,
}

impl LaunchOptions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

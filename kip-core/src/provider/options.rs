//! Requests to a provider.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{CellName, LaunchToken, OfferingId};
use crate::model::{Bytes, LaunchOptions};

/// What an instance is given at boot. Holds a private key: `Debug` prints only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct UserData(Vec<u8>);

impl UserData {
    /// Largest user-data Kip sends: EC2's limit, the smallest of the three clouds, in bytes before base64.
    /// Source: "Instance user data", Amazon EC2 User Guide.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchRequest {
    /// Idempotency token.
    pub token: LaunchToken,
    /// Name of the cell, for names and tags people see.
    pub cell: CellName,
    /// What to buy.
    pub offering: OfferingId,
    /// What the instance is given at boot. The same token always comes with the same bytes.
    pub user_data: UserData,
    /// Tags to set in the same call.
    pub tags: BTreeMap<String, String>,
    /// What the pod asks of the instance beyond its size. A provider refuses what it cannot give.
    pub options: LaunchOptions,
}

impl LaunchRequest {
    /// A launch without tags that asks for nothing more.
    pub fn new(token: LaunchToken, offering: OfferingId, user_data: UserData) -> Self {
        Self {
            cell: token.host_name(),
            token,
            offering,
            user_data,
            tags: BTreeMap::new(),
            options: LaunchOptions::default(),
        }
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Sets what the pod asks beyond size.
    #[must_use]
    pub fn with_options(mut self, options: LaunchOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the size of the root volume.
    #[must_use]
    pub fn with_volume_size(mut self, size: Bytes) -> Self {
        self.options.volume_size = size;
        self
    }
}

/// Which instances to list: those that carry all the given tags. Terminated ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Tags that must all be present with these values.
    pub tags: BTreeMap<String, String>,
}

impl ListOptions {
    /// Requires a tag.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }
}

/// Which offerings are wanted. Empty asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfferingQuery {}

//! What a provider is and can do.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures_core::stream::BoxStream;
use jiff::Timestamp;

use crate::error::Result;
use crate::ids::InstanceId;
use crate::model::{Architecture, CapacityType, InstanceNotice, NoticeKind};

/// What a provider is called and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// Short name: `aws`, `gcp`, `azure`, `local`.
    pub name: String,
    /// Region it launches in.
    pub region: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

impl ProviderInfo {
    /// A provider with the given capabilities.
    pub fn new(name: impl Into<String>, region: impl Into<String>, capabilities: Capabilities) -> Self {
        Self {
            name: name.into(),
            region: region.into(),
            capabilities,
        }
    }
}

/// What a provider can do, as plain data, so that an impossible request is refused before any call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Architectures it sells.
    pub architectures: BTreeSet<Architecture>,
    /// Capacity types it sells.
    pub capacity_types: BTreeSet<CapacityType>,
    /// How long `list` may lag `launch`.
    pub list_lag: Duration,
    /// Largest user-data in bytes.
    pub user_data_max_bytes: usize,
    /// Whether interruption notices are given.
    pub interruption_notices: bool,
}

impl Default for Capabilities {
    /// amd64, on-demand, immediately consistent, 16 KiB of user-data, no notices.
    fn default() -> Self {
        Self {
            architectures: BTreeSet::from([Architecture::Amd64]),
            capacity_types: BTreeSet::from([CapacityType::OnDemand]),
            list_lag: Duration::ZERO,
            user_data_max_bytes: super::UserData::MAX_BYTES,
            interruption_notices: false,
        }
    }
}

/// Notice that an instance will be taken back, or of something else that a cloud announces about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptionNotice {
    /// Which instance.
    pub instance: InstanceId,
    /// What is announced, for when, and in which words.
    pub notice: InstanceNotice,
}

impl InterruptionNotice {
    /// Notice that an instance is taken back, and will be gone by this moment.
    pub fn new(instance: InstanceId, deadline: Timestamp, reason: impl Into<String>) -> Self {
        Self::of_kind(NoticeKind::Interruption, instance, deadline, reason)
    }

    /// Any notice; `at` as in [`InstanceNotice::at`].
    pub fn of_kind(kind: NoticeKind, instance: InstanceId, at: Timestamp, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            instance,
            notice: InstanceNotice { kind, at, reason },
        }
    }
}

/// Optional power: notices before an instance is taken back.
pub trait InterruptionFeed: fmt::Debug + Send + Sync {
    /// Notices from now on. The same notice may come more than once.
    fn notices(&self) -> BoxStream<'static, Result<InterruptionNotice>>;
}

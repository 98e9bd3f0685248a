//! What a cloud announces about an instance before it does it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a cloud announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum NoticeKind {
    /// The instance is taken back, or is being ended already.
    Interruption,
    /// The instance will be stopped, retired or rebooted: what runs on it ends. Often announced weeks ahead.
    Maintenance,
    /// The instance may be slow or unreachable for a while; what runs on it goes on.
    LiveMaintenance,
    /// The instance is more likely than others to be taken back soon.
    Rebalance,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Interruption,
        Self::Maintenance,
        Self::LiveMaintenance,
        Self::Rebalance,
    ];

    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::Maintenance => "maintenance",
            Self::LiveMaintenance => "live_maintenance",
            Self::Rebalance => "rebalance",
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One announcement about one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceNotice {
    /// What is announced.
    pub kind: NoticeKind,
    /// Interruption: when the instance is taken at the latest. Maintenance of either kind: when it begins at the earliest. Rebalance: when
    /// it was said.
    pub at: Timestamp,
    /// One line in the cloud's words.
    pub reason: String,
}

//! How a pod ended.

use serde::{Deserialize, Serialize};

use super::PodPhase;

/// How a pod ended, decided once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `Succeeded` or `Failed`.
    pub phase: PodPhase,
    /// CamelCase reason, may be empty.
    pub reason: String,
    /// One sentence, may be empty.
    pub message: String,
    /// Set when the infrastructure is to blame: why.
    pub disruption: Option<String>,
}

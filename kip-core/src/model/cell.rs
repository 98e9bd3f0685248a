//! The durable record of a cell.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Addresses, Price};
use crate::ids::{CellName, ClusterUid, InstanceId, LaunchToken, NodeName, OfferingId, PodRef};

/// Where a cell is in its life, as far as it must survive a restart of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CellPhase {
    /// The intent is recorded; whether an instance exists is not known yet.
    Launching,
    /// The instance exists; the pod is not running yet.
    Booting,
    /// The pod was told to run on it.
    Running,
    /// The instance is to be terminated and forgotten.
    Terminating,
}

/// When each stage was reached. Each is set once and kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CellMarks {
    /// The pod was first seen on the node.
    pub seen_at: Option<Timestamp>,
    /// The offering was chosen.
    pub decided_at: Option<Timestamp>,
    /// The cloud accepted the launch.
    pub launched_at: Option<Timestamp>,
    /// The agent answered for the first time.
    pub connected_at: Option<Timestamp>,
    /// Images were on the cell.
    pub images_at: Option<Timestamp>,
    /// Every container was running (or had run).
    pub running_at: Option<Timestamp>,
    /// Termination was decided.
    pub terminating_at: Option<Timestamp>,
}

/// The durable record of a cell: written before the launch call, removed only when the instance is gone.
///
/// Written at most four times in an ordinary life: intent, instance known, running, terminating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CellRecord {
    /// The cell's name, derived from the token.
    pub name: CellName,
    /// The pod it runs.
    pub pod: PodRef,
    /// The virtual node the pod is bound to.
    pub node: NodeName,
    /// The cluster.
    pub cluster: ClusterUid,
    /// Which attempt for this pod it is, from 1.
    pub attempt: u32,
    /// The token of its launch.
    pub token: LaunchToken,
    /// What was chosen.
    pub offering: OfferingId,
    /// What it costs, as known when it was chosen.
    pub price: Price,
    /// When the launch was decided: part of the identity put in user-data, so a repeated launch sends the same bytes.
    pub issued_at: Timestamp,
    /// Where it is in its life.
    pub phase: CellPhase,
    /// The instance, once known.
    pub instance: Option<InstanceId>,
    /// The instance's addresses, once known.
    pub addresses: Addresses,
    /// When each stage was reached.
    pub marks: CellMarks,
    /// Why it is being terminated, in words for people.
    pub reason: Option<String>,
    /// The store's version of this record, for compare-and-swap; empty before the first write.
    #[serde(skip)]
    pub version: String,
}

impl CellRecord {
    /// The record of an intent to launch.
    #[expect(
        clippy::too_many_arguments,
        reason = "every part is required; a builder would only hide a missing one"
    )]
    pub fn intent(
        pod: PodRef,
        node: NodeName,
        cluster: ClusterUid,
        attempt: u32,
        token: LaunchToken,
        offering: OfferingId,
        price: Price,
        issued_at: Timestamp,
    ) -> Self {
        Self {
            name: token.cell_name(),
            pod,
            node,
            cluster,
            attempt,
            token,
            offering,
            price,
            issued_at,
            phase: CellPhase::Launching,
            instance: None,
            addresses: Addresses::default(),
            marks: CellMarks {
                decided_at: Some(issued_at),
                ..CellMarks::default()
            },
            reason: None,
            version: String::new(),
        }
    }
}

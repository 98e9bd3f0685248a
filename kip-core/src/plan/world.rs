//! What the planner is shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Suspects;
use crate::ids::{ClusterUid, NodeName, PodUid};
use crate::model::{CellRecord, Instance, StoredCell};

/// What a machine in memory holds of its pod's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCell {
    /// The pod.
    pub pod: PodUid,
    /// The record, with what was decided and not stored yet.
    pub record: Option<Arc<CellRecord>>,
    /// The version in which it was last stored; empty when it never was, or was removed.
    pub version: String,
}

/// What is known at the moment of a sweep. A listing that failed, or broke off, is `None`, never an empty or a partial list.
///
/// Read the instances *before* the records, and the records before what machines hold and before the pods: what is created in between
/// then looks claimed, not left over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct World {
    /// Our cluster.
    pub cluster: ClusterUid,
    /// Our node.
    pub node: NodeName,
    /// Whether the pod cache and the records have been read completely since the controller started.
    pub synced: bool,
    /// Instances the provider lists.
    pub instances: Option<Vec<Instance>>,
    /// Records the store lists, damaged ones included.
    pub stored: Option<Vec<StoredCell>>,
    /// Records that machines hold in memory. They do not stand for the store's: what either names is claimed.
    pub known: Vec<KnownCell>,
    /// Every pod that exists on our node, also those that are being deleted or have finished.
    pub pods: Option<BTreeSet<PodUid>>,
    /// What the sweep before returned.
    pub suspects: Suspects,
}

impl World {
    /// A world of which nothing is known yet.
    pub fn new(cluster: ClusterUid, node: NodeName) -> Self {
        Self {
            cluster,
            node,
            synced: false,
            instances: None,
            stored: None,
            known: Vec::new(),
            pods: None,
            suspects: Suspects::default(),
        }
    }
}

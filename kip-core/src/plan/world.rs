//! What the planner is shown.

use std::collections::BTreeSet;

use super::Suspects;
use crate::ids::{ClusterUid, NodeName, PodUid};
use crate::model::{CellRecord, Instance};

/// What is known at the moment of a sweep. A listing that failed, or broke off, is `None`, never an empty or a partial list.
///
/// Read the instances *before* the records and the records before the pods: what is created in between then looks claimed, not left over.
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
    /// Records of the store together with those that machines hold in memory.
    pub cells: Option<Vec<CellRecord>>,
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
            cells: None,
            pods: None,
            suspects: Suspects::default(),
        }
    }
}

//! What the endpoint needs to know of the node's pods.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::ids::PodUid;
use crate::model::PodReport;
use crate::runtime::CellEndpoint;

/// The node's pods as the endpoint sees them. Answers from memory.
pub trait PodDirectory: fmt::Debug + Send + Sync + 'static {
    /// The pod of this name that is bound to the node. With a recreated pod the one that is not being deleted.
    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// All pods bound to the node.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// Where the pod's cell is reached, once its agent has answered.
    fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint>;

    /// What Kip last said about the pod.
    fn report(&self, pod: &PodUid) -> Option<PodReport>;

    /// The logs of a container that were kept when its cell was terminated: lines, each behind an RFC 3339 timestamp and a space.
    fn kept_logs(&self, pod: &PodUid, container: &str) -> Option<Arc<Vec<u8>>>;
}

//! The node's pods as its endpoint sees them: from the watch and the driver.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::api::PodDirectory;
use super::handle::PodDriver;
use super::registry::PodRegistry;
use super::salvage::Salvage;
use crate::ids::PodUid;
use crate::model::PodReport;
use crate::runtime::CellEndpoint;

/// The node's pods.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) registry: Arc<PodRegistry>,
    pub(crate) driver: Arc<dyn PodDriver>,
    pub(crate) salvage: Arc<Salvage>,
}

impl PodDirectory for Directory {
    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.registry.by_name(namespace, name)
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.registry.pods()
    }

    fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint> {
        self.driver.endpoint(pod)
    }

    fn report(&self, pod: &PodUid) -> Option<PodReport> {
        self.driver.report(pod)
    }

    fn kept_logs(&self, pod: &PodUid, container: &str) -> Option<Arc<Vec<u8>>> {
        self.salvage.get(pod, container)
    }
}

//! The pods bound to this node as last seen, by UID, with what was done about each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use crate::ids::PodUid;

/// The pods bound to this node.
#[derive(Debug, Default)]
pub(crate) struct PodRegistry {
    pods: Mutex<BTreeMap<PodUid, Entry>>,
    renewals: Notify,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The newest copy of the object.
    pub(crate) pod: Arc<Pod>,
    /// Whether the API already said that a container of it had started when this process first saw it.
    pub(crate) started_before: bool,
    /// Fingerprint of the object when the driver was last told about it.
    pub(crate) told: Option<u64>,
    /// The driver was told that somebody else ended the pod.
    pub(crate) let_go: bool,
    /// The manifest built last.
    pub(crate) built: Option<Built>,
}

/// What a manifest was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Built {
    /// Generation of the manifest.
    pub(crate) manifest: u64,
    /// Generation of the pod it was built from.
    pub(crate) pod: i64,
    /// Generation of the pod before this one was built: what a host that has not taken it yet acts on.
    pub(crate) previous_pod: i64,
    /// Fingerprint of the pod it was built from.
    pub(crate) fingerprint: u64,
    /// When it must be built again: a token in it must be renewed, something could not be read, or the host runs another one.
    pub(crate) renew_at: Option<Timestamp>,
}

impl PodRegistry {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<PodUid, Entry>> {
        // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a copy of a pod, unless a newer one is known. Returns the pod's entry.
    pub(crate) fn see(&self, mut pod: Pod) -> Option<Entry> {
        let uid = uid_of(&pod)?;
        // Often half of the object, and of no use here.
        pod.metadata.managed_fields = None;
        let mut pods = self.locked();
        let entry = pods.entry(uid).or_insert_with(|| Entry {
            started_before: has_started(&pod),
            pod: Arc::new(pod.clone()),
            told: None,
            let_go: false,
            built: None,
        });
        if !is_older(&pod, &entry.pod) {
            entry.pod = Arc::new(pod);
        }
        Some(entry.clone())
    }

    /// Takes in the answer to our own write; a pod that went away meanwhile stays away.
    pub(crate) fn refresh(&self, mut pod: Pod) {
        let Some(uid) = uid_of(&pod) else { return };
        pod.metadata.managed_fields = None;
        if let Some(entry) = self.locked().get_mut(&uid)
            && !is_older(&pod, &entry.pod)
        {
            entry.pod = Arc::new(pod);
        }
    }

    /// Forgets a pod; returns what was known.
    pub(crate) fn forget(&self, uid: &PodUid) -> Option<Entry> {
        self.locked().remove(uid)
    }

    /// What is known about a pod.
    pub(crate) fn get(&self, uid: &PodUid) -> Option<Entry> {
        self.locked().get(uid).cloned()
    }

    /// The pod of this name: the one that is not being deleted, else the newest.
    pub(crate) fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.locked()
            .values()
            .map(|entry| &entry.pod)
            .filter(|pod| {
                pod.metadata.namespace.as_deref() == Some(namespace)
                    && pod.metadata.name.as_deref() == Some(name)
            })
            .max_by_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (pod.metadata.deletion_timestamp.is_none(), created)
            })
            .cloned()
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.locked()
            .values()
            .map(|entry| Arc::clone(&entry.pod))
            .collect()
    }

    /// UIDs of pods that are not among `seen`.
    pub(crate) fn missing_from(&self, seen: &BTreeSet<PodUid>) -> Vec<PodUid> {
        self.locked()
            .keys()
            .filter(|uid| !seen.contains(*uid))
            .cloned()
            .collect()
    }

    /// Remembers that the driver was told about this state of the pod.
    pub(crate) fn told(&self, uid: &PodUid, fingerprint: u64) {
        if let Some(entry) = self.locked().get_mut(uid) {
            entry.told = Some(fingerprint);
        }
    }

    /// Remembers that the driver was told to let go of the pod; answers whether that is news.
    pub(crate) fn let_go(&self, uid: &PodUid) -> bool {
        self.locked()
            .get_mut(uid)
            .is_some_and(|entry| !std::mem::replace(&mut entry.let_go, true))
    }

    /// Remembers the manifest that was built.
    pub(crate) fn built(&self, uid: &PodUid, built: Built) {
        if let Some(entry) = self.locked().get_mut(uid) {
            entry.built = Some(built);
        }
        self.renewals.notify_one();
    }

    /// A host says that it runs this generation of the manifest. If it is newer than what was built here, another controller's manifest is
    /// there, and one built on it is asked for.
    pub(crate) fn observed(&self, uid: &PodUid, generation: u64, again_at: Timestamp) {
        if let Some(built) = self.locked().get_mut(uid).and_then(|entry| entry.built.as_mut())
            && built.manifest < generation
        {
            built.renew_at = Some(built.renew_at.map_or(again_at, |at| at.min(again_at)));
            self.renewals.notify_one();
        }
    }

    /// Completes when [`next_renewal`](Self::next_renewal) may be another one.
    pub(crate) async fn renewals_changed(&self) {
        self.renewals.notified().await;
    }

    /// The next manifest to build again, and whose it is.
    pub(crate) fn next_renewal(&self) -> Option<(Timestamp, PodUid)> {
        self.locked()
            .iter()
            .filter_map(|(uid, entry)| Some((entry.built?.renew_at?, uid.clone())))
            .min()
    }

    /// Puts a manifest's renewal off, because it was just asked for.
    pub(crate) fn renewal_asked(&self, uid: &PodUid, again_at: Timestamp) {
        if let Some(built) = self.locked().get_mut(uid).and_then(|entry| entry.built.as_mut()) {
            built.renew_at = Some(again_at);
        }
    }
}

/// The pod's UID, which every object from an API server has.
pub(crate) fn uid_of(pod: &Pod) -> Option<PodUid> {
    pod.metadata.uid.as_deref().map(PodUid::new)
}

/// Whether `a` is an older version than `b` of one object. Versions that cannot be compared count as newer.
fn is_older(a: &Pod, b: &Pod) -> bool {
    let version = |pod: &Pod| pod.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    matches!((version(a), version(b)), (Some(a), Some(b)) if a < b)
}

/// Whether the API says that a container of this pod has ever run.
fn has_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Running" | "Succeeded" | "Failed")) {
        return true;
    }
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .any(|container| {
            container.restart_count > 0
                || container
                    .state
                    .as_ref()
                    .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(version: &str, label: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": {
            "uid": "u", "namespace": "n", "name": "p", "resourceVersion": version, "labels": { "l": label } } }))
        .expect("a pod")
    }

    fn label(registry: &PodRegistry) -> String {
        let entry = registry.get(&PodUid::new("u")).expect("known");
        entry.pod.metadata.labels.as_ref().expect("labels")["l"].clone()
    }

    #[test]
    fn an_old_echo_of_the_watch_does_not_undo_what_a_write_returned() {
        let registry = PodRegistry::default();
        registry.see(pod("5", "five"));
        registry.refresh(pod("9", "nine"));
        registry.see(pod("7", "seven"));
        assert_eq!(label(&registry), "nine");
        registry.see(pod("10", "ten"));
        assert_eq!(label(&registry), "ten");
    }

    #[test]
    fn the_answer_to_a_late_write_does_not_bring_a_deleted_pod_back() {
        let registry = PodRegistry::default();
        registry.see(pod("5", "five"));
        registry.forget(&PodUid::new("u"));
        registry.refresh(pod("9", "nine"));
        assert!(registry.get(&PodUid::new("u")).is_none());
    }

    #[test]
    fn a_pod_that_ran_before_a_restart_is_known_as_such_or_it_would_run_twice() {
        let mut running = pod("1", "x");
        running.status = serde_json::from_value(json!({ "phase": "Pending", "containerStatuses": [
            { "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
              "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } } ] }))
        .expect("a status");
        assert!(has_started(&running));
        assert!(!has_started(&pod("1", "x")));
    }
}

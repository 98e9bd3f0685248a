//! Follows the ConfigMaps and Secrets that pods here refer to, one object at a time, so that a change reaches the pod within a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::WatchBackoff;
use super::client::Client;
use super::manifest::{Fetched, Resolved};
use crate::ids::PodUid;

/// Kind of an object that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    kind: Kind,
    namespace: String,
    name: String,
}

#[derive(Debug)]
struct Followed {
    pods: BTreeSet<PodUid>,
    _task: AbortOnDropHandle<()>,
}

/// The objects that are followed, and for which pods. Dropping it ends all watches.
#[derive(Debug)]
pub(crate) struct LiveReferences {
    client: Client,
    followed: Arc<Mutex<BTreeMap<Key, Followed>>>,
    touched: mpsc::Sender<PodUid>,
    jitter: bool,
}

impl LiveReferences {
    /// Follows nothing yet. The UIDs of pods whose objects changed are sent to `touched`.
    pub(crate) fn new(client: Client, touched: mpsc::Sender<PodUid>, jitter: bool) -> Self {
        Self {
            client,
            followed: Arc::default(),
            touched,
            jitter,
        }
    }

    /// Follows what this pod refers to, from the state in which it was just read, and no longer what it does not refer to any more.
    pub(crate) fn follow(&self, pod: &PodUid, namespace: &str, resolved: &Resolved) {
        let mut wanted: BTreeMap<Key, Option<String>> = BTreeMap::new();
        let key = |kind, name: &String| Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.clone(),
        };
        for (name, map) in &resolved.config_maps {
            let found = found(map).map(|map| (map.immutable, &map.metadata.resource_version));
            if let Some(version) = version(found) {
                wanted.insert(key(Kind::ConfigMap, name), version);
            }
        }
        for (name, secret) in &resolved.secrets {
            let found = found(secret).map(|secret| (secret.immutable, &secret.metadata.resource_version));
            if let Some(version) = version(found) {
                wanted.insert(key(Kind::Secret, name), version);
            }
        }
        let mut followed = locked(&self.followed);
        leave(&mut followed, pod, |key| wanted.contains_key(key));
        for (key, version) in wanted {
            followed
                .entry(key.clone())
                .or_insert_with(|| Followed {
                    pods: BTreeSet::new(),
                    _task: self.watch(key, version),
                })
                .pods
                .insert(pod.clone());
        }
    }

    /// Follows nothing for this pod any more.
    pub(crate) fn forget(&self, pod: &PodUid) {
        leave(&mut locked(&self.followed), pod, |_| false);
    }

    /// Follows nothing at all any more: ends all watches.
    pub(crate) fn stop(&self) {
        locked(&self.followed).clear();
    }

    fn watch(&self, key: Key, version: Option<String>) -> AbortOnDropHandle<()> {
        let (followed, touched) = (Arc::clone(&self.followed), self.touched.clone());
        let (client, backoff) = (self.client.get(), WatchBackoff::new(self.jitter));
        let task = match key.kind {
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client, &key.namespace);
                tokio::spawn(watch(api, backoff, key, version, followed, touched))
            }
            Kind::Secret => {
                let api: Api<Secret> = Api::namespaced(client, &key.namespace);
                tokio::spawn(watch(api, backoff, key, version, followed, touched))
            }
        };
        AbortOnDropHandle::new(task)
    }
}

fn found<T>(fetched: &Fetched<T>) -> Option<&T> {
    match fetched {
        Fetched::Found(object) => Some(object),
        Fetched::Missing | Fetched::Failed(_) => None,
    }
}

/// The version an object had when it was read (None: it was not there), or None at all when it can never change.
fn version(object: Option<(Option<bool>, &Option<String>)>) -> Option<Option<String>> {
    match object {
        Some((Some(true), _)) => None,
        Some((_, version)) => Some(version.clone()),
        None => Some(None),
    }
}

fn locked(followed: &Mutex<BTreeMap<Key, Followed>>) -> MutexGuard<'_, BTreeMap<Key, Followed>> {
    // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
    followed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leave(followed: &mut BTreeMap<Key, Followed>, pod: &PodUid, keep: impl Fn(&Key) -> bool) {
    followed.retain(|key, entry| {
        if !keep(key) {
            entry.pods.remove(pod);
        }
        !entry.pods.is_empty()
    });
}

/// Watches one object and touches its pods whenever it has another version than the one known.
async fn watch<K>(
    api: Api<K>,
    backoff: WatchBackoff,
    key: Key,
    mut version: Option<String>,
    followed: Arc<Mutex<BTreeMap<Key, Followed>>>,
    touched: mpsc::Sender<PodUid>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut events = watcher(api, config).backoff(backoff).boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = object.meta().resource_version.clone();
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => object.meta().resource_version.clone(),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(object = ?key, error = %crate::error::Chain::of(&error), "watching failed; trying again");
                continue;
            }
        };
        if now == version {
            continue;
        }
        version = now;
        let pods: Vec<PodUid> = locked(&followed)
            .get(&key)
            .map(|entry| entry.pods.iter().cloned().collect())
            .unwrap_or_default();
        for pod in pods {
            if touched.send(pod).await.is_err() {
                return;
            }
        }
    }
}

//! Tells users about their pods through Kubernetes Events, counting repeats instead of repeating them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::errors::{api_error, is_conflict, is_missing};
use super::node::seconds;
use crate::driver::{Clock, PodNotice};
use crate::error::Result;
use crate::ids::NodeName;

/// Events remembered for counting repeats.
const REMEMBERED: usize = 4096;
/// How long an event is counted on; the API server keeps events for an hour.
const COUNTED_FOR: std::time::Duration = std::time::Duration::from_secs(50 * 60);
/// Longest message the API takes.
const LONGEST: usize = 1024;
/// Longest part of a pod's name in an event's name, which is longer by 25 and may be 253 long.
const LONGEST_NAME: usize = 220;

/// Writes events.
#[derive(Debug)]
pub(crate) struct EventRecorder {
    client: super::client::Client,
    node: NodeName,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<Key, Counted>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    uid: String,
    container: String,
    reason: String,
    message: String,
}

#[derive(Clone, Debug)]
struct Counted {
    name: String,
    count: i32,
    last: Timestamp,
}

impl EventRecorder {
    /// A recorder that speaks for this node.
    pub(crate) fn new(client: kube::Client, node: NodeName, clock: Arc<dyn Clock>) -> Self {
        Self {
            client: client.into(),
            node,
            clock,
            known: Mutex::default(),
        }
    }

    /// Tells it, best effort: a failure is logged, and never holds up the pod.
    pub(crate) async fn record(&self, pod: &Pod, notice: &PodNotice) {
        if let Err(error) = self.write(pod, notice).await {
            tracing::debug!(reason = notice.reason, error = %error.chain(), "an event could not be written");
        }
    }

    async fn write(&self, pod: &Pod, notice: &PodNotice) -> Result<()> {
        let failed = |error| api_error("write event", error);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.get(), namespace);
        let exact = self.clock.now();
        let now = seconds(exact);
        let key = Key {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: notice.container.clone(),
            reason: notice.reason.clone(),
            message: cut(&notice.message),
        };
        let known = self.counted(&key, now);
        if let Some(counted) = known {
            let patch = json!({ "count": counted.count, "lastTimestamp": now.to_string() });
            match api
                .patch(&counted.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => return Ok(()),
                // It expired; tell it anew.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let name = name(pod, exact, &key);
        let event = event(pod, notice, &self.node, name.clone(), key.message.clone(), now);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // The same was told at the same instant: by this process before its answer was lost, or by another one.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        self.remember(key, name, now);
        Ok(())
    }

    /// The event to count up, with the new count, when the same was told before.
    fn counted(&self, key: &Key, now: Timestamp) -> Option<Counted> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = known.get_mut(key)?;
        if counted.last < now - COUNTED_FOR {
            known.remove(key);
            return None;
        }
        counted.count = counted.count.saturating_add(1);
        counted.last = now;
        Some(counted.clone())
    }

    fn remember(&self, key: Key, name: String, last: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, counted| counted.last >= last - COUNTED_FOR);
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, Counted { name, count: 1, last });
    }
}

/// An event's name: of the pod, the instant and what is told, so that two things told at one instant do not collide.
fn name(pod: &Pod, now: Timestamp, key: &Key) -> String {
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    // Names of pods are ASCII. What is cut may end with a character that must not come before a dot.
    let pod = pod
        .get(..LONGEST_NAME)
        .map_or(pod, |cut| cut.trim_end_matches(['.', '-']));
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // Half of it is enough to tell a handful of events apart.
    let told = hasher.finish() >> 32;
    format!("{pod}.{:x}{told:08x}", now.as_nanosecond())
}

fn event(
    pod: &Pod,
    notice: &PodNotice,
    node: &NodeName,
    name: String,
    message: String,
    now: Timestamp,
) -> Event {
    let metadata = &pod.metadata;
    let container = &notice.container;
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: Some(format!("spec.containers{{{container}}}")).filter(|_| !container.is_empty()),
        },
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.clone()),
        message: Some(message),
        source: Some(EventSource {
            component: Some("kip".to_owned()),
            host: Some(node.to_string()),
        }),
        reporting_component: Some("kip".to_owned()),
        reporting_instance: Some(node.to_string()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

fn cut(message: &str) -> String {
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let mut end = LONGEST - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_things_told_of_a_pod_at_one_instant_are_both_kept() {
        let key = |reason: &str| Key {
            uid: "u".to_owned(),
            container: String::new(),
            reason: reason.to_owned(),
            message: String::new(),
        };
        let pod = |name: &str| Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        let now = Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let first = name(&pod("web"), now, &key("Placed"));
        assert_eq!(first, name(&pod("web"), now, &key("Placed")));
        assert_ne!(first, name(&pod("web"), now, &key("Launched")));
        assert!(name(&pod(&"x".repeat(253)), now, &key("Placed")).len() <= 253);
        let dashed = name(&pod(&format!("{}-rest", "x".repeat(219))), now, &key("Placed"));
        assert!(!dashed.contains("-."), "{dashed}");
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_not_refused_by_the_api() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(1000);
        let cut = cut(&long);
        assert!(cut.len() <= LONGEST && cut.ends_with('…'));
    }
}

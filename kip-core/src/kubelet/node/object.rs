//! What the Node object should say: pure, from the configuration and what is there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use serde_json::{Value, json};

use crate::kubelet::config::{KubeletConfig, NodeTaint};

/// Types of the conditions Kip writes, with the healthy status, reason and message of each.
const CONDITIONS: [(&str, &str, &str, &str); 5] = [
    ("Ready", "True", "KubeletReady", "kip is posting ready status"),
    (
        "MemoryPressure",
        "False",
        "KubeletHasSufficientMemory",
        "each pod has an instance of its own",
    ),
    (
        "DiskPressure",
        "False",
        "KubeletHasNoDiskPressure",
        "each pod has an instance of its own",
    ),
    (
        "PIDPressure",
        "False",
        "KubeletHasSufficientPID",
        "each pod has an instance of its own",
    ),
    (
        "NetworkUnavailable",
        "False",
        "RouteCreated",
        "pods use the cloud's network",
    ),
];

/// The labels Kip owns on the Node.
pub(super) fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let node = &config.node;
    let mut labels = BTreeMap::new();
    let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
    set("type", "virtual-kubelet");
    set("kubernetes.io/hostname", config.name.as_str());
    set("kubernetes.io/os", &node.operating_system);
    set("beta.kubernetes.io/os", &node.operating_system);
    set("kubernetes.io/arch", &node.architecture);
    set("beta.kubernetes.io/arch", &node.architecture);
    set(
        "node.kubernetes.io/instance-type",
        crate::kubelet::demand::VIRTUAL_INSTANCE_TYPE,
    );
    if let Some(region) = &node.region {
        set("topology.kubernetes.io/region", region);
    }
    if let Some(zone) = &node.zone {
        set("topology.kubernetes.io/zone", zone);
    }
    if node.exclude_from_load_balancers {
        set("node.kubernetes.io/exclude-from-external-load-balancers", "true");
    }
    labels.extend(node.labels.clone());
    labels
}

/// The server-side apply of labels and annotations.
pub(super) fn metadata(config: &KubeletConfig) -> Value {
    let mut metadata = json!({ "name": config.name.as_str(), "labels": labels(config) });
    if !config.node.annotations.is_empty() {
        metadata["annotations"] = json!(config.node.annotations);
    }
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata })
}

/// The part of the spec that is set when the Node is made and left alone afterwards: others own taints too, and a list of taints is
/// owned as a whole.
pub(super) fn birth(config: &KubeletConfig, with_labels: bool) -> Value {
    let mut spec = json!({});
    if let Some(taint) = &config.node.taint {
        spec["taints"] = json!([taint_value(taint)]);
    }
    if let Some(id) = &config.node.provider_id {
        spec["providerID"] = json!(id);
    }
    let mut metadata = json!({ "name": config.name.as_str() });
    if with_labels {
        metadata["labels"] = json!(labels(config));
    }
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec })
}

/// The list of taints an existing Node must get, or None when ours is there.
pub(super) fn missing_taint(config: &KubeletConfig, node: &Node) -> Option<Value> {
    let ours = config.node.taint.as_ref()?;
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let taints = taints.map_or(&[][..], Vec::as_slice);
    let found = taints.iter().any(|taint| {
        taint.key == ours.key
            && taint.effect == ours.effect
            && taint.value.as_deref().unwrap_or_default() == ours.value
    });
    if found {
        return None;
    }
    let mut list: Vec<Value> = taints
        .iter()
        .filter(|taint| taint.key != ours.key || taint.effect != ours.effect)
        .map(|taint| json!(taint))
        .collect();
    list.push(taint_value(ours));
    Some(Value::Array(list))
}

fn taint_value(taint: &NodeTaint) -> Value {
    json!({ "key": taint.key, "value": taint.value, "effect": taint.effect })
}

/// The server-side apply of the status. `live` is the Node as last seen: a condition that did not flip keeps its time.
pub(super) fn status(config: &KubeletConfig, port: u16, live: Option<&Node>, now: Timestamp) -> Value {
    let node = &config.node;
    let known = live
        .and_then(|node| node.status.as_ref())
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let now = seconds(now);
    let conditions: Vec<Value> = CONDITIONS
        .iter()
        .map(|(kind, status, reason, message)| {
            let since = known
                .iter()
                .find(|condition| condition.type_ == *kind && condition.status == *status)
                .and_then(|condition| condition.last_transition_time.as_ref())
                .map_or(now, |time| time.0);
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now.to_string(), "lastTransitionTime": since.to_string(),
            })
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": config.name.as_str() },
        "status": {
            "capacity": node.capacity,
            "allocatable": node.capacity,
            "conditions": conditions,
            "addresses": [
                { "type": "InternalIP", "address": node.internal_ip.to_string() },
                { "type": "Hostname", "address": config.name.as_str() },
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "",
                "osImage": "Kip", "containerRuntimeVersion": concat!("kip://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": node.version, "kubeProxyVersion": "",
                "operatingSystem": node.operating_system, "architecture": node.architecture,
            },
        },
    })
}

/// Whether the Node as seen no longer says what Kip last wrote, because another writer changed it.
pub(super) fn drifted(config: &KubeletConfig, port: u16, live: &Node) -> bool {
    let Some(status) = &live.status else { return true };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let healthy = |(kind, wanted, _, _): &(&str, &str, &str, &str)| {
        conditions
            .iter()
            .any(|condition: &NodeCondition| condition.type_ == *kind && condition.status == *wanted)
    };
    let served = status
        .daemon_endpoints
        .as_ref()
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .is_some_and(|endpoint| endpoint.port == i32::from(port));
    let address = config.node.internal_ip.to_string();
    let addressed = status
        .addresses
        .iter()
        .flatten()
        .any(|known| known.type_ == "InternalIP" && known.address == address);
    !(CONDITIONS.iter().all(healthy) && served && addressed)
}

/// Whether the Node as seen lacks a label or annotation Kip owns.
pub(super) fn unlabelled(config: &KubeletConfig, live: &Node) -> bool {
    let has = |map: Option<&BTreeMap<String, String>>, key: &str, value: &str| {
        map.and_then(|map| map.get(key))
            .is_some_and(|found| found == value)
    };
    let metadata = &live.metadata;
    labels(config)
        .iter()
        .any(|(key, value)| !has(metadata.labels.as_ref(), key, value))
        || config
            .node
            .annotations
            .iter()
            .any(|(key, value)| !has(metadata.annotations.as_ref(), key, value))
}

/// The time as Kubernetes' `Time` keeps it: whole seconds.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeName;

    fn config() -> KubeletConfig {
        KubeletConfig::new(NodeName::new("kip"), "10.0.0.1".parse().expect("an address"))
    }

    fn live(value: Value) -> Node {
        serde_json::from_value(value).expect("a node")
    }

    #[test]
    fn an_unchanged_condition_keeps_its_time_or_the_node_seems_to_flap() {
        let node = live(json!({ "metadata": {}, "status": { "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            { "type": "DiskPressure", "status": "Unknown", "lastTransitionTime": "2020-01-01T00:00:00Z" },
        ]}}));
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        let status = status(&config(), 10250, Some(&node), now);
        let conditions = status["status"]["conditions"].as_array().expect("conditions");
        assert_eq!(conditions.len(), 5);
        assert_eq!(conditions[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(conditions[0]["lastHeartbeatTime"], "2026-01-02T03:04:05Z");
        assert_eq!(conditions[2]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        let _: Node = serde_json::from_value(status).expect("the API's own type reads it");
    }

    /// Who moves from the old Kip has selectors, affinities and network policies by these labels.
    #[test]
    fn the_labels_of_the_old_node_that_the_page_promises_are_there_and_no_others() {
        let page = include_str!("../../../../docs/migrating-from-kip.md");
        let labels = labels(&config());
        let mut promised = 0;
        for line in page.lines() {
            let Some((label, now)) = line
                .strip_prefix("| label `")
                .and_then(|rest| rest.split_once("` |"))
            else {
                continue;
            };
            let (key, value) = label.split_once('=').expect("a label");
            let has = labels
                .get(key)
                .is_some_and(|found| found == &value.replace("<nodename>", "kip"));
            assert_eq!(has, now.trim().starts_with("the same"), "{label}");
            promised += usize::from(has);
        }
        assert_eq!(promised, 3);
        assert!(page.contains("| taint `virtual-kubelet.io/provider=kip:NoSchedule` | the same |"));
        let taint = NodeTaint::default();
        assert_eq!(
            (taint.key.as_str(), taint.value.as_str(), taint.effect.as_str()),
            ("virtual-kubelet.io/provider", "kip", "NoSchedule")
        );
    }

    #[test]
    fn taints_of_others_survive_or_a_cordoned_node_gets_pods() {
        let node = live(json!({ "metadata": {}, "spec": { "taints": [
            { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
            { "key": "virtual-kubelet.io/provider", "value": "old", "effect": "NoSchedule" },
        ]}}));
        let list = missing_taint(&config(), &node).expect("ours is missing");
        assert_eq!(
            list,
            json!([
                { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
                { "key": "virtual-kubelet.io/provider", "value": "kip", "effect": "NoSchedule" },
            ])
        );
        let node = live(json!({ "metadata": {}, "spec": { "taints": list } }));
        assert_eq!(missing_taint(&config(), &node), None);
    }

    #[test]
    fn what_the_control_plane_wrote_over_is_seen_and_written_again() {
        let now = Timestamp::UNIX_EPOCH;
        let mut object = metadata(&config());
        object["status"] = status(&config(), 10250, None, now)["status"].clone();
        let good = live(object.clone());
        assert!(!drifted(&config(), 10250, &good) && !unlabelled(&config(), &good));
        object["status"]["conditions"][0]["status"] = json!("Unknown");
        object["metadata"]["labels"]["type"] = json!("other");
        let bad = live(object);
        assert!(drifted(&config(), 10250, &bad) && unlabelled(&config(), &bad));
    }
}

//! Broken, pods land where they must not, or wait for ever where there is room.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fit::{Room, choose};

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Room {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"zone": "a", "cores": "4"}}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut node);
    Room {
        node: Arc::new(node),
        used: std::collections::BTreeMap::new(),
        pods: 0,
    }
}

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[test]
fn a_pod_goes_where_it_fits_or_hears_why_not() {
    let taint = |node: &mut Value| {
        node["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])
    };
    let affinity = |expression: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}})
    };
    let plain = || node("n", |_| {});
    for (pod_spec, room, expected) in [
        (json!({}), plain(), ""),
        (json!({"nodeSelector": {"zone": "a"}}), plain(), ""),
        (
            json!({"nodeSelector": {"zone": "b"}}),
            plain(),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            affinity(json!({"key": "zone", "operator": "In", "values": ["a", "b"]})),
            plain(),
            "",
        ),
        (
            affinity(json!({"key": "cores", "operator": "Gt", "values": ["4"]})),
            plain(),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (json!({}), node("n", taint), "1 node(s) had untolerated taint(s)"),
        (
            json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
            node("n", taint),
            "",
        ),
        (
            json!({"tolerations": [{"key": "k", "value": "w", "effect": "NoSchedule"}]}),
            node("n", taint),
            "1 node(s) had untolerated taint(s)",
        ),
        (
            json!({}),
            node("n", |node| node["spec"]["unschedulable"] = true.into()),
            "1 node(s) were unschedulable",
        ),
        (
            json!({}),
            node("n", |node| node["status"]["conditions"] = json!([])),
            "1 node(s) had untolerated taint(s)",
        ),
        (
            json!({"containers": [{"resources": {"requests": {"cpu": "5", "memory": "9Gi"}}}]}),
            plain(),
            "1 Insufficient cpu, 1 Insufficient memory",
        ),
        (
            json!({"containers": [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]}),
            plain(),
            "1 Insufficient nvidia.com/gpu",
        ),
        (json!({}), Room { pods: 10, ..plain() }, "1 Too many pods"),
    ] {
        let found = choose(&pod(pod_spec.clone()), &[room]);
        let wanted = if expected.is_empty() {
            Ok(0)
        } else {
            Err(format!("0/1 nodes are available: {expected}."))
        };
        assert_eq!(found, wanted, "{pod_spec}");
    }
    assert_eq!(
        choose(&pod(json!({})), &[]),
        Err("no nodes available to schedule pods".to_owned())
    );
}

#[test]
fn the_emptier_node_is_taken() {
    let rooms = [
        Room {
            pods: 3,
            ..node("a", |_| {})
        },
        Room {
            pods: 1,
            ..node("b", |_| {})
        },
    ];
    assert_eq!(choose(&pod(json!({})), &rooms), Ok(1));
}

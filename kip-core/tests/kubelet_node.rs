//! The Node object and its lease, against a Kubernetes API.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use kubelet_support::World;

fn ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Without this no pod is ever placed, or the load balancer and every DaemonSet are.
#[tokio::test]
async fn the_node_registers_with_what_schedulers_and_people_look_at() {
    let world = World::start().await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = world.becomes(nodes, "kip", "the node is ready", ready).await;
    let labels = node.metadata.labels.expect("labels");
    for (key, value) in [
        ("type", "virtual-kubelet"),
        ("kubernetes.io/hostname", "kip"),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("node.kubernetes.io/exclude-from-external-load-balancers", "true"),
        ("team", "a"),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    let taints = node.spec.and_then(|spec| spec.taints).expect("taints");
    assert_eq!(taints[0].key, "virtual-kubelet.io/provider");
    let status = node.status.expect("a status");
    assert_eq!(status.capacity, status.allocatable);
    let info = status.node_info.expect("node info");
    assert!(
        info.kubelet_version.starts_with("v1."),
        "{}",
        info.kubelet_version
    );
    let port = status
        .daemon_endpoints
        .and_then(|endpoints| endpoints.kubelet_endpoint)
        .expect("a port")
        .port;
    assert_eq!(port, i32::from(world.port));
    world.stop().await;
}

/// A node that stays away is followed by the deletion of its pods within a minute.
#[tokio::test]
async fn a_deleted_node_is_made_again_and_its_lease_follows() {
    let world = World::start().await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-node-lease");
    let owner = |lease: &Lease| {
        let owners = lease.metadata.owner_references.as_ref()?;
        owners.first().map(|owner| owner.uid.clone())
    };
    let first = world
        .becomes(nodes.clone(), "kip", "the node is ready", ready)
        .await;
    let uid = first.metadata.uid.expect("a UID");
    world
        .becomes(leases.clone(), "kip", "the lease has its owner", |lease| {
            owner(lease).as_ref() == Some(&uid)
        })
        .await;

    nodes
        .delete("kip", &DeleteParams::default())
        .await
        .expect("deleted");
    let second = world
        .becomes(nodes.clone(), "kip", "the node is back", |node| {
            node.metadata.uid.as_ref() != Some(&uid) && ready(node)
        })
        .await;
    assert!(
        second.spec.and_then(|spec| spec.taints).is_some(),
        "a node without its taint takes any pod"
    );
    let uid = second.metadata.uid.expect("a UID");
    let lease = world
        .becomes(leases, "kip", "the lease has its new owner", |lease| {
            owner(lease).as_ref() == Some(&uid)
        })
        .await;
    let spec = lease.spec.expect("a spec");
    assert_eq!(spec.holder_identity.as_deref(), Some("kip"));
    assert_eq!(spec.lease_duration_seconds, Some(40));
    world.stop().await;
}

/// Other controllers write to the Node as well: what they say must stay, and what they overwrite of ours must come back.
#[tokio::test]
async fn what_others_say_stays_and_what_they_overwrite_is_put_right() {
    let world = World::start().await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    world
        .becomes(nodes.clone(), "kip", "the node is ready", ready)
        .await;
    let other = PatchParams {
        field_manager: Some("other".to_owned()),
        ..PatchParams::default()
    };
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "Other", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let status = json!({ "status": { "conditions": [condition("Ready", "Unknown"), condition("DiskOnFire", "False")] } });
    nodes
        .patch_status("kip", &other, &Patch::Strategic(&status))
        .await
        .expect("patched");
    let label = json!({ "metadata": { "labels": { "theirs": "yes" } }, "spec": { "unschedulable": true } });
    nodes
        .patch("kip", &other, &Patch::Strategic(&label))
        .await
        .expect("patched");

    let node = world.becomes(nodes, "kip", "the node is ready again", |node| {
        ready(node)
            && node
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key("theirs"))
    });
    let node = node.await;
    assert_eq!(
        node.spec.as_ref().and_then(|spec| spec.unschedulable),
        Some(true),
        "a cordon is not ours to undo"
    );
    let conditions = node
        .status
        .and_then(|status| status.conditions)
        .expect("conditions");
    assert!(conditions.iter().any(|condition| condition.type_ == "DiskOnFire"));
    world.stop().await;
}

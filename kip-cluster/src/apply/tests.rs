//! What users of server-side apply rely on: ownership, conflicts, and removal of what is no longer sent.

use serde_json::{Value, json};

use super::*;
use crate::schema::definition;

fn node() -> &'static Node {
    definition("io.k8s.api.core.v1.Pod").unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn pod(containers: &Value, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}, "spec": {"containers": containers}})
}

/// Broken, two controllers fight over a field and neither is told.
#[test]
fn taking_over_a_field_is_a_conflict_until_forced() {
    let first = pod(&json!([{"name": "c", "image": "a"}]), &json!({"x": "1"}));
    let live = apply(None, &first, node(), writer("alice"), false).unwrap();
    let other = pod(&json!([{"name": "c", "image": "b"}]), &json!({}));
    let error = apply(Some(&live), &other, node(), writer("bob"), false).unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"alice\": .spec.containers[name=\"c\"].image"
    );
    assert_eq!(
        error.to_status()["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    let forced = apply(Some(&live), &other, node(), writer("bob"), true).unwrap();
    assert_eq!(forced.pointer("/spec/containers/0/image"), Some(&json!("b")));
    let back = apply(Some(&forced), &first, node(), writer("alice"), false).unwrap_err();
    assert!(back.message.contains("conflict with \"bob\""), "{}", back.message);
}

/// Broken, fields taken out of a manifest stay for ever.
#[test]
fn fields_no_longer_sent_are_removed_unless_shared() {
    let both = pod(
        &json!([{"name": "c", "image": "a"}, {"name": "d", "image": "a"}]),
        &json!({"x": "1", "y": "2"}),
    );
    let live = apply(None, &both, node(), writer("alice"), false).unwrap();
    let shared = pod(&json!([{"name": "c", "image": "a"}]), &json!({"y": "2"}));
    let live = apply(Some(&live), &shared, node(), writer("bob"), false).unwrap();
    let less = pod(&json!([{"name": "c", "image": "a"}]), &json!({}));
    let live = apply(Some(&live), &less, node(), writer("alice"), false).unwrap();
    assert_eq!(live.pointer("/metadata/labels"), Some(&json!({"y": "2"})));
    assert_eq!(
        live.pointer("/spec/containers"),
        Some(&json!([{"name": "c", "image": "a"}]))
    );
}

/// Broken, `kubectl edit` after `kubectl apply --server-side` is silently undone by the next apply.
#[test]
fn an_update_takes_ownership() {
    let first = pod(&json!([{"name": "c", "image": "a"}]), &json!({"x": "1"}));
    let live = apply(None, &first, node(), writer("alice"), false).unwrap();
    let mut edited = live.clone();
    edited["metadata"]["labels"]["x"] = "2".into();
    record_update(Some(&live), &mut edited, node(), writer("editor"));
    let error = apply(Some(&edited), &first, node(), writer("alice"), false).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"editor\" using v1: .metadata.labels.x"
    );
}

/// Broken, each repeated apply writes a new version and wakes every watcher.
#[test]
fn applying_twice_changes_nothing() {
    let config = pod(
        &json!([{"name": "c", "image": "a", "ports": [{"containerPort": 80}]}]),
        &json!({"x": "1"}),
    );
    let once = apply(None, &config, node(), writer("alice"), false).unwrap();
    let twice = apply(Some(&once), &config, node(), writer("alice"), false).unwrap();
    assert_eq!(once, twice);
}

/// Broken, managedFields cannot be read back by clients.
#[test]
fn field_sets_have_the_published_form() {
    let set = FieldSet::of(
        &pod(&json!([{"name": "c", "image": "a"}]), &json!({"x": "1"})),
        node(),
    );
    let text = stripped(set.clone()).to_json();
    assert_eq!(
        text,
        json!({"f:metadata": {"f:labels": {"f:x": {}}},
               "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}})
    );
    assert_eq!(FieldSet::from_json(&text), stripped(set));
}

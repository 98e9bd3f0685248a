//! Put pending pods on nodes: node selector and affinity, taints, readiness, free capacity.
//!
//! Event-driven: looks again when a pod or a node changed. It knows no inter-pod affinity, no topology spread, no
//! preemption; pods that ask for another `schedulerName` are left alone.

mod fit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::create_object;
use crate::api::subresource::{bind_pod, set_condition};
use crate::app::App;
use crate::apply::Writer;
use crate::defaults::requests;
use crate::ids;
use crate::object;
use crate::quantity::Quantity;
use crate::store::{Key, Object};
use fit::{Room, choose};

/// The name pods ask for this scheduler by.
const NAME: &str = "default-scheduler";

/// Works until the cluster stops.
pub(crate) async fn run(app: Arc<App>) {
    let (pods, nodes) = (app.store.subscribe("/pods"), app.store.subscribe("/nodes"));
    loop {
        let (pods, nodes) = (pods.changed(), nodes.changed());
        schedule(&app);
        tokio::select! {
            biased;
            () = app.stopping.cancelled() => return,
            () = pods => {}
            () = nodes => {}
        }
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(
        object::str_at(pod, &["status", "phase"]),
        Some("Succeeded" | "Failed")
    )
}

fn node_of(pod: &Value) -> &str {
    object::str_at(pod, &["spec", "nodeName"]).unwrap_or("")
}

fn is_waiting(pod: &Value) -> bool {
    node_of(pod).is_empty()
        && !object::is_deleting(pod)
        && !is_over(pod)
        && object::str_at(pod, &["spec", "schedulerName"]) == Some(NAME)
        && object::list_at(pod, &["spec", "schedulingGates"]).is_empty()
}

/// One pass over everything that waits, the most important first.
fn schedule(app: &App) {
    let (_, pods) = app.store.list("/pods", None);
    let mut waiting: Vec<&Object> = pods.iter().filter(|pod| is_waiting(pod)).collect();
    if waiting.is_empty() {
        return;
    }
    let priority = |pod: &Object| {
        object::at(pod, &["spec", "priority"])
            .and_then(Value::as_i64)
            .unwrap_or(0)
    };
    waiting.sort_by_key(|pod| {
        (
            -priority(pod),
            object::meta_str(pod, "creationTimestamp"),
            object::version(pod),
        )
    });
    let (_, nodes) = app.store.list("/nodes", None);
    let mut used: BTreeMap<&str, (BTreeMap<String, Quantity>, u64)> = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| !node_of(pod).is_empty() && !is_over(pod))
    {
        let (amounts, count) = used.entry(node_of(pod)).or_default();
        fit::add(amounts, &requests(pod));
        *count += 1;
    }
    let mut rooms: Vec<Room> = nodes
        .iter()
        .map(|node| {
            let (used, pods) = used.remove(object::name(node)).unwrap_or_default();
            Room {
                node: Arc::clone(node),
                used,
                pods,
            }
        })
        .collect();
    for pod in waiting {
        match choose(pod, &rooms) {
            Ok(index) => {
                let node = object::name(&rooms[index].node).to_owned();
                match bind_pod(app, &Key::of(pod), &node, object::uid(pod)) {
                    Ok(_) => {
                        fit::add(&mut rooms[index].used, &requests(pod));
                        rooms[index].pods += 1;
                        let message = format!(
                            "Successfully assigned {}/{} to {node}",
                            object::namespace(pod),
                            object::name(pod)
                        );
                        report(app, pod, "Normal", "Scheduled", &message);
                    }
                    // It was deleted or bound in between; the next pass sees what is left to do.
                    Err(error) => {
                        tracing::debug!(pod = object::name(pod), message = %error.message, "not bound")
                    }
                }
            }
            Err(message) => refuse(app, pod, &message),
        }
    }
}

/// Says in the pod's condition and in an event why it fits nowhere, once for each reason.
fn refuse(app: &App, pod: &Object, message: &str) {
    let known = object::list_at(pod, &["status", "conditions"])
        .iter()
        .any(|condition| {
            object::str_at(condition, &["type"]) == Some("PodScheduled")
                && object::str_at(condition, &["message"]) == Some(message)
        });
    if known {
        return;
    }
    let mut new = (**pod).clone();
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    set_condition(&mut new, condition, app.origin.now());
    if let Some(resource) = app.registry().find("", "v1", "pods") {
        let writer = Writer {
            manager: "kube-scheduler",
            api_version: "v1",
            subresource: "status",
            at: app.origin.now(),
        };
        crate::apply::record_update(Some(pod), &mut new, resource.node(), writer);
    }
    // Refused means it changed, and the change brings the next pass.
    if app.store.replace("/pods", object::version(pod), new).is_ok() {
        report(app, pod, "Warning", "FailedScheduling", message);
    }
}

fn report(app: &App, pod: &Object, kind: &str, reason: &str, message: &str) {
    let registry = app.registry();
    let Some(resource) = registry.find("", "v1", "events") else {
        return;
    };
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": namespace, "name": format!("{name}.{}", &app.origin.uid(&format!("/events/{namespace}/{name}"))[..13])},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name,
                           "uid": object::uid(pod), "resourceVersion": object::meta_str(pod, "resourceVersion")},
        "reason": reason, "message": message, "type": kind, "action": if kind == "Normal" { "Binding" } else { "Scheduling" },
        "eventTime": ids::now_micro(&*app.origin), "reportingComponent": NAME, "reportingInstance": format!("{NAME}-kip-cluster"),
    });
    let writer = Writer {
        manager: "kube-scheduler",
        api_version: "v1",
        subresource: "",
        at: app.origin.now(),
    };
    if let Err(error) = create_object(app, resource, event, Some(writer), false) {
        tracing::debug!(pod = name, message = %error.message, "event not written");
    }
}

//! Pods as a user writes them.

use serde_json::{Value, json};

use crate::sim::scenario::{PodPlan, Restart};

/// The API's path of a pod.
pub(super) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

/// The pod of a plan, bound to the node of the samples.
pub(super) fn pod(plan: &PodPlan) -> Value {
    let capacity = if plan.spot {
        json!(["on-demand", "spot"])
    } else {
        json!(["on-demand"])
    };
    let size = json!({ "cpu": plan.cpu.to_string(), "memory": format!("{}Gi", plan.memory_gib) });
    let term = json!({ "matchExpressions": [
        { "key": "kip.elotl.co/capacity-type", "operator": "In", "values": capacity } ] });
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": plan.name },
        "spec": {
            "nodeName": crate::samples::node().as_str(),
            "restartPolicy": match plan.restart {
                Restart::Always => "Always",
                Restart::OnFailure => "OnFailure",
                Restart::Never => "Never",
            },
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } },
            "containers": [ { "name": "main", "image": "example.com/app:1",
                "resources": { "requests": size, "limits": size } } ],
        },
    });
    if let Some(seconds) = plan.active_deadline_s {
        pod["spec"]["activeDeadlineSeconds"] = json!(seconds);
    }
    pod
}

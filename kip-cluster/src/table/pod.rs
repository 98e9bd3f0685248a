//! The row of a pod: what its STATUS column says is a small language of its own.

use serde_json::{Value, json};

use super::{Column, age, name_column, text, wide};
use crate::object;

pub(super) fn columns() -> Vec<Column> {
    vec![
        name_column(),
        text("Ready"),
        text("Status"),
        text("Restarts"),
        text("Age"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ]
}

/// What marks a row as belonging to a pod that is over.
pub(super) fn row_condition(pod: &Value) -> Option<Value> {
    let reason = match object::str_at(pod, &["status", "phase"]) {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason.0, "message": reason.1}))
}

fn statuses<'v>(pod: &'v Value, field: &str) -> &'v [Value] {
    object::list_at(pod, &["status", field])
}

fn restarts(status: &Value) -> i64 {
    status.get("restartCount").and_then(Value::as_i64).unwrap_or(0)
}

fn last_finished(status: &Value) -> Option<&str> {
    object::str_at(status, &["lastState", "terminated", "finishedAt"])
}

/// Why a container is not simply running: the reason, the signal or the exit code.
fn trouble(status: &Value) -> Option<String> {
    let terminated = object::at(status, &["state", "terminated"]);
    if let Some(reason) =
        object::str_at(status, &["state", "waiting", "reason"]).filter(|reason| !reason.is_empty())
    {
        return Some(reason.to_owned());
    }
    let terminated = terminated?;
    let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or(0);
    match object::str_at(terminated, &["reason"]).unwrap_or("") {
        "" if number("signal") != 0 => Some(format!("Signal:{}", number("signal"))),
        "" => Some(format!("ExitCode:{}", number("exitCode"))),
        reason => Some(reason.to_owned()),
    }
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    object::list_at(pod, &["spec", "initContainers"])
        .iter()
        .any(|container| {
            object::str_at(container, &["name"]) == Some(name)
                && object::str_at(container, &["restartPolicy"]) == Some("Always")
        })
}

/// What an unfinished init container makes of the status; `None` when all are through.
fn init_reason(pod: &Value) -> Option<String> {
    let total = object::list_at(pod, &["spec", "initContainers"]).len();
    for (index, status) in statuses(pod, "initContainerStatuses").iter().enumerate() {
        let name = object::str_at(status, &["name"]).unwrap_or("");
        let exit = object::at(status, &["state", "terminated", "exitCode"]).and_then(Value::as_i64);
        let started = status.get("started").and_then(Value::as_bool).unwrap_or(false);
        if exit == Some(0) || (is_sidecar(pod, name) && started) {
            continue;
        }
        return Some(match trouble(status) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{total}"),
        });
    }
    None
}

/// The STATUS column.
fn reason(pod: &Value) -> String {
    let status = |field: &str| object::str_at(pod, &["status", field]).unwrap_or("");
    let mut reason = match status("reason") {
        "" => status("phase").to_owned(),
        reason => reason.to_owned(),
    };
    let gated = object::list_at(pod, &["status", "conditions"])
        .iter()
        .any(|condition| {
            object::str_at(condition, &["type"]) == Some("PodScheduled")
                && object::str_at(condition, &["reason"]) == Some("SchedulingGated")
        });
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }
    let initializing = init_reason(pod);
    let initialized = object::condition(pod, "Initialized") == Some("True");
    if let Some(init) = initializing
        .as_ref()
        .filter(|_| !initialized || statuses(pod, "containerStatuses").is_empty())
    {
        reason.clone_from(init);
    } else {
        let mut running = false;
        for status in statuses(pod, "containerStatuses").iter().rev() {
            if let Some(trouble) = trouble(status) {
                reason = trouble;
            } else if object::at(status, &["state", "running"]).is_some()
                && status.get("ready") == Some(&Value::Bool(true))
            {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready = object::condition(pod, "Ready") == Some("True");
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if object::is_deleting(pod) {
        let over = matches!(status("phase"), "Succeeded" | "Failed");
        if status("reason") == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !over {
            return "Terminating".to_owned();
        }
    }
    reason
}

pub(super) fn row(pod: &Value) -> Vec<Value> {
    let sidecars: Vec<&Value> = statuses(pod, "initContainerStatuses")
        .iter()
        .filter(|status| is_sidecar(pod, object::str_at(status, &["name"]).unwrap_or("")))
        .collect();
    let containers = statuses(pod, "containerStatuses");
    let is_ready = |status: &&Value| status.get("ready").and_then(Value::as_bool).unwrap_or(false);
    let total = object::list_at(pod, &["spec", "containers"]).len()
        + object::list_at(pod, &["spec", "initContainers"])
            .iter()
            .filter(|container| object::str_at(container, &["restartPolicy"]) == Some("Always"))
            .count();
    let ready =
        containers.iter().filter(is_ready).count() + sidecars.iter().copied().filter(&is_ready).count();
    let all: Vec<&Value> = match init_reason(pod) {
        Some(_) => statuses(pod, "initContainerStatuses").iter().collect(),
        None => containers.iter().chain(sidecars).collect(),
    };
    let count: i64 = all.iter().map(|status| restarts(status)).sum();
    let last = all.iter().filter_map(|status| last_finished(status)).max();
    let restarted = match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", age::since(last)),
        _ => count.to_string(),
    };
    let or_none = |path: &[&str]| match object::str_at(pod, path) {
        None | Some("") => Value::from("<none>"),
        Some(text) => text.into(),
    };
    let gates = object::list_at(pod, &["spec", "readinessGates"]);
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let passed = gates
            .iter()
            .filter_map(|gate| object::str_at(gate, &["conditionType"]))
            .filter(|gate| object::condition(pod, gate) == Some("True"))
            .count();
        format!("{passed}/{}", gates.len())
    };
    vec![
        object::name(pod).into(),
        format!("{ready}/{total}").into(),
        reason(pod).into(),
        restarted.into(),
        age::of(pod),
        or_none(&["status", "podIP"]),
        or_none(&["spec", "nodeName"]),
        or_none(&["status", "nominatedNodeName"]),
        gates.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, `kubectl get pods` hides why a pod does not run.
    #[test]
    fn the_status_column_says_what_is_wrong() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        for (status, expected) in [
            (json!({"phase": "Pending"}), "Pending"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}),
                "Init:1/2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "Init:CrashLoopBackOff",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                {"name": "c", "ready": true, "state": {"running": {}}}]}),
                "Running",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [
                {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "ImagePullBackOff",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                {"name": "c", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}),
                "Error",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [
                {"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                "Completed",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        ] {
            assert_eq!(reason(&json!({"spec": spec, "status": status})), expected);
        }
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": {"phase": "Running"}});
        assert_eq!(reason(&leaving), "Terminating");
    }
}

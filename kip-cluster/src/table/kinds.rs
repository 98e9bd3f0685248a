//! The rows of Kubernetes' own kinds but pods.

use serde_json::Value;

use super::{Column, age, name_column, number, pod, text, wide};
use crate::app::DEFINITIONS;
use crate::object;

type Row = fn(&Value) -> Vec<Value>;

/// Columns and row of the kind a table holds.
pub(super) fn of(table: &str) -> (Vec<Column>, Row) {
    match table {
        "/pods" => (pod::columns(), pod::row),
        "/namespaces" => (vec![name_column(), text("Status"), text("Age")], namespace),
        "/nodes" => (
            vec![
                name_column(),
                text("Status"),
                text("Roles"),
                text("Age"),
                text("Version"),
                wide("Internal-IP"),
                wide("External-IP"),
                wide("OS-Image"),
                wide("Kernel-Version"),
                wide("Container-Runtime"),
            ],
            node,
        ),
        "/events" => (
            vec![
                text("Last Seen"),
                text("Type"),
                text("Reason"),
                text("Object"),
                wide("Subobject"),
                wide("Source"),
                text("Message"),
                wide("First Seen"),
                wide("Count"),
                Column {
                    priority: 1,
                    ..name_column()
                },
            ],
            event,
        ),
        "/configmaps" => (vec![name_column(), number("Data"), text("Age")], configmap),
        "/secrets" => (
            vec![name_column(), text("Type"), number("Data"), text("Age")],
            secret,
        ),
        "/services" => (
            vec![
                name_column(),
                text("Type"),
                text("Cluster-IP"),
                text("External-IP"),
                text("Port(s)"),
                text("Age"),
                wide("Selector"),
            ],
            service,
        ),
        "/endpoints" => (vec![name_column(), text("Endpoints"), text("Age")], endpoints),
        "/serviceaccounts" => (vec![name_column(), text("Age")], plain),
        "coordination.k8s.io/leases" => (vec![name_column(), text("Holder"), text("Age")], lease),
        "node.k8s.io/runtimeclasses" => (vec![name_column(), text("Handler"), text("Age")], runtime_class),
        "scheduling.k8s.io/priorityclasses" => (
            vec![
                name_column(),
                number("Value"),
                Column {
                    kind: "boolean",
                    ..text("Global-Default")
                },
                text("Age"),
                text("PreemptionPolicy"),
            ],
            priority_class,
        ),
        "rbac.authorization.k8s.io/rolebindings" | "rbac.authorization.k8s.io/clusterrolebindings" => {
            (vec![name_column(), text("Role"), text("Age")], role_binding)
        }
        "rbac.authorization.k8s.io/roles" | "rbac.authorization.k8s.io/clusterroles" | DEFINITIONS => {
            (vec![name_column(), text("Created At")], created)
        }
        _ => (vec![name_column(), text("Age")], plain),
    }
}

fn at(object: &Value, path: &[&str]) -> Value {
    object::at(object, path).cloned().unwrap_or(Value::Null)
}

fn or<'v>(object: &'v Value, path: &[&str], otherwise: &'v str) -> &'v str {
    match object::str_at(object, path) {
        None | Some("") => otherwise,
        Some(text) => text,
    }
}

fn name(object: &Value) -> Value {
    object::name(object).into()
}

fn plain(object: &Value) -> Vec<Value> {
    vec![name(object), age::of(object)]
}

fn created(object: &Value) -> Vec<Value> {
    vec![name(object), object::meta_str(object, "creationTimestamp").into()]
}

fn namespace(object: &Value) -> Vec<Value> {
    vec![name(object), at(object, &["status", "phase"]), age::of(object)]
}

fn node(node: &Value) -> Vec<Value> {
    let mut status = vec![match object::condition(node, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object::at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push("SchedulingDisabled");
    }
    let labels = object::at(node, &["metadata", "labels"]).and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role),
                _ if key == "kubernetes.io/role" => value.as_str(),
                _ => None,
            },
        )
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    };
    let address = |kind: &str| {
        let found = object::list_at(node, &["status", "addresses"])
            .iter()
            .find(|address| object::str_at(address, &["type"]) == Some(kind))
            .and_then(|address| object::str_at(address, &["address"]));
        Value::from(found.unwrap_or("<none>"))
    };
    let info = |field: &str| Value::from(or(node, &["status", "nodeInfo", field], "<unknown>"));
    vec![
        name(node),
        status.join(",").into(),
        roles.into(),
        age::of(node),
        at(node, &["status", "nodeInfo", "kubeletVersion"]),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event(event: &Value) -> Vec<Value> {
    // Both groups' names, since the row is made from what the client asked for.
    let pick = |old: &[&str], new: &[&str]| {
        object::at(event, old)
            .or_else(|| object::at(event, new))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let text_of = |value: Value| value.as_str().unwrap_or("").to_owned();
    let involved = pick(&["involvedObject"], &["regarding"]);
    let micro = text_of(at(event, &["eventTime"]));
    let stamp = |old: &str, new: &str| {
        let text = text_of(pick(&[old], &[new]));
        if text.is_empty() { micro.clone() } else { text }
    };
    let series = object::str_at(event, &["series", "lastObservedTime"]).map(str::to_owned);
    let last = series.unwrap_or_else(|| stamp("lastTimestamp", "deprecatedLastTimestamp"));
    let first = stamp("firstTimestamp", "deprecatedFirstTimestamp");
    let source = pick(&["source"], &["deprecatedSource"]);
    let component = or(
        &source,
        &["component"],
        or(
            event,
            &["reportingComponent"],
            or(event, &["reportingController"], ""),
        ),
    )
    .to_owned();
    let host = or(&source, &["host"], "").to_owned();
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    let count = pick(&["count"], &["deprecatedCount"]).as_i64();
    let count = object::at(event, &["series", "count"])
        .and_then(Value::as_i64)
        .or(count)
        .filter(|count| *count > 0)
        .unwrap_or(1);
    let target = format!(
        "{}/{}",
        or(&involved, &["kind"], "").to_lowercase(),
        or(&involved, &["name"], "")
    );
    vec![
        age::since(&last).into(),
        at(event, &["type"]),
        at(event, &["reason"]),
        target.into(),
        or(&involved, &["fieldPath"], "").into(),
        source.into(),
        text_of(pick(&["message"], &["note"])).trim().to_owned().into(),
        age::since(&first).into(),
        count.to_string().into(),
        name(event),
    ]
}

fn entries(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn configmap(object: &Value) -> Vec<Value> {
    vec![
        name(object),
        (entries(object, "data") + entries(object, "binaryData")).into(),
        age::of(object),
    ]
}

fn secret(object: &Value) -> Vec<Value> {
    vec![
        name(object),
        at(object, &["type"]),
        entries(object, "data").into(),
        age::of(object),
    ]
}

fn service(service: &Value) -> Vec<Value> {
    let ports: Vec<String> = object::list_at(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
            let protocol = or(port, &["protocol"], "TCP");
            match number("nodePort") {
                0 => format!("{}/{protocol}", number("port")),
                node_port => format!("{}:{node_port}/{protocol}", number("port")),
            }
        })
        .collect();
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    };
    let external = match or(service, &["spec", "type"], "ClusterIP") {
        "ExternalName" => or(service, &["spec", "externalName"], "<none>"),
        "LoadBalancer" => or(service, &["status", "loadBalancer", "ingress"], "<pending>"),
        _ => "<none>",
    };
    let selector = object::at(service, &["spec", "selector"]).and_then(Value::as_object);
    let selector: Vec<String> = selector
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    let selector = if selector.is_empty() {
        "<none>".to_owned()
    } else {
        selector.join(",")
    };
    vec![
        name(service),
        at(service, &["spec", "type"]),
        or(service, &["spec", "clusterIP"], "<none>").into(),
        external.into(),
        ports.into(),
        age::of(service),
        selector.into(),
    ]
}

fn endpoints(object: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for subset in object::list_at(object, &["subsets"]) {
        for address in object::list_at(subset, &["addresses"]) {
            for port in object::list_at(subset, &["ports"]) {
                let port = port.get("port").and_then(Value::as_i64).unwrap_or(0);
                found.push(format!("{}:{port}", or(address, &["ip"], "")));
            }
        }
    }
    let text = match found.len() {
        0 => "<none>".to_owned(),
        1..=3 => found.join(","),
        more => format!("{} + {} more...", found[..3].join(","), more - 3),
    };
    vec![name(object), text.into(), age::of(object)]
}

fn lease(object: &Value) -> Vec<Value> {
    vec![
        name(object),
        or(object, &["spec", "holderIdentity"], "").into(),
        age::of(object),
    ]
}

fn runtime_class(object: &Value) -> Vec<Value> {
    vec![name(object), at(object, &["handler"]), age::of(object)]
}

fn priority_class(object: &Value) -> Vec<Value> {
    let global = object
        .get("globalDefault")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let value = object.get("value").cloned().unwrap_or_else(|| 0.into());
    vec![
        name(object),
        value,
        global.into(),
        age::of(object),
        at(object, &["preemptionPolicy"]),
    ]
}

fn role_binding(object: &Value) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        or(object, &["roleRef", "kind"], ""),
        or(object, &["roleRef", "name"], "")
    );
    vec![name(object), role.into(), age::of(object)]
}

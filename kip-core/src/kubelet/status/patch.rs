//! The smallest strategic merge patch that makes the API's copy of a status say what it should.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Map, Value, json};

/// Lists that a strategic merge patch replaces as a whole, and single values.
const PLAIN: [&str; 8] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "podIP",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
];
/// Lists that a strategic merge patch merges by the element's `ip`.
const BY_IP: [&str; 2] = ["hostIPs", "podIPs"];

/// The patch of the `status` subresource, or None when nothing changed. It names the pod's UID, so that it cannot land on another pod
/// of the same name.
pub(crate) fn patch(uid: &str, known: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let (old, new) = (fields(known), fields(wanted));
    let mut changes = Map::new();
    for name in PLAIN {
        let (old, new) = (old.get(name), new.get(name));
        if old != new && !(is_nothing(old) && is_nothing(new)) {
            changes.insert(name.to_owned(), new.cloned().unwrap_or(Value::Null));
        }
    }
    for name in BY_IP {
        if let Some(list) = by_ip(old.get(name), new.get(name)) {
            changes.insert(name.to_owned(), list);
        }
    }
    let conditions: Vec<&PodCondition> = wanted
        .conditions
        .iter()
        .flatten()
        .filter(|wanted| !known.conditions.iter().flatten().any(|known| same(known, wanted)))
        .collect();
    if !conditions.is_empty() {
        let conditions: Vec<Value> = conditions.into_iter().map(explicit).collect();
        changes.insert("conditions".to_owned(), Value::Array(conditions));
    }
    // An API that does not keep generations must not be told again and again.
    let news = !changes.is_empty() || known.observed_generation.is_some();
    if news && wanted.observed_generation.is_some() && wanted.observed_generation != known.observed_generation
    {
        changes.insert("observedGeneration".to_owned(), json!(wanted.observed_generation));
    }
    if changes.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "uid": uid }, "status": changes }))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn same(known: &PodCondition, wanted: &PodCondition) -> bool {
    known.type_ == wanted.type_
        && known.status == wanted.status
        && known.reason == wanted.reason
        && known.message == wanted.message
        && (known.observed_generation == wanted.observed_generation || known.observed_generation.is_none())
}

/// The condition with `null` where it has nothing, or an old reason would stay behind.
fn explicit(condition: &PodCondition) -> Value {
    let mut value = json!(condition);
    for field in ["reason", "message"] {
        if value.get(field).is_none() {
            value[field] = Value::Null;
        }
    }
    value
}

fn by_ip(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    let ips = |list: Option<&Value>| -> Vec<String> {
        let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(|item| item["ip"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (old, new) = (ips(old), ips(new));
    if old == new {
        return None;
    }
    let mut list: Vec<Value> = new.iter().map(|ip| json!({ "ip": ip })).collect();
    let gone = old.iter().filter(|ip| !new.contains(ip));
    list.extend(gone.map(|ip| json!({ "ip": ip, "$patch": "delete" })));
    Some(Value::Array(list))
}

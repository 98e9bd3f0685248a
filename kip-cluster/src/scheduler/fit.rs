//! Decide whether a pod fits a node, and why not. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::defaults::requests;
use crate::object;
use crate::quantity::Quantity;
use crate::store::Object;

/// A node and what is taken of it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) node: Object,
    pub(super) used: BTreeMap<String, Quantity>,
    pub(super) pods: u64,
}

/// Adds amounts by resource.
pub(super) fn add(into: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>) {
    for (name, amount) in more {
        let sum = into.get(name).map_or(*amount, |own| own.plus(*amount));
        into.insert(name.clone(), sum);
    }
}

/// The node to use: of those that fit the one with the fewest pods, ties by name; or the reason in words.
pub(super) fn choose(pod: &Value, rooms: &[Room]) -> Result<usize, String> {
    if rooms.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut fitting = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (index, room) in rooms.iter().enumerate() {
        let problems = problems(pod, room);
        if problems.is_empty() {
            fitting.push(index);
        }
        for problem in problems {
            *reasons.entry(problem).or_default() += 1;
        }
    }
    let best = fitting.into_iter().min_by_key(|&index| {
        let room = &rooms[index];
        (prefers_not(pod, &room.node), room.pods, object::name(&room.node))
    });
    best.ok_or_else(|| {
        let mut texts: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        texts.sort();
        format!("0/{} nodes are available: {}.", rooms.len(), texts.join(", "))
    })
}

/// Why the pod cannot be on the node; empty when it can. The first kind of obstacle is all that is told, as
/// kube-scheduler does it; of missing capacity all is told.
fn problems(pod: &Value, room: &Room) -> Vec<String> {
    let node = &room.node;
    let unschedulable = object::at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true));
    if unschedulable && !tolerates(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule") {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    for taint in object::list_at(node, &["spec", "taints"]) {
        let text = |field: &str| object::str_at(taint, &[field]).unwrap_or("");
        let hard = matches!(text("effect"), "NoSchedule" | "NoExecute");
        if hard && !tolerates(pod, text("key"), text("value"), text("effect")) {
            return vec!["node(s) had untolerated taint(s)".to_owned()];
        }
    }
    // No node lifecycle controller turns this condition into a taint here, so it counts as one.
    if object::condition(node, "Ready") != Some("True")
        && !tolerates(pod, "node.kubernetes.io/not-ready", "", "NoSchedule")
    {
        return vec!["node(s) had untolerated taint(s)".to_owned()];
    }
    if !matches_node(pod, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    capacity(pod, room)
}

fn capacity(pod: &Value, room: &Room) -> Vec<String> {
    let mut problems = Vec::new();
    let allocatable = |name: &str| {
        object::str_at(&room.node, &["status", "allocatable", name])
            .and_then(Quantity::parse)
            .unwrap_or(Quantity::ZERO)
    };
    let mut pods = Quantity::ZERO;
    if let Some(count) = Quantity::parse(&(room.pods + 1).to_string()) {
        pods = count;
    }
    if pods.exceeds(allocatable("pods")) {
        problems.push("Too many pods".to_owned());
    }
    for (name, wanted) in requests(pod) {
        let used = room.used.get(&name).copied().unwrap_or(Quantity::ZERO);
        if wanted != Quantity::ZERO && used.plus(wanted).exceeds(allocatable(&name)) {
            problems.push(format!("Insufficient {name}"));
        }
    }
    problems
}

fn tolerates(pod: &Value, key: &str, value: &str, effect: &str) -> bool {
    object::list_at(pod, &["spec", "tolerations"])
        .iter()
        .any(|toleration| {
            let text = |field: &str| object::str_at(toleration, &[field]).unwrap_or("");
            let key_fits = text("key") == key || (text("key").is_empty() && text("operator") == "Exists");
            let value_fits = text("operator") == "Exists" || text("value") == value;
            let effect_fits = text("effect").is_empty() || text("effect") == effect;
            key_fits && value_fits && effect_fits
        })
}

/// How many soft taints of the node the pod does not tolerate.
fn prefers_not(pod: &Value, node: &Value) -> usize {
    let text = |taint: &Value, field: &str| object::str_at(taint, &[field]).unwrap_or("").to_owned();
    object::list_at(node, &["spec", "taints"])
        .iter()
        .filter(|taint| text(taint, "effect") == "PreferNoSchedule")
        .filter(|taint| {
            !tolerates(
                pod,
                &text(taint, "key"),
                &text(taint, "value"),
                "PreferNoSchedule",
            )
        })
        .count()
}

fn matches_node(pod: &Value, node: &Value) -> bool {
    let label = |key: &str| object::at(node, &["metadata", "labels", key]).and_then(Value::as_str);
    let selector = object::at(pod, &["spec", "nodeSelector"]).and_then(Value::as_object);
    if !selector
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key).is_some() && label(key) == value.as_str())
    {
        return false;
    }
    let required = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
    ];
    let Some(required) = object::at(pod, &required) else {
        return true;
    };
    let name = object::name(node);
    object::list_at(required, &["nodeSelectorTerms"])
        .iter()
        .any(|term| {
            let (labels, fields) = (
                object::list_at(term, &["matchExpressions"]),
                object::list_at(term, &["matchFields"]),
            );
            // A term without requirements chooses nothing.
            !(labels.is_empty() && fields.is_empty())
                && labels.iter().all(|expression| {
                    holds(
                        expression,
                        label(expression.get("key").and_then(Value::as_str).unwrap_or("")),
                    )
                })
                && fields.iter().all(|expression| {
                    expression.get("key").is_some_and(|key| key == "metadata.name")
                        && holds(expression, Some(name))
                })
        })
}

/// Whether a requirement of node affinity holds for a value.
fn holds(expression: &Value, value: Option<&str>) -> bool {
    let values: Vec<&str> = object::list_at(expression, &["values"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |test: fn(&i64, &i64) -> bool| match (
        value.and_then(number),
        values.first().copied().and_then(number),
    ) {
        (Some(own), Some(bound)) => test(&own, &bound),
        _ => false,
    };
    match object::str_at(expression, &["operator"]).unwrap_or("") {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|own, bound| own > bound),
        "Lt" => compare(|own, bound| own < bound),
        _ => false,
    }
}

//! Merge an applied configuration into the live object, and take out what the applier no longer sends.

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, element, field};
use crate::schema::{ListType, Node};

/// `live` with every field of `config` set; lists are merged by their keys.
pub(super) fn merge(live: &Value, config: &Value, node: &Node) -> Value {
    let resolved = node.resolve();
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !resolved.atomic && !node.atomic => {
            let mut out: Map<String, Value> = live.clone();
            for (name, value) in config {
                let merged = match live.get(name) {
                    Some(old) => merge(old, value, node.member(name).unwrap_or(&Node::ANY)),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(live), Value::Array(config)) if node.list != ListType::Atomic => {
            merge_lists(live, config, node)
        }
        _ => config.clone(),
    }
}

/// Elements of both; those of `config` in its order, live ones stay where they are before them.
fn merge_lists(live: &[Value], config: &[Value], node: &Node) -> Value {
    let id = |value: &Value| element(value, &node.list);
    let wanted: Vec<String> = config.iter().map(id).collect();
    let mut out: Vec<Value> = Vec::new();
    let mut next = 0;
    for old in live {
        if wanted.contains(&id(old)) {
            // A shared element: bring out everything of the configuration up to and including it, in its order.
            while next < config.len() {
                out.push(merged_element(live, &config[next], node));
                next += 1;
                if wanted[next - 1] == id(old) {
                    break;
                }
            }
        } else {
            out.push(old.clone());
        }
    }
    out.extend(
        config[next..]
            .iter()
            .map(|value| merged_element(live, value, node)),
    );
    Value::Array(out)
}

fn merged_element(live: &[Value], value: &Value, node: &Node) -> Value {
    let id = element(value, &node.list);
    match live.iter().find(|old| element(old, &node.list) == id) {
        Some(old) => merge(old, value, node.element()),
        None => value.clone(),
    }
}

/// Removes from `value` every field that is in `last` and that nobody in `kept` owns or owns a part of.
pub(super) fn prune(value: &mut Value, last: &FieldSet, kept: &FieldSet, node: &Node) {
    let nothing = FieldSet::default();
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let element = field(name);
                let Some(last) = last.children.get(&element) else {
                    return true;
                };
                let kept = kept.children.get(&element).unwrap_or(&nothing);
                if last.member && kept.is_empty() {
                    return false;
                }
                let was_empty = is_hollow(value);
                prune(value, last, kept, node.member(name).unwrap_or(&Node::ANY));
                // A parent that only held removed fields goes with them.
                was_empty || !is_hollow(value) || !kept.is_empty()
            });
        }
        Value::Array(list) => list.retain_mut(|value| {
            let element = element(value, &node.list);
            let Some(last) = last.children.get(&element) else {
                return true;
            };
            let kept = kept.children.get(&element).unwrap_or(&nothing);
            if last.member && kept.is_empty() {
                return false;
            }
            prune(value, last, kept, node.element());
            true
        }),
        _ => {}
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

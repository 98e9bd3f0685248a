//! Find out which fields differ between two states of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, element, field};
use crate::schema::{ListType, Node};

/// The fields that are new or different, and those that are gone.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

/// Compares two states of an object.
pub(super) fn compare(old: &Value, new: &Value, node: &Node) -> Difference {
    let mut difference = Difference::default();
    walk(
        Some(old),
        Some(new),
        node,
        &mut difference.changed,
        &mut difference.removed,
    );
    difference
}

fn walk(
    old: Option<&Value>,
    new: Option<&Value>,
    node: &Node,
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    let resolved = node.resolve();
    let map = |value: Option<&Value>| {
        value
            .and_then(Value::as_object)
            .filter(|map| !map.is_empty())
            .is_some()
    };
    let list = |value: Option<&Value>| {
        value
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty())
            .is_some()
    };
    let absent_or = |value: Option<&Value>, test: fn(&Value) -> bool| value.is_none_or(test);
    if (map(old) || map(new))
        && absent_or(old, Value::is_object)
        && absent_or(new, Value::is_object)
        && !resolved.atomic
        && !node.atomic
    {
        walk_members(
            members(old),
            members(new),
            |name| (field(name), node.member(name).unwrap_or(&Node::ANY)),
            changed,
            removed,
        );
    } else if (list(old) || list(new))
        && absent_or(old, Value::is_array)
        && absent_or(new, Value::is_array)
        && node.list != ListType::Atomic
    {
        let element_node = if node.list == ListType::Set {
            &Node::ANY
        } else {
            node.element()
        };
        walk_members(
            elements(old, node),
            elements(new, node),
            |id| (id.to_owned(), element_node),
            changed,
            removed,
        );
    } else if old != new {
        changed.member |= new.is_some();
        removed.member |= new.is_none();
        return;
    }
    changed.member |= old.is_none() && new.is_some();
    removed.member |= new.is_none() && old.is_some();
}

fn walk_members<'n>(
    old: BTreeMap<String, &Value>,
    new: BTreeMap<String, &Value>,
    describe: impl Fn(&str) -> (String, &'n Node),
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (element, node) = describe(name);
        let (mut inner_changed, mut inner_removed) = (FieldSet::default(), FieldSet::default());
        walk(
            old.get(name).copied(),
            new.get(name).copied(),
            node,
            &mut inner_changed,
            &mut inner_removed,
        );
        for (set, inner) in [(&mut *changed, inner_changed), (&mut *removed, inner_removed)] {
            if !inner.is_empty() {
                set.children.insert(element.clone(), inner);
            }
        }
    }
}

fn members(value: Option<&Value>) -> BTreeMap<String, &Value> {
    let map: Option<&Map<String, Value>> = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value))
        .collect()
}

fn elements<'v>(value: Option<&'v Value>, node: &Node) -> BTreeMap<String, &'v Value> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|value| (element(value, &node.list), value))
        .collect()
}

//! A set of field paths, as `metadata.managedFields[].fieldsV1` writes it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{ListType, Node, Shape};

/// A tree of path elements (`f:name`, `k:{...}`, `v:...`); a node that is a member is a field of the set itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) member: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Every field of `value`, by the rules of server-side apply.
    pub(super) fn of(value: &Value, node: &Node) -> Self {
        let mut set = Self::default();
        set.add_value(value, node);
        set
    }

    fn add_value(&mut self, value: &Value, node: &Node) {
        let resolved = node.resolve();
        match value {
            Value::Object(map) if !resolved.atomic && !node.atomic => {
                let open = !matches!(resolved.shape, Shape::Object(_));
                for (name, value) in map {
                    let child = self.child(&field(name));
                    let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    let member = node.member(name).unwrap_or(&Node::ANY);
                    child.member |= empty || open || node.member(name).is_none();
                    child.add_value(value, member);
                }
            }
            Value::Array(list) if node.list != ListType::Atomic => {
                for value in list {
                    let child = self.child(&element(value, &node.list));
                    child.member = true;
                    if matches!(node.list, ListType::Map(_)) {
                        child.add_value(value, node.element());
                    }
                }
            }
            _ => self.member = true,
        }
    }

    pub(super) fn child(&mut self, element: &str) -> &mut Self {
        self.children.entry(element.to_owned()).or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (element, set) in &other.children {
            let joined = match out.children.get(element) {
                Some(own) => own.union(set),
                None => set.clone(),
            };
            out.children.insert(element.clone(), joined);
        }
        out
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |own, theirs| own && !theirs, true)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |own, theirs| own && theirs, false)
    }

    fn combine(&self, other: &Self, member: fn(bool, bool) -> bool, keep_rest: bool) -> Self {
        let mut out = Self {
            member: member(self.member, other.member),
            children: BTreeMap::new(),
        };
        for (element, set) in &self.children {
            let result = match other.children.get(element) {
                Some(theirs) => set.combine(theirs, member, keep_rest),
                None if keep_rest => set.clone(),
                None => continue,
            };
            if !result.is_empty() {
                out.children.insert(element.clone(), result);
            }
        }
        out
    }

    /// Takes a field, given by member names, and all below it out of the set.
    pub(super) fn remove_member(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let element = field(first);
        if rest.is_empty() {
            self.children.remove(&element);
        } else if let Some(child) = self.children.get_mut(&element) {
            child.remove_member(rest);
            if child.is_empty() {
                self.children.remove(&element);
            }
        }
    }

    /// The fields of the set, spelt as conflict messages spell them: `.spec.containers[name="c"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(prefix.to_owned());
        }
        for (element, set) in &self.children {
            set.collect(&format!("{prefix}{}", spoken(element)), out);
        }
    }

    /// The `fieldsV1` form.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (element, set) in &self.children {
            let mut value = set.to_json();
            if set.member
                && !set.children.is_empty()
                && let Value::Object(map) = &mut value
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.clone(), value);
        }
        Value::Object(map)
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let mut set = Self::default();
        for (element, value) in value.as_object().into_iter().flatten() {
            if element == "." {
                continue;
            }
            let mut child = Self::from_json(value);
            let map = value.as_object();
            child.member = map.is_none_or(|map| map.is_empty() || map.contains_key("."));
            set.children.insert(element.clone(), child);
        }
        set
    }
}

/// The path element of an object's member.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The path element of a list's element.
pub(super) fn element(value: &Value, list: &ListType) -> String {
    match list {
        ListType::Map(keys) => {
            let id: Map<String, Value> = keys
                .iter()
                .map(|key| {
                    (
                        key.clone(),
                        value
                            .get(key)
                            .cloned()
                            .or_else(|| key_default(key))
                            .unwrap_or(Value::Null),
                    )
                })
                .filter(|(_, value)| !value.is_null())
                .collect();
            format!("k:{}", Value::Object(id))
        }
        ListType::Set | ListType::Atomic => format!("v:{value}"),
    }
}

/// Keys a user may leave out because Kubernetes fills them in.
fn key_default(key: &str) -> Option<Value> {
    (key == "protocol").then(|| "TCP".into())
}

fn spoken(element: &str) -> String {
    if let Some(name) = element.strip_prefix("f:") {
        return format!(".{name}");
    }
    let id: Option<Value> = element
        .strip_prefix("k:")
        .and_then(|text| serde_json::from_str(text).ok());
    match id {
        Some(Value::Object(id)) => {
            let keys: Vec<String> = id.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[={}]", element.trim_start_matches("v:")),
    }
}

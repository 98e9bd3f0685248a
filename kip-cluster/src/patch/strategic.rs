//! Strategic merge patch: a merge patch that knows which lists have keys, with its `$` directives.

use serde_json::{Map, Value};

use crate::object::as_map;
use crate::schema::Node;
use crate::status::{ApiError, ApiResult};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `object`.
pub(super) fn merge(object: &mut Value, patch: Value, node: &Node) -> ApiResult<()> {
    let Value::Object(patch) = patch else {
        *object = patch;
        return Ok(());
    };
    merge_map(as_map(object), patch, node)
}

fn merge_map(target: &mut Map<String, Value>, mut patch: Map<String, Value>, node: &Node) -> ApiResult<()> {
    match patch
        .remove(DIRECTIVE)
        .as_ref()
        .map(|directive| directive.as_str().unwrap_or(""))
    {
        None | Some("merge") => {}
        Some("replace") => {
            *target = cleaned(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(ApiError::bad_request(format!("unknown patch type: {other}"))),
    }
    if let Some(Value::Array(keep)) = patch.remove(RETAIN) {
        target.retain(|name, _| keep.iter().any(|kept| kept.as_str() == Some(name)));
    }
    let (mut orders, mut deletions) = (Vec::new(), Vec::new());
    patch.retain(|name, value| {
        if let Some(field) = name.strip_prefix(ORDER) {
            orders.push((field.to_owned(), value.take()));
        } else if let Some(field) = name.strip_prefix(DELETE_FROM) {
            deletions.push((field.to_owned(), value.take()));
        } else {
            return true;
        }
        false
    });
    for (field, values) in deletions {
        if let (Some(Value::Array(list)), Value::Array(values)) = (target.get_mut(&field), values) {
            list.retain(|value| !values.contains(value));
        }
    }
    for (name, value) in patch {
        let member = node.member(&name).unwrap_or(&Node::ANY);
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(patch) => {
                merge_map(as_map(target.entry(name).or_insert(Value::Null)), patch, member)?
            }
            Value::Array(patch) => merge_list(target.entry(name).or_insert(Value::Null), patch, member)?,
            other => {
                target.insert(name, other);
            }
        }
    }
    for (field, order) in orders {
        let key = node
            .member(&field)
            .and_then(|member| member.merge_key.clone())
            .unwrap_or_default();
        if let (Some(Value::Array(list)), Value::Array(order)) = (target.get_mut(&field), order) {
            reorder(list, &order, &key);
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, patch: Vec<Value>, node: &Node) -> ApiResult<()> {
    let Some(key) = node.merge_key.as_deref() else {
        *target = patch.into_iter().map(clean).collect();
        return Ok(());
    };
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else { return Ok(()) };
    if key.is_empty() {
        for value in patch {
            if !list.contains(&value) {
                list.push(value);
            }
        }
        return Ok(());
    }
    let directive = |value: &Value| value.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch
        .iter()
        .any(|value| directive(value).as_deref() == Some("replace"))
    {
        *list = patch
            .into_iter()
            .filter(|value| value.get(key).is_some())
            .map(clean)
            .collect();
        return Ok(());
    }
    for value in patch {
        let Some(id) = value.get(key).cloned() else {
            return Err(ApiError::bad_request(format!(
                "map: {value} does not contain declared merge key: {key}"
            )));
        };
        let position = list.iter().position(|other| other.get(key) == Some(&id));
        if directive(&value).as_deref() == Some("delete") {
            list.retain(|other| other.get(key) != Some(&id));
        } else if let Some(position) = position {
            merge(&mut list[position], value, node.element())?;
        } else {
            let mut fresh = Value::Object(Map::new());
            merge(&mut fresh, value, node.element())?;
            list.push(fresh);
        }
    }
    Ok(())
}

/// Puts the elements named in `order` into that order; elements it does not name keep their places.
fn reorder(list: &mut [Value], order: &[Value], key: &str) {
    let id = |value: &Value| {
        if key.is_empty() {
            Some(value.clone())
        } else {
            value.get(key).cloned()
        }
    };
    let rank = |value: &Value| {
        let id = id(value)?;
        order.iter().position(|entry| {
            if key.is_empty() {
                *entry == id
            } else {
                entry.get(key) == Some(&id)
            }
        })
    };
    let places: Vec<usize> = (0..list.len())
        .filter(|&index| rank(&list[index]).is_some())
        .collect();
    let mut named: Vec<Value> = places.iter().map(|&index| list[index].clone()).collect();
    named.sort_by_key(|value| rank(value));
    for (place, value) in places.into_iter().zip(named) {
        list[place] = value;
    }
}

/// The value without directives, as it is stored when there is nothing to merge it with.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(cleaned(map)),
        Value::Array(list) => list.into_iter().map(clean).collect(),
        other => other,
    }
}

fn cleaned(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
        .map(|(name, value)| (name, clean(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::definition;

    /// Broken, `kubectl apply`, `edit` and `set image` replace lists they should merge.
    #[test]
    fn lists_merge_by_their_keys() {
        let base = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}],
            "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}]},
            "metadata": {"finalizers": ["f"], "labels": {"x": "y"}}});
        for (patch, at, expected) in [
            (
                json!({"spec": {"containers": [{"name": "a", "image": "3"}]}}),
                "/spec/containers",
                json!([{"name": "a", "image": "3", "args": ["x"]}, {"name": "b", "image": "2"}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c", "image": "4"}]}}),
                "/spec/containers",
                json!([{"name": "b", "image": "2"}, {"name": "c", "image": "4"}]),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
                "/spec/containers",
                json!([{"name": "z"}]),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                "/spec/containers/0/name",
                json!("b"),
            ),
            (
                json!({"spec": {"tolerations": [{"key": "n"}]}}),
                "/spec/tolerations",
                json!([{"key": "n"}]),
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}}),
                "/spec/volumes",
                json!([{"name": "v", "secret": {"secretName": "s"}}]),
            ),
            (
                json!({"metadata": {"finalizers": ["g"]}}),
                "/metadata/finalizers",
                json!(["f", "g"]),
            ),
            (
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["f"]}}),
                "/metadata/finalizers",
                json!([]),
            ),
            (
                json!({"metadata": {"labels": {"x": null, "n": "m"}}}),
                "/metadata/labels",
                json!({"n": "m"}),
            ),
            (
                json!({"metadata": {"labels": {"$patch": "replace", "n": "m"}}}),
                "/metadata/labels",
                json!({"n": "m"}),
            ),
        ] {
            let mut object = base.clone();
            merge(
                &mut object,
                patch.clone(),
                definition("io.k8s.api.core.v1.Pod").unwrap(),
            )
            .unwrap();
            assert_eq!(object.pointer(at), Some(&expected), "{patch}");
        }
    }
}

//! Compare an object with its schema: unknown fields out, wrong types named, quantities in canonical form.

use serde_json::Value;

use super::{Node, Shape};
use crate::quantity::Quantity;

/// What [`check_fields`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Paths of members the schema does not know; they were removed from the value.
    pub(crate) unknown: Vec<String>,
    /// The first value of a wrong type, as a sentence.
    pub(crate) wrong: Option<String>,
}

/// Removes from `value` what `node` does not know and says what it was. Nulls are removed silently, as Kubernetes'
/// own types do it, unless the schema keeps unknown members.
pub(crate) fn check_fields(value: &mut Value, node: &Node) -> Findings {
    let mut findings = Findings::default();
    walk(value, node, &mut String::new(), &mut findings);
    findings
}

fn walk(value: &mut Value, node: &Node, path: &mut String, findings: &mut Findings) {
    let node = node.resolve();
    match &node.shape {
        Shape::Any | Shape::Reference(_) => return,
        Shape::Object(members) => {
            if let Value::Object(map) = value {
                walk_object(map, members, node, path, findings);
                return;
            }
        }
        Shape::Map(element) => {
            if let Value::Object(map) = value {
                for (name, value) in map.iter_mut() {
                    within(path, name, |path| walk(value, element, path, findings));
                }
                return;
            }
        }
        Shape::List(element) => {
            if let Value::Array(list) = value {
                for (index, value) in list.iter_mut().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("[{index}]"));
                    walk(value, element, path, findings);
                    path.truncate(length);
                }
                return;
            }
        }
        Shape::String if value.is_string() => return,
        Shape::Integer if value.is_i64() || value.is_u64() => return,
        Shape::Integer => {
            // YAML and JavaScript write whole numbers as 1.0 now and then; Kubernetes takes them.
            if let Some(whole) = value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
                let whole = whole as i64;
                *value = whole.into();
                return;
            }
        }
        Shape::Number if value.is_number() => return,
        Shape::Boolean if value.is_boolean() => return,
        Shape::IntOrString if value.is_string() || value.is_i64() => return,
        Shape::Quantity => {
            let text = match &*value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            if let Some(quantity) = text.as_deref().and_then(Quantity::parse) {
                *value = quantity.to_string().into();
                return;
            }
            if text.is_some() {
                findings.wrong.get_or_insert_with(|| {
                    format!(
                        "quantities must match the regular expression \
                         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' ({path}: {value})"
                    )
                });
                return;
            }
        }
        _ => {}
    }
    if value.is_null() {
        return;
    }
    findings.wrong.get_or_insert_with(|| {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        format!(
            "json: cannot unmarshal {found} into Go struct field {path} of type {}",
            go_name(&node.shape)
        )
    });
}

fn walk_object(
    map: &mut serde_json::Map<String, Value>,
    members: &std::collections::BTreeMap<Box<str>, Node>,
    node: &Node,
    path: &mut String,
    findings: &mut Findings,
) {
    map.retain(|name, value| {
        let known = members.get(name.as_str());
        if value.is_null() && known.is_some() {
            return false;
        }
        if known.is_some() || node.keep_unknown {
            return true;
        }
        if node.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            return true;
        }
        within(path, name, |path| findings.unknown.push(path.clone()));
        false
    });
    for (name, value) in map.iter_mut() {
        if let Some(node) = members.get(name.as_str()) {
            within(path, name, |path| walk(value, node, path, findings));
        }
    }
}

/// Runs `action` with `name` added to the path.
fn within(path: &mut String, name: &str, action: impl FnOnce(&mut String)) {
    let length = path.len();
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
    action(path);
    path.truncate(length);
}

fn go_name(shape: &Shape) -> &'static str {
    match shape {
        Shape::Object(_) => "object",
        Shape::Map(_) => "map[string]interface {}",
        Shape::List(_) => "[]interface {}",
        Shape::Integer => "int32",
        Shape::Number => "float64",
        Shape::Boolean => "bool",
        Shape::IntOrString => "intstr.IntOrString",
        Shape::Quantity => "resource.Quantity",
        Shape::String | Shape::Any | Shape::Reference(_) => "string",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::definition;

    /// Broken, a typing error in a manifest is silently ignored.
    #[test]
    fn unknown_fields_are_named_and_removed() {
        let mut pod = json!({
            "metadata": {"name": "p", "labels": {"any": "thing"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 0.5}}}], "foo": 1},
        });
        let findings = check_fields(&mut pod, definition("io.k8s.api.core.v1.Pod").unwrap());
        assert_eq!(findings.unknown, ["spec.foo", "spec.containers[0].imagee"]);
        assert_eq!(findings.wrong, None);
        assert_eq!(
            pod,
            json!({"metadata": {"name": "p", "labels": {"any": "thing"}},
                   "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}}]}})
        );
    }

    /// Broken, `replicas: "three"` is stored and the controller crashes on it.
    #[test]
    fn wrong_types_are_named() {
        for (spec, expected) in [
            (
                json!({"containers": "x"}),
                "string into Go struct field spec.containers of type []interface {}",
            ),
            (
                json!({"hostNetwork": "yes"}),
                "string into Go struct field spec.hostNetwork of type bool",
            ),
            (
                json!({"containers": [{"name": 3}]}),
                "number into Go struct field spec.containers[0].name of type string",
            ),
        ] {
            let findings = check_fields(
                &mut json!({"spec": spec}),
                definition("io.k8s.api.core.v1.Pod").unwrap(),
            );
            let wrong = findings.wrong.unwrap();
            assert!(wrong.ends_with(expected), "{wrong}");
        }
    }
}

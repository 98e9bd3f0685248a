//! Apply the defaults a CustomResourceDefinition gives its fields.

use serde_json::Value;

/// Fills in the `default`s of an `openAPIV3Schema`, at every level that exists.
pub(crate) fn apply_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            let members = schema.get("properties").and_then(Value::as_object);
            for (name, schema) in members.into_iter().flatten() {
                let nullable = schema.get("nullable").and_then(Value::as_bool).unwrap_or(false);
                let absent = map.get(name).is_none_or(|value| value.is_null() && !nullable);
                if let (true, Some(default)) = (absent, schema.get("default")) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(name) {
                    apply_defaults(value, schema);
                }
            }
            if let Some(schema) = schema
                .get("additionalProperties")
                .filter(|schema| schema.is_object())
            {
                let others = map
                    .iter_mut()
                    .filter(|(name, _)| members.is_none_or(|m| !m.contains_key(name.as_str())));
                others.for_each(|(_, value)| apply_defaults(value, schema));
            }
        }
        Value::Array(list) => {
            if let Some(schema) = schema.get("items") {
                list.iter_mut().for_each(|value| apply_defaults(value, schema));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Broken, a controller sees fields missing that its definition promises.
    #[test]
    fn defaults_fill_what_is_absent() {
        let schema = json!({"properties": {"spec": {"default": {}, "properties": {
            "replicas": {"type": "integer", "default": 1},
            "list": {"items": {"properties": {"p": {"default": "TCP"}}}}}}}});
        let mut value = json!({});
        apply_defaults(&mut value, &schema);
        assert_eq!(value, json!({"spec": {"replicas": 1}}));
        let mut value = json!({"spec": {"replicas": 3, "list": [{}, {"p": "UDP"}]}});
        apply_defaults(&mut value, &schema);
        assert_eq!(
            value,
            json!({"spec": {"replicas": 3, "list": [{"p": "TCP"}, {"p": "UDP"}]}})
        );
    }
}

//! Rows of custom resources: the columns their definition names.

use serde_json::Value;

use super::{Column, age, name_column, text};
use crate::object;
use crate::registry::CustomSchema;

/// The name, then the definition's columns, or the age where it names none.
pub(super) fn columns(schema: &CustomSchema) -> Vec<Column> {
    let mut columns = vec![name_column()];
    for column in &schema.columns {
        let kind = match column.kind.as_str() {
            "integer" => "integer",
            "number" => "number",
            "boolean" => "boolean",
            "date" => "date",
            _ => "string",
        };
        columns.push(Column {
            name: column.name.clone(),
            kind,
            format: "",
            priority: column.priority,
        });
    }
    if schema.columns.is_empty() {
        columns.push(Column {
            kind: "date",
            ..text("Age")
        });
    }
    columns
}

pub(super) fn row(schema: &CustomSchema, object: &Value) -> Vec<Value> {
    let mut cells = vec![Value::from(object::name(object))];
    for column in &schema.columns {
        let found = find(object, &column.path);
        cells.push(match (column.kind.as_str(), found) {
            ("date", Some(Value::String(stamp))) => age::since(stamp).into(),
            (_, None) => Value::Null,
            ("string", Some(value)) => value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
                .into(),
            (_, Some(value)) => value.clone(),
        });
    }
    if schema.columns.is_empty() {
        cells.push(age::of(object));
    }
    cells
}

/// Evaluates the simple JSON paths that printer columns use: `.a.b`, `[n]`, `['key']`, `[?(@.type=="Ready")]`, `[*]`
/// (the first element).
pub(super) fn find<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut value = object;
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']')?;
            value = index(value, inner[..end].trim())?;
            rest = &inner[end + 1..];
            continue;
        }
        let inner = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut characters = inner.char_indices();
        let mut end = inner.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        if !name.is_empty() {
            value = value.get(&name)?;
        }
        if end == 0 {
            return None;
        }
        rest = &inner[end..];
    }
    Some(value)
}

fn index<'v>(value: &'v Value, inside: &str) -> Option<&'v Value> {
    if inside == "*" {
        return value.as_array()?.first();
    }
    if let Ok(number) = inside.parse::<usize>() {
        return value.get(number);
    }
    if let Some(filter) = inside
        .strip_prefix("?(")
        .and_then(|filter| filter.strip_suffix(')'))
    {
        let (left, right) = filter.split_once("==")?;
        let wanted = right.trim().trim_matches(['"', '\'']);
        let path = left.trim().strip_prefix('@')?;
        return value
            .as_array()?
            .iter()
            .find(|element| find(element, path).and_then(Value::as_str) == Some(wanted));
    }
    value.get(inside.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Broken, `kubectl get` shows empty columns for custom resources.
    #[test]
    fn column_paths_find_their_values() {
        let object = json!({"spec": {"a": {"b": 1}, "x.y": "z", "list": [{"n": "q"}]},
                            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        for (path, expected) in [
            (".spec.a.b", Some(json!(1))),
            (".spec.list[0].n", Some(json!("q"))),
            (".spec['x.y']", Some(json!("z"))),
            (".spec.x\\.y", Some(json!("z"))),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                Some(json!("True")),
            ),
            (".status.conditions[?(@.type=='Gone')].status", None),
            (".spec.none", None),
            ("..", None),
        ] {
            assert_eq!(find(&object, path), expected.as_ref(), "{path}");
        }
    }
}

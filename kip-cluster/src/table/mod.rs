//! Print objects as rows, with the columns `kubectl get` shows.

mod age;
mod custom;
mod kinds;
mod pod;

use serde_json::{Value, json};

use crate::registry::{Resource, Source};
use crate::store::Object;

/// A column: name, type, format, description, and 0 to be shown always, 1 only with `-o wide`.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) format: &'static str,
    pub(crate) priority: i64,
}

/// A column of text that is shown always.
fn text(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: "string",
        format: "",
        priority: 0,
    }
}

/// A column of text that is shown with `-o wide`.
fn wide(name: &str) -> Column {
    Column {
        priority: 1,
        ..text(name)
    }
}

fn number(name: &str) -> Column {
    Column {
        kind: "integer",
        ..text(name)
    }
}

fn name_column() -> Column {
    Column {
        format: "name",
        ..text("Name")
    }
}

/// Makes the cells of an object.
type Row = Box<dyn Fn(&Value) -> Vec<Value>>;

/// The `Table` of some objects. `include` is what each row carries of its object: `None`, `Metadata` (the default) or
/// `Object`.
pub(crate) fn table(resource: &Resource, objects: &[Object], metadata: Value, include: &str) -> Value {
    let (definitions, row): (Vec<Column>, Row) = match &resource.source {
        Source::Custom(schema) => {
            let schema = std::sync::Arc::clone(schema);
            (
                custom::columns(&schema),
                Box::new(move |object| custom::row(&schema, object)),
            )
        }
        Source::Builtin(_) => {
            let (columns, row) = kinds::of(&resource.table);
            (columns, Box::new(row))
        }
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let carried = match include {
                "None" => Value::Null,
                "Object" => {
                    let mut whole = (**object).clone();
                    whole["kind"] = resource.kind.as_str().into();
                    whole["apiVersion"] = resource.api_version().into();
                    whole
                }
                _ => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                            "metadata": object.get("metadata").cloned().unwrap_or(Value::Null)}),
            };
            let mut entry = json!({"cells": row(object), "object": carried});
            if resource.table == "/pods"
                && let Some(condition) = pod::row_condition(object)
            {
                entry["conditions"] = json!([condition]);
            }
            entry
        })
        .collect();
    let definitions: Vec<Value> = definitions
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": "", "priority": column.priority})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

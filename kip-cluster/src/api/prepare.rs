//! Bring an incoming object into the shape it may be stored in: what the server owns is set by the server.

use serde_json::{Map, Value, json};

use crate::app::{App, DEFINITIONS};
use crate::ids;
use crate::object::{self, as_map, child, copy_field, meta_mut};
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};

/// Sets the server's part of a new object's metadata and drops the status it may not bring.
pub(super) fn for_create(app: &App, resource: &Resource, object: &mut Value) -> ApiResult<()> {
    if object::version(object) != 0 {
        return Err(ApiError::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let generated = object::meta_str(object, "generateName").to_owned();
    let unnamed = object::name(object).is_empty();
    let namespace = object::namespace(object).to_owned();
    let meta = meta_mut(object);
    if unnamed && !generated.is_empty() {
        // 63 is the shortest limit of any name; the suffix takes five.
        let prefix: String = generated.chars().take(58).collect();
        let subject = format!("{}/{namespace}/{prefix}", resource.table);
        let suffix = ids::name_suffix(&*app.origin, &subject);
        meta.insert("name".to_owned(), format!("{prefix}{suffix}").into());
    }
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        meta.remove(field);
    }
    let name = meta.get("name").and_then(Value::as_str).unwrap_or("");
    let uid = app.origin.uid(&format!("{}/{namespace}/{name}", resource.table));
    meta.insert("uid".to_owned(), uid.into());
    meta.insert("creationTimestamp".to_owned(), ids::now(&*app.origin).into());
    if resource.counts_generation {
        meta.insert("generation".to_owned(), 1.into());
    }
    if !resource.namespaced {
        meta.remove("namespace");
    }
    // A node brings its status with it; everything else is given one.
    if resource.has_status && resource.table != "/nodes" {
        as_map(object).remove("status");
    }
    match resource.table.as_str() {
        DEFINITIONS => establish(app, None, object),
        "/namespaces" => *child(object, "status") = Map::from_iter([("phase".to_owned(), json!("Active"))]),
        _ => {}
    }
    drop_empty(meta_mut(object));
    Ok(())
}

/// Makes `new` a successor of `old`: the server's fields stay, and only the part of the object that the path writes
/// changes.
pub(super) fn for_update(app: &App, resource: &Resource, old: &Value, new: &mut Value, subresource: &str) {
    let old_meta = old.get("metadata");
    match subresource {
        "status" if resource.is_custom() => {
            let status = as_map(new).remove("status");
            let managed = object::at(new, &["metadata", "managedFields"]).cloned();
            let version = object::meta_str(new, "resourceVersion").to_owned();
            *new = old.clone();
            set_or_remove(as_map(new), "status", status);
            set_or_remove(meta_mut(new), "managedFields", managed);
            meta_mut(new).insert("resourceVersion".to_owned(), version.into());
        }
        "status" => {
            for (field, value) in as_map(&mut old.clone()) {
                if !matches!(field.as_str(), "metadata" | "status") {
                    as_map(new).insert(field.clone(), value.take());
                }
            }
            as_map(new).retain(|field, _| field == "status" || old.get(field).is_some());
            if resource.table == "/pods" {
                copy_field(meta_mut(new), old_meta, "ownerReferences");
            }
        }
        "ephemeralcontainers" => {
            let containers = object::at(new, &["spec", "ephemeralContainers"]).cloned();
            let meta = new.get("metadata").cloned();
            *new = old.clone();
            set_or_remove(as_map(new), "metadata", meta);
            set_or_remove(child(new, "spec"), "ephemeralContainers", containers);
        }
        "finalize" => {
            let finalizers = object::at(new, &["spec", "finalizers"]).cloned();
            *new = old.clone();
            set_or_remove(child(new, "spec"), "finalizers", finalizers);
        }
        _ => {
            if resource.has_status {
                let status = old.get("status").cloned();
                set_or_remove(as_map(new), "status", status);
            }
            if resource.table == "/namespaces" {
                copy_field(child(new, "spec"), old.get("spec"), "finalizers");
            }
        }
    }
    let meta = meta_mut(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "selfLink",
        "generation",
    ] {
        copy_field(meta, old_meta, field);
    }
    drop_empty(meta);
    if resource.table == DEFINITIONS && subresource.is_empty() {
        establish(app, Some(old), new);
    }
}

/// What is empty is not there: metadata goes through a type that leaves empty lists and maps out.
fn drop_empty(meta: &mut Map<String, Value>) {
    meta.retain(|field, value| match field.as_str() {
        "annotations" | "labels" => value.as_object().is_none_or(|map| !map.is_empty()),
        "finalizers" | "ownerReferences" => value.as_array().is_none_or(|list| !list.is_empty()),
        _ => true,
    });
}

/// Counts a change of what the user wants.
pub(super) fn count_generation(resource: &Resource, old: &Value, new: &mut Value) {
    if !resource.counts_generation {
        return;
    }
    let wanted = |object: &Value| -> Map<String, Value> {
        let map = object.as_object().into_iter().flatten();
        let status = resource.has_status;
        map.filter(|(field, _)| *field != "metadata" && !(status && *field == "status"))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    if wanted(old) != wanted(new) {
        let generation = object::at(old, &["metadata", "generation"])
            .and_then(Value::as_i64)
            .unwrap_or(0)
            + 1;
        meta_mut(new).insert("generation".to_owned(), generation.into());
    }
}

fn set_or_remove(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}

/// Accepts a definition's names at once: there is no other controller here that could object.
fn establish(app: &App, old: Option<&Value>, definition: &mut Value) {
    let names = object::at(definition, &["spec", "names"])
        .cloned()
        .unwrap_or(Value::Null);
    let storage = object::list_at(definition, &["spec", "versions"])
        .iter()
        .find(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .and_then(|version| version.get("name").cloned());
    let mut stored: Vec<Value> = old.map_or_else(Vec::new, |old| {
        object::list_at(old, &["status", "storedVersions"]).to_vec()
    });
    stored.extend(storage.filter(|version| !stored.contains(version)));
    let since = ids::now(&*app.origin);
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    let conditions = match old.map(|old| object::list_at(old, &["status", "conditions"])) {
        Some(kept) if !kept.is_empty() => kept.to_vec(),
        _ => vec![
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ],
    };
    *child(definition, "status") = Map::from_iter([
        ("acceptedNames".to_owned(), names),
        ("storedVersions".to_owned(), stored.into()),
        ("conditions".to_owned(), conditions.into()),
    ]);
}

//! Delete one object: graces, preconditions, finalizers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::{App, DEFINITIONS};
use crate::ids;
use crate::object::{self, meta_mut};
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};
use crate::store::{Key, Object};

/// The options of a deletion that are acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` object.
    pub(crate) fn read(value: &Value) -> Self {
        let text = |field: &str| object::str_at(value, &["preconditions", field]).map(str::to_owned);
        Self {
            grace_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text("uid"),
            version: text("resourceVersion"),
            dry_run: !object::list_at(value, &["dryRun"]).is_empty(),
        }
    }
}

/// What became of the object.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone; this was its last state.
    Now(Object),
    /// Its deletion has begun.
    Begun(Object),
}

/// The finalizer that keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Deletes an object, or begins to.
pub(crate) fn delete_object(
    app: &App,
    resource: &Resource,
    key: &Key,
    options: &DeleteOptions,
) -> ApiResult<Deleted> {
    let missing = || ApiError::not_found(&resource.group, &resource.plural, &key.name);
    loop {
        let old = app.store.get(&resource.table, key).ok_or_else(missing)?;
        check_preconditions(resource, &old, options)?;
        let plan = plan(app, resource, &old, options);
        if options.dry_run {
            return Ok(match plan {
                Plan::Nothing => Deleted::Begun(old),
                Plan::Remove => Deleted::Now(old),
                Plan::Mark(marked) => Deleted::Begun(Arc::new(*marked)),
            });
        }
        let version = object::version(&old);
        let result = match plan {
            Plan::Nothing => return Ok(Deleted::Begun(old)),
            Plan::Remove => app.store.remove(&resource.table, key, version).map(Deleted::Now),
            Plan::Mark(marked) => app
                .store
                .replace(&resource.table, version, *marked)
                .map(Deleted::Begun),
        };
        // Refused: it changed in between; look again.
        if let Ok(deleted) = result {
            if resource.table == DEFINITIONS {
                app.refresh_registry();
            }
            return Ok(deleted);
        }
    }
}

fn check_preconditions(resource: &Resource, old: &Value, options: &DeleteOptions) -> ApiResult<()> {
    let version = object::meta_str(old, "resourceVersion");
    for (what, wanted, found, happened) in [
        (
            "UID",
            &options.uid,
            object::uid(old),
            "deleted and then recreated",
        ),
        ("ResourceVersion", &options.version, version, "modified"),
    ] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might \
                 have been {happened}"
            );
            return Err(ApiError::conflict(
                &resource.group,
                &resource.kind,
                object::name(old),
                &why,
            ));
        }
    }
    Ok(())
}

enum Plan {
    Nothing,
    Remove,
    Mark(Box<Value>),
}

/// The grace a deletion of this object gives, in seconds.
fn grace(resource: &Resource, old: &Value, options: &DeleteOptions) -> i64 {
    if resource.table != "/pods" {
        return 0;
    }
    let bound = !object::str_at(old, &["spec", "nodeName"])
        .unwrap_or("")
        .is_empty();
    let over = matches!(
        object::str_at(old, &["status", "phase"]),
        Some("Succeeded" | "Failed")
    );
    if !bound || over {
        return 0;
    }
    let own = object::at(old, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    let seconds = options.grace_seconds.or(own).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

fn plan(app: &App, resource: &Resource, old: &Object, options: &DeleteOptions) -> Plan {
    let seconds = grace(resource, old, options);
    let held = object::has_finalizers(old)
        || (resource.table == "/namespaces" && !object::list_at(old, &["spec", "finalizers"]).is_empty())
        || resource.table == DEFINITIONS;
    if object::is_deleting(old) {
        let running = object::at(old, &["metadata", "deletionGracePeriodSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let shorter = resource.table == "/pods" && options.grace_seconds.is_some_and(|_| seconds < running);
        return match (shorter, seconds, held) {
            (true, 0, false) => Plan::Remove,
            (true, ..) => Plan::Mark(Box::new(marked(app, resource, old, seconds))),
            (false, ..) if running == 0 && !held => Plan::Remove,
            (false, ..) => Plan::Nothing,
        };
    }
    if seconds == 0 && !held {
        return Plan::Remove;
    }
    Plan::Mark(Box::new(marked(app, resource, old, seconds)))
}

/// The object with its deletion begun.
fn marked(app: &App, resource: &Resource, old: &Object, seconds: i64) -> Value {
    let mut new = (**old).clone();
    let due = app.origin.now() + jiff::SignedDuration::from_secs(seconds);
    let generation = object::at(old, &["metadata", "generation"]).and_then(Value::as_i64);
    let meta = meta_mut(&mut new);
    meta.insert("deletionTimestamp".to_owned(), ids::timestamp(due).into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    if let Some(generation) = generation.filter(|_| !object::is_deleting(old)) {
        meta.insert("generation".to_owned(), (generation + 1).into());
    }
    match resource.table.as_str() {
        "/namespaces" => {
            meta.remove("deletionGracePeriodSeconds");
            object::child(&mut new, "status").insert("phase".to_owned(), json!("Terminating"));
        }
        DEFINITIONS => {
            let mut finalizers = object::list_at(old, &["metadata", "finalizers"]).to_vec();
            if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
                finalizers.push(CLEANUP.into());
            }
            meta.insert("finalizers".to_owned(), finalizers.into());
        }
        _ => {}
    }
    new
}

/// The answer to a deletion that leaves nothing behind to show.
pub(super) fn success(resource: &Resource, object: &Arc<Value>) -> Value {
    let mut details =
        json!({"name": object::name(object), "kind": resource.plural, "uid": object::uid(object)});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

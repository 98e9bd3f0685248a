//! Answer create, update and patch.

use std::sync::Arc;

use serde_json::Value;

use super::respond::{Reply, object_reply, warn};
use super::{Call, admission, prepare, update as rules};
use crate::app::{App, DEFINITIONS};
use crate::apply::{self, Writer};
use crate::controllers;
use crate::defaults;
use crate::object::{self, meta_mut};
use crate::patch::{self, PatchKind};
use crate::registry::Resource;
use crate::schema::decode;
use crate::status::{ApiError, ApiResult, Problem};
use crate::store::{Key, Object, Refused};
use crate::validation;

/// How often a write starts again because the object changed under it.
const ATTEMPTS: usize = 10;

/// `POST` to a collection.
pub(super) fn create(call: &Call<'_>) -> ApiResult<Reply> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let (mut object, warnings) = call.decode_object()?;
    rules::check_namespace(call, &object)?;
    let namespace = call.target.namespace.clone();
    if call.resource.namespaced {
        meta_mut(&mut object).insert("namespace".to_owned(), namespace.into());
    }
    let generated = object::name(&object).is_empty() && !object::meta_str(&object, "generateName").is_empty();
    let mut attempt = 0;
    let stored = loop {
        attempt += 1;
        let manager = Some(call.writer());
        match create_object(call.app, call.resource, object.clone(), manager, dry_run) {
            // A generated name that is taken is only bad luck.
            Err(error) if generated && error.reason == "AlreadyExists" && attempt < ATTEMPTS => {}
            other => break other?,
        }
    };
    let mut reply = object_reply(
        201,
        call.resource,
        &stored,
        call.form,
        call.query.get("includeObject"),
    );
    warn(&mut reply, &warnings);
    Ok(reply)
}

/// Stores a new object: server's fields, defaults, admission, validation, bookkeeping of managers, commit.
pub(crate) fn create_object(
    app: &App,
    resource: &Resource,
    mut object: Value,
    writer: Option<Writer<'_>>,
    dry_run: bool,
) -> ApiResult<Object> {
    let key = Key::of(&object);
    if resource.namespaced {
        admission::check_namespace(app, resource, &key)?;
    }
    prepare::for_create(app, resource, &mut object)?;
    defaults::apply(resource, &mut object);
    if resource.table == "/pods" {
        admission::pod(app, &mut object)?;
        defaults::apply(resource, &mut object);
    }
    if resource.table == "/services" {
        admission::service(app, &mut object)?;
        defaults::apply(resource, &mut object);
    }
    let problems = validation::on_create(resource, &object);
    if !problems.is_empty() {
        return Err(ApiError::invalid(
            &resource.group,
            &resource.kind,
            object::name(&object),
            problems,
        ));
    }
    if let Some(writer) = writer {
        apply::record_update(None, &mut object, resource.node(), writer);
    }
    let name = object::name(&object).to_owned();
    let exists = || ApiError::already_exists(&resource.group, &resource.plural, &name);
    if dry_run {
        let taken = app.store.get(&resource.table, &Key::of(&object)).is_some();
        return if taken {
            Err(exists())
        } else {
            Ok(Arc::new(object))
        };
    }
    let stored = app.store.create(&resource.table, object).map_err(|_| exists())?;
    committed(app, resource, &stored);
    Ok(stored)
}

/// What must happen right after a commit, before the answer.
fn committed(app: &App, resource: &Resource, object: &Value) {
    match resource.table.as_str() {
        DEFINITIONS => app.refresh_registry(),
        "/namespaces" => controllers::furnish_namespace(app, object),
        _ => {}
    }
}

/// `PUT` of one object.
pub(super) fn update(call: &Call<'_>) -> ApiResult<Reply> {
    let dry_run = call.query.dry_run("UpdateOptions")?;
    let (new, warnings) = call.decode_object()?;
    let (code, stored) = loop_until_stored(call, |old| match old {
        None if rules::creates_on_update(call) && call.target.subresource.is_empty() => {
            rules::check_namespace(call, &new)?;
            let mut object = new.clone();
            let meta = meta_mut(&mut object);
            meta.insert("namespace".to_owned(), call.target.namespace.as_str().into());
            if !call.resource.namespaced {
                meta.remove("namespace");
            }
            create_object(call.app, call.resource, object, Some(call.writer()), dry_run)
                .map(|stored| Some((201, stored)))
        }
        None => Err(call.not_found()),
        Some(old) => {
            rules::check_identity(call, old, &new)?;
            let conditional = object::version(&new) != 0;
            let result = store_update(
                call.app,
                call.resource,
                old,
                new.clone(),
                call.writer(),
                dry_run,
                false,
            );
            retry_unless(conditional, call, old, result).map(|stored| stored.map(|stored| (200, stored)))
        }
    })?;
    let mut reply = object_reply(
        code,
        call.resource,
        &stored,
        call.form,
        call.query.get("includeObject"),
    );
    warn(&mut reply, &warnings);
    Ok(reply)
}

/// `PATCH` of one object.
pub(super) fn patch(call: &Call<'_>) -> ApiResult<Reply> {
    let kind = PatchKind::of(call.content_type, call.resource.is_custom())?;
    let mut warnings = Vec::new();
    let (code, stored) = if kind == PatchKind::Apply {
        apply_patch(call, &mut warnings)?
    } else {
        let dry_run = call.query.dry_run("PatchOptions")?;
        loop_until_stored(call, |old| {
            let old = old.ok_or_else(|| call.not_found())?;
            let seen = super::respond::shown(call.resource, old);
            let patched = patch::patch(&seen, call.resource.node(), kind, &call.body)?;
            let mut new = patched.object;
            warnings = call.check_object(&mut new, &patched.duplicates)?;
            rules::check_identity(call, old, &new)?;
            // A patch that names a version is meant for that version only.
            let conditional = names_version(&call.body);
            let result = store_update(call.app, call.resource, old, new, call.writer(), dry_run, false);
            retry_unless(conditional, call, old, result).map(|stored| stored.map(|stored| (200, stored)))
        })?
    };
    let mut reply = object_reply(
        code,
        call.resource,
        &stored,
        call.form,
        call.query.get("includeObject"),
    );
    warn(&mut reply, &warnings);
    Ok(reply)
}

fn names_version(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("resourceVersion")
}

/// `PATCH` with `application/apply-patch+yaml`: server-side apply.
fn apply_patch(call: &Call<'_>, warnings: &mut Vec<String>) -> ApiResult<(u16, Object)> {
    let dry_run = call.query.dry_run("PatchOptions")?;
    if call.query.get("fieldManager").is_empty() {
        let problem = Problem::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            vec![problem],
        ));
    }
    let force = call.query.flag("force");
    let decoded = decode::yaml(&call.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    let mut config = decoded.value;
    if object::str_at(&config, &["kind"]).is_none() || object::str_at(&config, &["apiVersion"]).is_none() {
        return Err(ApiError::bad_request(
            "apply: apiVersion and kind must be set in the configuration",
        ));
    }
    *warnings = call.check_object(&mut config, &decoded.duplicates)?;
    loop_until_stored(call, |old| match old {
        None if !call.target.subresource.is_empty() => Err(call.not_found()),
        None => {
            let mut object = apply::apply(None, &config, call.resource.node(), call.writer(), force)?;
            if !object::uid(&object).is_empty() {
                return Err(ApiError::conflict(
                    &call.resource.group,
                    &call.resource.plural,
                    &call.target.name,
                    "uid mismatch: the provided object specified a uid, and no existing object was found",
                ));
            }
            check_name(call, &object)?;
            rules::check_namespace(call, &object)?;
            let meta = meta_mut(&mut object);
            meta.insert("name".to_owned(), call.target.name.as_str().into());
            if call.resource.namespaced {
                meta.insert("namespace".to_owned(), call.target.namespace.as_str().into());
            }
            match create_object(call.app, call.resource, object, None, dry_run) {
                Err(error) if error.reason == "AlreadyExists" => Ok(None),
                other => other.map(|stored| Some((201, stored))),
            }
        }
        Some(old) => {
            check_name(call, &config)?;
            let new = apply::apply(Some(old), &config, call.resource.node(), call.writer(), force)?;
            rules::check_identity(call, old, &config_with_version(&config, old))?;
            let result = store_update(call.app, call.resource, old, new, call.writer(), dry_run, true);
            let conditional = object::version(&config) != 0;
            retry_unless(conditional, call, old, result).map(|stored| stored.map(|stored| (200, stored)))
        }
    })
}

/// An applied configuration need not name a version; then it means the one that is there.
fn config_with_version(config: &Value, old: &Value) -> Value {
    let mut identity =
        serde_json::json!({"metadata": config.get("metadata").cloned().unwrap_or(Value::Null)});
    if object::version(&identity) == 0 {
        let version = object::meta_str(old, "resourceVersion").to_owned();
        meta_mut(&mut identity).insert("resourceVersion".to_owned(), version.into());
    }
    identity
}

fn check_name(call: &Call<'_>, object: &Value) -> ApiResult<()> {
    let name = object::name(object);
    if name.is_empty() || name == call.target.name {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({})",
        call.target.name
    )))
}

/// Runs `attempt` on the current object until it says what was stored; `Ok(None)` asks for another turn.
fn loop_until_stored(
    call: &Call<'_>,
    mut attempt: impl FnMut(Option<&Object>) -> ApiResult<Option<(u16, Object)>>,
) -> ApiResult<(u16, Object)> {
    for _ in 0..ATTEMPTS {
        let old = call.app.store.get(&call.resource.table, &call.key());
        if let Some(stored) = attempt(old.as_ref())? {
            return Ok(stored);
        }
    }
    let resource = call.resource;
    Err(ApiError::modified(
        &resource.group,
        &resource.plural,
        &call.target.name,
    ))
}

/// A conflict is the client's to solve if it named a version, else the server tries again.
fn retry_unless(
    conditional: bool,
    call: &Call<'_>,
    old: &Value,
    result: Result<Object, StoreFailure>,
) -> ApiResult<Option<Object>> {
    match result {
        Ok(stored) => Ok(Some(stored)),
        Err(StoreFailure::Changed) if conditional => Err(call.modified(old)),
        Err(StoreFailure::Changed) => Ok(None),
        Err(StoreFailure::Error(error)) => Err(error),
    }
}

impl Call<'_> {
    /// Who writes, for `managedFields`.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            manager: self.field_manager(),
            api_version: &self.target.api_version,
            subresource: &self.target.subresource,
            at: self.app.origin.now(),
        }
    }
}

/// Why [`store_update`] did not store.
#[derive(Debug)]
pub(crate) enum StoreFailure {
    /// The object is no longer what `old` says.
    Changed,
    Error(ApiError),
}

impl From<ApiError> for StoreFailure {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// Stores a successor of `old`: server's fields, defaults, validation, bookkeeping of managers, commit. What changes
/// nothing is not stored. An object whose deletion has begun and that nothing holds any more is removed.
pub(crate) fn store_update(
    app: &App,
    resource: &Resource,
    old: &Object,
    mut new: Value,
    writer: Writer<'_>,
    dry_run: bool,
    applied: bool,
) -> Result<Object, StoreFailure> {
    prepare::for_update(app, resource, old, &mut new, writer.subresource);
    if resource.table == "/pods" && writer.subresource.is_empty() {
        admission::tolerations(&mut new);
    }
    defaults::apply(resource, &mut new);
    let problems = validation::on_update(resource, old, &new, writer.subresource);
    if !problems.is_empty() {
        return Err(ApiError::invalid(&resource.group, &resource.kind, object::name(old), problems).into());
    }
    prepare::count_generation(resource, old, &mut new);
    if !applied {
        apply::record_update(Some(old), &mut new, resource.node(), writer);
    }
    let version = object::meta_str(old, "resourceVersion").to_owned();
    meta_mut(&mut new).insert("resourceVersion".to_owned(), version.into());
    if new == **old {
        return Ok(Arc::clone(old));
    }
    if dry_run {
        return Ok(Arc::new(new));
    }
    let stored = app
        .store
        .replace(&resource.table, object::version(old), new)
        .map_err(|refused| match refused {
            Refused::Changed | Refused::Missing | Refused::Exists => StoreFailure::Changed,
        })?;
    let stored = finish_deletion(app, resource, stored);
    committed(app, resource, &stored);
    Ok(stored)
}

/// Removes an object that only waited for this write to be gone.
fn finish_deletion(app: &App, resource: &Resource, stored: Object) -> Object {
    let grace = object::at(&stored, &["metadata", "deletionGracePeriodSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let held = object::has_finalizers(&stored)
        || (resource.table == "/namespaces" && !object::list_at(&stored, &["spec", "finalizers"]).is_empty());
    if !object::is_deleting(&stored) || grace > 0 || held {
        return stored;
    }
    let version = object::version(&stored);
    // Refused means that somebody else removed or changed it in between; then it is theirs to finish.
    app.store
        .remove(&resource.table, &Key::of(&stored), version)
        .unwrap_or(stored)
}

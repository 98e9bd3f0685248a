//! Answer delete and deletecollection.

use std::sync::Arc;

use serde_json::Value;

use super::Call;
use super::delete::{DeleteOptions, Deleted, delete_object, success};
use super::read::select;
use super::respond::{Reply, json_reply, list_reply, object_reply};
use crate::object;
use crate::status::{ApiError, ApiResult};
use crate::store::Key;

impl Call<'_> {
    /// The options of a deletion, from the body or, where it is empty, from the query.
    fn delete_options(&self) -> ApiResult<DeleteOptions> {
        let from_query = self.query.number::<i64>("gracePeriodSeconds")?;
        let dry_run = self.query.dry_run("DeleteOptions")?;
        if self.body.is_empty() {
            return Ok(DeleteOptions {
                grace_seconds: from_query,
                dry_run,
                ..DeleteOptions::default()
            });
        }
        let decoded = self.decode_as("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")?;
        let value: Value = decoded
            .map_err(|error| ApiError::bad_request(format!("invalid DeleteOptions: {error}")))?
            .value;
        let mut options = DeleteOptions::read(&value);
        options.grace_seconds = options.grace_seconds.or(from_query);
        options.dry_run |= dry_run;
        Ok(options)
    }
}

/// `DELETE` of one object.
pub(super) fn delete(call: &Call<'_>) -> ApiResult<Reply> {
    let options = call.delete_options()?;
    let include = call.query.get("includeObject");
    match delete_object(call.app, call.resource, &call.key(), &options)? {
        Deleted::Now(mut object) if call.resource.returns_deleted => {
            if object::is_deleting(&object) && call.resource.table == "/pods" {
                // Whatever grace was left, it is over now.
                let meta = object::meta_mut(Arc::make_mut(&mut object));
                meta.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
            }
            Ok(object_reply(200, call.resource, &object, call.form, include))
        }
        Deleted::Now(object) => Ok(json_reply(200, &success(call.resource, &object))),
        Deleted::Begun(object) => Ok(object_reply(200, call.resource, &object, call.form, include)),
    }
}

/// `DELETE` of a collection.
pub(super) fn delete_all(call: &Call<'_>) -> ApiResult<Reply> {
    let options = call.delete_options()?;
    let (objects, meta) = select(call)?;
    let mut deleted = Vec::new();
    for object in &objects {
        match delete_object(call.app, call.resource, &Key::of(object), &options) {
            Ok(Deleted::Now(object) | Deleted::Begun(object)) => deleted.push(object),
            // Somebody else deleted it in the meantime, which is what was asked for.
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(list_reply(
        call.resource,
        &deleted,
        &meta,
        call.form,
        call.query.get("includeObject"),
    ))
}

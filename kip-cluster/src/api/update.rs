//! The rules an update must keep before it is stored.

use serde_json::Value;

use super::Call;
use crate::object;
use crate::status::{ApiError, ApiResult, Problem};

/// Name, namespace, UID and version in the object must be those of the path and of what is stored.
pub(super) fn check_identity(call: &Call<'_>, old: &Value, new: &Value) -> ApiResult<()> {
    let resource = call.resource;
    let name = object::name(new);
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    check_namespace(call, new)?;
    let (uid, stored) = (object::uid(new), object::uid(old));
    if !uid.is_empty() && uid != stored {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(ApiError::conflict(
            &resource.group,
            &resource.plural,
            &call.target.name,
            &why,
        ));
    }
    let version = object::meta_str(new, "resourceVersion");
    if version.is_empty() || version == "0" {
        if needs_version(call) {
            let value = if version.is_empty() {
                Value::from(0)
            } else {
                version.into()
            };
            let problem = Problem::invalid(
                "metadata.resourceVersion",
                &value,
                "must be specified for an update",
            );
            return Err(ApiError::invalid(
                &resource.group,
                &resource.plural,
                &call.target.name,
                vec![problem],
            ));
        }
        return Ok(());
    }
    if version != object::meta_str(old, "resourceVersion") {
        return Err(call.modified(old));
    }
    Ok(())
}

pub(super) fn check_namespace(call: &Call<'_>, new: &Value) -> ApiResult<()> {
    let namespace = object::namespace(new);
    if call.resource.namespaced && !namespace.is_empty() && namespace != call.target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Kinds that may not be overwritten blindly.
fn needs_version(call: &Call<'_>) -> bool {
    call.resource.is_custom()
        || matches!(
            call.resource.table.as_str(),
            "coordination.k8s.io/leases"
                | "apiextensions.k8s.io/customresourcedefinitions"
                | "node.k8s.io/runtimeclasses"
        )
}

/// Kinds that `PUT` creates when they are not there.
pub(super) fn creates_on_update(call: &Call<'_>) -> bool {
    call.resource.group == "rbac.authorization.k8s.io"
        || matches!(
            call.resource.table.as_str(),
            "coordination.k8s.io/leases" | "/endpoints" | "/events"
        )
}

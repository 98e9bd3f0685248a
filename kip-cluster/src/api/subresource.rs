//! Answer what is created under an object: bindings, evictions, service-account tokens.

use serde_json::{Value, json};

use super::Call;
use super::delete::{DeleteOptions, delete_object};
use super::respond::{Reply, json_reply};
use crate::apply::Writer;
use crate::auth::{Bound, Claims};
use crate::ids;
use crate::object::{self, child};
use crate::status::{ApiError, ApiResult, Problem};
use crate::store::{Key, Object};

/// `POST` to a subresource.
pub(super) fn create(call: &Call<'_>) -> ApiResult<Reply> {
    let body = call.decode_any()?;
    match call.target.subresource.as_str() {
        "binding" => {
            let (key, name) = (call.key(), object::name(&body));
            if !name.is_empty() && name != key.name {
                return Err(ApiError::bad_request(
                    "name in URL does not match name in Binding object",
                ));
            }
            bind(call, &key, &body)
        }
        "eviction" => evict(call, &body),
        "token" => token(call, &body),
        _ => Err(ApiError::method_not_allowed()),
    }
}

impl Call<'_> {
    /// The body of a request to create under an object, unchecked.
    pub(super) fn decode_any(&self) -> ApiResult<Value> {
        let definition = match self.target.subresource.as_str() {
            "token" => "io.k8s.api.authentication.v1.TokenRequest",
            "eviction" => "io.k8s.api.policy.v1.Eviction",
            _ => "io.k8s.api.core.v1.Binding",
        };
        let decoded = self.decode_as(definition)?;
        decoded
            .map(|decoded| decoded.value)
            .map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))
    }
}

fn success() -> Reply {
    json_reply(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// Puts a pod on a node.
pub(super) fn bind(call: &Call<'_>, key: &Key, binding: &Value) -> ApiResult<Reply> {
    let node = object::str_at(binding, &["target", "name"]).unwrap_or("");
    if node.is_empty() {
        let problem = Problem::required("target.name", "");
        return Err(ApiError::invalid("", "Binding", &key.name, vec![problem]));
    }
    bind_pod(call.app, key, node, object::uid(binding))?;
    Ok(success())
}

/// Puts a pod on a node, if it is on none yet and not being deleted.
pub(crate) fn bind_pod(app: &crate::app::App, key: &Key, node: &str, uid: &str) -> ApiResult<Object> {
    let conflict = |why: &str| ApiError::conflict("", "pods/binding", &key.name, why);
    loop {
        let pod = app
            .store
            .get("/pods", key)
            .ok_or_else(|| ApiError::not_found("", "pods", &key.name))?;
        if !uid.is_empty() && uid != object::uid(&pod) {
            return Err(conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(&pod)
            )));
        }
        if object::is_deleting(&pod) {
            return Err(conflict(&format!(
                "pod {} is being deleted, cannot be assigned to a host",
                key.name
            )));
        }
        if let Some(taken) = object::str_at(&pod, &["spec", "nodeName"]).filter(|node| !node.is_empty()) {
            return Err(conflict(&format!(
                "pod {} is already assigned to node \"{taken}\"",
                key.name
            )));
        }
        let mut new = (*pod).clone();
        child(&mut new, "spec").insert("nodeName".to_owned(), node.into());
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        set_condition(&mut new, scheduled, app.origin.now());
        let writer = Writer {
            manager: "kube-scheduler",
            api_version: "v1",
            subresource: "binding",
            at: app.origin.now(),
        };
        if let Some(resource) = app.registry().find("", "v1", "pods") {
            crate::apply::record_update(Some(&pod), &mut new, resource.node(), writer);
        }
        // Refused: it changed in between; look again.
        if let Ok(stored) = app.store.replace("/pods", object::version(&pod), new) {
            return Ok(stored);
        }
    }
}

/// Sets a condition by its type; the transition time changes with the status only.
pub(crate) fn set_condition(object: &mut Value, mut condition: Value, now: jiff::Timestamp) {
    let kind = condition.get("type").cloned().unwrap_or(Value::Null);
    let status = child(object, "status");
    let Value::Array(list) = status.entry("conditions").or_insert_with(|| json!([])) else {
        return;
    };
    let old = list.iter().position(|other| other.get("type") == Some(&kind));
    let since = old
        .map(|index| &list[index])
        .filter(|old| old.get("status") == condition.get("status"))
        .and_then(|old| old.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| ids::timestamp(now).into());
    condition["lastTransitionTime"] = since;
    condition["lastProbeTime"] = Value::Null;
    match old {
        Some(index) => list[index] = condition,
        None => list.push(condition),
    }
}

/// Deletes a pod on somebody's behalf. Disruption budgets are not served, so nothing stands against it.
fn evict(call: &Call<'_>, eviction: &Value) -> ApiResult<Reply> {
    let options = eviction
        .get("deleteOptions")
        .map(DeleteOptions::read)
        .unwrap_or_default();
    let pod = call.current()?;
    let over = matches!(
        object::str_at(&pod, &["status", "phase"]),
        Some("Succeeded" | "Failed")
    );
    if !over && !object::is_deleting(&pod) && !options.dry_run {
        let mut new = (*pod).clone();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                               "message": "Eviction API: evicting"});
        set_condition(&mut new, condition, call.app.origin.now());
        // Refused means that the pod changed; it is deleted all the same, only without the note why.
        let _ = call.app.store.replace("/pods", object::version(&pod), new);
    }
    delete_object(call.app, call.resource, &call.key(), &options)?;
    Ok(success())
}

const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

/// Issues a token for a service account.
fn token(call: &Call<'_>, request: &Value) -> ApiResult<Reply> {
    let account = call.current()?;
    let seconds = object::at(request, &["spec", "expirationSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(DEFAULT_SECONDS);
    if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
        let why = if seconds < MIN_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let problem = Problem::invalid("spec.expirationSeconds", &seconds.into(), why);
        return Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            vec![problem],
        ));
    }
    let mut audiences: Vec<String> = object::list_at(request, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(call.app.auth.signer.issuer().to_owned());
    }
    let (bound, node) = bound_object(call, &account, request)?;
    let now = call.app.origin.now();
    let expires = now.as_second() + seconds;
    let claims = Claims {
        namespace: call.target.namespace.clone(),
        account: call.target.name.clone(),
        account_uid: object::uid(&account).to_owned(),
        audiences: audiences.clone(),
        bound,
        node,
        issued: now.as_second(),
        expires,
        id: call
            .app
            .origin
            .uid(&format!("token/{}/{}", call.target.namespace, call.target.name)),
    };
    let token = call.app.auth.signer.sign(&claims).map_err(ApiError::internal)?;
    let expiration = jiff::Timestamp::from_second(expires).map_err(ApiError::internal)?;
    let mut reply = request.clone();
    let map = object::as_map(&mut reply);
    map.insert("kind".to_owned(), "TokenRequest".into());
    map.insert("apiVersion".to_owned(), "authentication.k8s.io/v1".into());
    map.insert(
        "metadata".to_owned(),
        json!({"name": call.target.name, "namespace": call.target.namespace, "creationTimestamp": ids::timestamp(now)}),
    );
    let spec = child(&mut reply, "spec");
    spec.insert("audiences".to_owned(), json!(audiences));
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    spec.entry("boundObjectRef").or_insert(Value::Null);
    reply["status"] = json!({"token": token, "expirationTimestamp": ids::timestamp(expiration)});
    Ok(json_reply(201, &reply))
}

type BoundTo = (Option<Bound>, Option<(String, String)>);

/// Looks up what the token shall die with.
fn bound_object(call: &Call<'_>, account: &Value, request: &Value) -> ApiResult<BoundTo> {
    let Some(reference) =
        object::at(request, &["spec", "boundObjectRef"]).filter(|reference| !reference.is_null())
    else {
        return Ok((None, None));
    };
    let text = |field: &str| object::str_at(reference, &[field]).unwrap_or("");
    let (name, uid) = (text("name"), text("uid"));
    let Some(kind) = Bound::kind_of(text("kind")) else {
        return Err(ApiError::bad_request(format!(
            "cannot bind token to object of kind {}",
            text("kind")
        )));
    };
    let (table, plural, namespace) = match kind {
        "pod" => ("/pods", "pods", call.target.namespace.as_str()),
        "secret" => ("/secrets", "secrets", call.target.namespace.as_str()),
        _ => ("/nodes", "nodes", ""),
    };
    let Some(object) = call.app.store.get(table, &Key::new(namespace, name)) else {
        return Err(ApiError::not_found("", plural, name));
    };
    if kind == "pod"
        && object::str_at(&object, &["spec", "serviceAccountName"]) != Some(object::name(account))
    {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
            object::name(account)
        )));
    }
    let actual = object::uid(&object);
    if !uid.is_empty() && uid != actual {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    let node = object::str_at(&object, &["spec", "nodeName"])
        .filter(|_| kind == "pod")
        .and_then(|name| {
            let node = call.app.store.get("/nodes", &Key::new("", name))?;
            Some((name.to_owned(), object::uid(&node).to_owned()))
        });
    Ok((
        Some(Bound {
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: actual.to_owned(),
        }),
        node,
    ))
}

//! Refuse objects that are not valid, naming every problem at once.

mod crd;
mod names;
mod pod;

use serde_json::Value;

use crate::object;
use crate::registry::{Resource, Source};
use crate::schema::validate::validate;
use crate::status::Problem;

/// The problems of an object that is to be created.
pub(crate) fn on_create(resource: &Resource, object: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    names::metadata(resource, object, &mut problems);
    always(resource, object, &mut problems);
    rules(resource, object, None, &mut problems);
    problems
}

/// The problems of an object that is to replace `old`.
pub(crate) fn on_update(resource: &Resource, old: &Value, new: &Value, subresource: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    names::metadata(resource, new, &mut problems);
    late_finalizers(old, new, &mut problems);
    if !object::is_deleting(old) || resource.table != "/pods" {
        always(resource, new, &mut problems);
    }
    match resource.table.as_str() {
        "/pods" if subresource.is_empty() => pod::immutable(old, new, &mut problems),
        "/configmaps" | "/secrets" => immutable_data(old, new, &mut problems),
        "apiextensions.k8s.io/customresourcedefinitions" => crd::immutable(old, new, &mut problems),
        _ => {}
    }
    rules(resource, new, Some(old), &mut problems);
    problems
}

/// The rules of a custom object's definition, which count on fields of the right type.
fn rules(resource: &Resource, object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    if let (Source::Custom(schema), true) = (&resource.source, problems.is_empty()) {
        schema.rules.check(object, old, problems);
    }
}

/// Once it is being deleted, an object can only lose finalizers.
fn late_finalizers(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    if !object::is_deleting(old) {
        return;
    }
    let held = object::list_at(old, &["metadata", "finalizers"]);
    let added: Vec<&str> = object::list_at(new, &["metadata", "finalizers"])
        .iter()
        .filter(|finalizer| !held.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    if !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        );
        problems.push(Problem::forbidden("metadata.finalizers", &why));
    }
}

fn always(resource: &Resource, object: &Value, problems: &mut Vec<Problem>) {
    match (&resource.source, resource.table.as_str()) {
        (Source::Custom(schema), _) => validate(object, &schema.raw, "", problems),
        (_, "/pods") => pod::validate(object, problems),
        (_, "/configmaps") => configmap_keys(object, problems),
        (_, "/secrets") => secret_data(object, problems),
        (_, "/services") => service(object, problems),
        (_, "apiextensions.k8s.io/customresourcedefinitions") => crd::validate(object, problems),
        (_, "/events") => event(object, problems),
        (_, "coordination.k8s.io/leases") => lease(object, problems),
        _ => {}
    }
}

fn immutable_data(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    if old.get("immutable").and_then(Value::as_bool) == Some(true) {
        for field in ["immutable", "data", "binaryData"] {
            if old.get(field) != new.get(field) {
                let why = "field is immutable when `immutable` is set";
                problems.push(Problem::forbidden(field, why));
            }
        }
    }
    if old.get("type") != new.get("type")
        && let Some(kind) = new.get("type")
    {
        problems.push(Problem::invalid("type", kind, "field is immutable"));
    }
}

fn configmap_keys(object: &Value, problems: &mut Vec<Problem>) {
    for field in ["data", "binaryData"] {
        for key in object
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            names::data_key(&format!("{field}[{key}]"), key, problems);
        }
    }
}

fn secret_data(object: &Value, problems: &mut Vec<Problem>) {
    for key in object
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        names::data_key(&format!("data[{key}]"), key, problems);
    }
    let needed: &[&str] = match object.get("type").and_then(Value::as_str) {
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed
        .iter()
        .filter(|key| object::at(object, &["data", key]).is_none())
    {
        problems.push(Problem::required(format!("data[{key}]"), ""));
    }
}

fn service(object: &Value, problems: &mut Vec<Problem>) {
    let text = |field: &str| object::str_at(object, &["spec", field]).unwrap_or("");
    let ports = object::list_at(object, &["spec", "ports"]);
    if ports.is_empty() && text("clusterIP") != "None" && text("type") != "ExternalName" {
        problems.push(Problem::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        names::port(&format!("spec.ports[{index}].port"), port.get("port"), problems);
        if ports.len() > 1 && object::str_at(port, &["name"]).unwrap_or("").is_empty() {
            problems.push(Problem::required(format!("spec.ports[{index}].name"), ""));
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if let Some(kind) = object::at(object, &["spec", "type"]).filter(|kind| !kinds.iter().any(|k| *kind == k))
    {
        problems.push(Problem::unsupported("spec.type", kind, &kinds));
    }
}

fn event(object: &Value, problems: &mut Vec<Problem>) {
    let involved = object::str_at(object, &["involvedObject", "namespace"]).unwrap_or("");
    let namespace = object::namespace(object);
    let fits = if involved.is_empty() {
        namespace == "default" || namespace == "kube-system"
    } else {
        involved == namespace
    };
    if !fits {
        let value = involved.into();
        problems.push(Problem::invalid(
            "involvedObject.namespace",
            &value,
            "does not match event.namespace",
        ));
    }
}

fn lease(object: &Value, problems: &mut Vec<Problem>) {
    if let Some(seconds) = object::at(object, &["spec", "leaseDurationSeconds"])
        && seconds.as_i64().is_some_and(|seconds| seconds <= 0)
    {
        problems.push(Problem::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
}

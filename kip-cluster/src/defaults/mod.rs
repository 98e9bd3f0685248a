//! Fill in what users leave out, as kube-apiserver does before it stores an object.

mod pod;

use serde_json::{Value, json};

use crate::object::{self, as_map, child, set_default};
use crate::registry::{Resource, Source};
use crate::schema::custom;

pub(crate) use pod::requests;

/// Sets the defaults of an object of any served kind. Doing it twice changes nothing.
pub(crate) fn apply(resource: &Resource, object: &mut Value) {
    if let Source::Custom(schema) = &resource.source {
        custom::apply_defaults(object, &schema.raw);
        return;
    }
    match resource.table.as_str() {
        "/pods" => pod::apply(object),
        "/namespaces" => namespace(object),
        "/nodes" => node(object),
        "/secrets" => {
            set_default(as_map(object), "type", "Opaque");
            fold_string_data(object);
        }
        "/services" => service(object),
        "/events" => event(object),
        "apiextensions.k8s.io/customresourcedefinitions" => definition(object),
        "scheduling.k8s.io/priorityclasses" => {
            set_default(as_map(object), "preemptionPolicy", "PreemptLowerPriority");
        }
        "rbac.authorization.k8s.io/rolebindings" | "rbac.authorization.k8s.io/clusterrolebindings" => {
            role_binding(object);
        }
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    let meta = object::meta_mut(object);
    as_map(meta.entry("labels").or_insert(Value::Null))
        .insert("kubernetes.io/metadata.name".to_owned(), name.into());
    // An ending namespace loses this finalizer once it is empty, and must not get it back.
    if !object::is_deleting(object) {
        set_default(child(object, "spec"), "finalizers", json!(["kubernetes"]));
    }
    set_default(child(object, "status"), "phase", "Active");
}

/// What a node says of itself; always there, if only empty.
const NODE_INFO: [&str; 10] = [
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
];

fn node(object: &mut Value) {
    child(object, "spec");
    let status = child(object, "status");
    let endpoint = as_map(status.entry("daemonEndpoints").or_insert_with(|| json!({})));
    set_default(endpoint, "kubeletEndpoint", json!({"Port": 0}));
    let info = as_map(status.entry("nodeInfo").or_insert_with(|| json!({})));
    for field in NODE_INFO {
        set_default(info, field, "");
    }
    if let Some(capacity) = status.get("capacity").cloned() {
        set_default(status, "allocatable", capacity);
    }
}

/// `stringData` is write-only: it ends up in `data`, in base64.
fn fold_string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(strings)) = as_map(object).remove("stringData") else {
        return;
    };
    let data = child(object, "data");
    for (name, value) in strings {
        let text = value.as_str().unwrap_or("");
        data.insert(
            name,
            base64::engine::general_purpose::STANDARD.encode(text).into(),
        );
    }
}

fn service(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "type", "ClusterIP");
    set_default(spec, "sessionAffinity", "None");
    if spec.get("type").and_then(Value::as_str) != Some("ExternalName") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
        set_default(spec, "ipFamilies", json!(["IPv4"]));
        set_default(spec, "ipFamilyPolicy", "SingleStack");
        if let Some(address) = spec.get("clusterIP").cloned() {
            set_default(spec, "clusterIPs", json!([address]));
        }
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let port = as_map(port);
        set_default(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            set_default(port, "targetPort", number);
        }
    }
    set_default(child(object, "status"), "loadBalancer", json!({}));
}

fn event(object: &mut Value) {
    let event = as_map(object);
    for (field, value) in [("reportingComponent", ""), ("reportingInstance", "")] {
        set_default(event, field, value);
    }
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        event.entry(field).or_insert(Value::Null);
    }
    set_default(event, "source", json!({}));
}

fn definition(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "conversion", json!({"strategy": "None"}));
    let names = as_map(spec.entry("names").or_insert(Value::Null));
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    set_default(names, "singular", kind.to_lowercase());
    set_default(names, "listKind", format!("{kind}List"));
}

fn role_binding(object: &mut Value) {
    for subject in object
        .get_mut("subjects")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let subject = as_map(subject);
        let service_account = subject.get("kind").and_then(Value::as_str) == Some("ServiceAccount");
        set_default(
            subject,
            "apiGroup",
            if service_account {
                ""
            } else {
                "rbac.authorization.k8s.io"
            },
        );
        if service_account {
            subject.remove("apiGroup");
        }
    }
    set_default(child(object, "roleRef"), "apiGroup", "rbac.authorization.k8s.io");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    /// Broken, `stringData` of a Secret is lost or stored in the clear.
    #[test]
    fn string_data_becomes_data() {
        let registry = Registry::builtin();
        let mut secret = json!({"stringData": {"k": "v"}, "data": {"a": "Yg=="}});
        apply(registry.find("", "v1", "secrets").unwrap(), &mut secret);
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"a": "Yg==", "k": "dg=="}})
        );
    }

    /// Broken, a second write of the same object looks like a change.
    #[test]
    fn defaulting_twice_changes_nothing() {
        let registry = Registry::builtin();
        for (plural, mut object) in [
            (
                "pods",
                json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}}),
            ),
            (
                "services",
                json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
            ),
            ("namespaces", json!({"metadata": {"name": "n"}})),
        ] {
            let resource = registry.find("", "v1", plural).unwrap();
            apply(resource, &mut object);
            let once = object.clone();
            apply(resource, &mut object);
            assert_eq!(once, object);
        }
    }
}

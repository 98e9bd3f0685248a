//! What kube-apiserver's admission does to new objects: namespaces must live, pods get an account, tolerations and a
//! priority.

use serde_json::{Map, Value, json};

use crate::app::App;
use crate::ids;
use crate::object::{self, as_map, child, set_default};
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};
use crate::store::Key;

/// Refuses to create in a namespace that is not there or is going away.
pub(super) fn check_namespace(app: &App, resource: &Resource, key: &Key) -> ApiResult<()> {
    let namespace = app
        .store
        .get("/namespaces", &Key::new("", &*key.namespace))
        .ok_or_else(|| ApiError::not_found("", "namespaces", &key.namespace))?;
    if object::is_deleting(&namespace) {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            key.namespace
        );
        let message = format!("namespace {} is being terminated", key.namespace);
        let error = ApiError::forbidden(&resource.group, &resource.plural, &key.name, &why);
        return Err(error.with_cause("NamespaceTerminating", &message, "metadata.namespace"));
    }
    Ok(())
}

/// Completes a new pod.
pub(super) fn pod(app: &App, pod: &mut Value) -> ApiResult<()> {
    service_account(app, pod)?;
    priority(app, pod)?;
    runtime_class(app, pod)?;
    tolerations(pod);
    Ok(())
}

fn rejected(pod: &Value, why: &str) -> ApiError {
    ApiError::forbidden("", "pods", object::name(pod), why)
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn service_account(app: &App, pod: &mut Value) -> ApiResult<()> {
    set_default(child(pod, "spec"), "serviceAccountName", "default");
    let name = object::str_at(pod, &["spec", "serviceAccountName"])
        .unwrap_or("default")
        .to_owned();
    let namespace = object::namespace(pod).to_owned();
    let pod_name = object::name(pod).to_owned();
    let Some(account) = app.store.get("/serviceaccounts", &Key::new(&*namespace, &*name)) else {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        );
        return Err(rejected(pod, &why));
    };
    let wanted = object::at(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let secrets = account
        .get("imagePullSecrets")
        .cloned()
        .unwrap_or_else(|| json!([]));
    let spec = child(pod, "spec");
    spec.insert("serviceAccount".to_owned(), name.into());
    if secrets.as_array().is_some_and(|secrets| !secrets.is_empty()) {
        set_default(spec, "imagePullSecrets", secrets);
    }
    if wanted {
        let subject = format!("token-volume/{namespace}/{pod_name}");
        mount_token(app, &subject, spec);
    }
    Ok(())
}

/// Gives every container that has nothing there the token of the pod's account.
fn mount_token(app: &App, subject: &str, spec: &mut Map<String, Value>) {
    let volume = format!("kube-api-access-{}", ids::name_suffix(&*app.origin, subject));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let taken = object::list_at(container, &["volumeMounts"])
                .iter()
                .any(|mount| object::str_at(mount, &["mountPath"]) == Some(TOKEN_PATH));
            let mounts = as_map(container)
                .entry("volumeMounts")
                .or_insert_with(|| json!([]));
            if let (false, Value::Array(mounts)) = (taken, mounts) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                used = true;
            }
        }
    }
    if !used {
        return;
    }
    let projected = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    if let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([])) {
        volumes.push(projected);
    }
}

fn priority(app: &App, pod: &mut Value) -> ApiResult<()> {
    let name = object::str_at(pod, &["spec", "priorityClassName"])
        .unwrap_or("")
        .to_owned();
    let (value, policy) = match name.as_str() {
        "" => (0, None),
        "system-cluster-critical" => (2_000_000_000, None),
        "system-node-critical" => (2_000_001_000, None),
        name => {
            let class = app
                .store
                .get("scheduling.k8s.io/priorityclasses", &Key::new("", name))
                .ok_or_else(|| rejected(pod, &format!("no PriorityClass with name {name} was found")))?;
            let value = class.get("value").and_then(Value::as_i64).unwrap_or(0);
            (value, class.get("preemptionPolicy").cloned())
        }
    };
    let spec = child(pod, "spec");
    spec.insert("priority".to_owned(), value.into());
    set_default(
        spec,
        "preemptionPolicy",
        policy.unwrap_or_else(|| "PreemptLowerPriority".into()),
    );
    Ok(())
}

fn runtime_class(app: &App, pod: &mut Value) -> ApiResult<()> {
    let Some(name) = object::str_at(pod, &["spec", "runtimeClassName"]).map(str::to_owned) else {
        return Ok(());
    };
    let Some(class) = app.store.get("node.k8s.io/runtimeclasses", &Key::new("", &*name)) else {
        return Err(rejected(
            pod,
            &format!("pod rejected: RuntimeClass \"{name}\" not found"),
        ));
    };
    if let Some(overhead) = object::at(&class, &["overhead", "podFixed"]) {
        set_default(child(pod, "spec"), "overhead", overhead.clone());
    }
    if let Some(Value::Object(selector)) = object::at(&class, &["scheduling", "nodeSelector"]) {
        let own = as_map(
            child(pod, "spec")
                .entry("nodeSelector")
                .or_insert_with(|| json!({})),
        );
        selector
            .iter()
            .for_each(|(key, value)| set_default(own, key, value.clone()));
    }
    Ok(())
}

/// Gives a new service an address of 10.96.0.0/16, as kube-apiserver does. Nothing routes to it: that is the work of
/// kube-proxy, which is not here.
pub(super) fn service(app: &App, service: &mut Value) -> ApiResult<()> {
    let spec = child(service, "spec");
    let external = spec.get("type").is_some_and(|kind| kind == "ExternalName");
    if external || spec.get("clusterIP").is_some_and(|address| address != "") {
        return Ok(());
    }
    let (_, services) = app.store.list("/services", None);
    let used: std::collections::BTreeSet<&str> = services
        .iter()
        .filter_map(|service| object::str_at(service, &["spec", "clusterIP"]))
        .collect();
    let free = (1..=u16::MAX - 1)
        .map(|number| format!("10.96.{}.{}", number >> 8, number & 0xff))
        .find(|address| !used.contains(address.as_str()))
        .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?;
    spec.insert("clusterIP".to_owned(), free.into());
    Ok(())
}

/// A pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise.
pub(super) fn tolerations(pod: &mut Value) {
    let spec = child(pod, "spec");
    let Value::Array(list) = spec.entry("tolerations").or_insert_with(|| json!([])) else {
        return;
    };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = list.iter().any(|toleration| {
            let text = |field: &str| object::str_at(toleration, &[field]).unwrap_or("");
            matches!(text("effect"), "" | "NoExecute") && (text("key") == key || text("key").is_empty())
        });
        if !covered {
            list.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

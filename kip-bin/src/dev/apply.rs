//! Applies manifests, and waits for their pods.

use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::discovery::{Scope, pinned_kind};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use serde_json::Value;

/// A pod that was applied.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    namespace: String,
    name: String,
}

/// Applies the objects in their order, as `kubectl apply --server-side` does; answers which pods were among them.
///
/// # Errors
/// Naming the object that was refused and why.
pub(super) async fn apply(client: &Client, objects: &[Value]) -> anyhow::Result<Vec<Applied>> {
    let mut pods = Vec::new();
    for object in objects {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let shown = format!("{kind} {name}");
        if name.is_empty() {
            bail!("{kind}: metadata.name is missing");
        }
        let (group, version) = text("/apiVersion")
            .rsplit_once('/')
            .unwrap_or(("", text("/apiVersion")));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = pinned_kind(client, &gvk)
            .await
            .with_context(|| format!("{shown}: the API does not serve {}", text("/apiVersion")))?;
        let namespace = match text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(client.clone(), &resource),
        };
        let mut params = PatchParams::apply("kip-dev").force();
        params.field_validation = Some(kube::api::ValidationDirective::Strict);
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("{shown} was refused"))?;
        if kind == "Pod" {
            pods.push(Applied {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
    }
    Ok(pods)
}

/// Waits until every pod is where it stays: it runs, or has ended if its restart policy is `Never`, or is told that nothing fits it.
/// Answers whether all of them run or ended well.
///
/// # Errors
/// When the pods cannot be watched.
pub(super) async fn settled(client: &Client, pods: &[Applied]) -> anyhow::Result<bool> {
    let waits = pods.iter().map(|pod| async move {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
        let found = await_condition(api, &pod.name, is_settled())
            .await
            .with_context(|| format!("cannot watch the pod {}/{}", pod.namespace, pod.name))?;
        anyhow::Ok(found.is_some_and(|pod| matches!(phase(&pod), "Running" | "Succeeded")))
    });
    Ok(try_join_all(waits).await?.into_iter().all(|well| well))
}

fn is_settled() -> impl Condition<Pod> {
    |pod: Option<&Pod>| {
        pod.is_none_or(|pod| match phase(pod) {
            "Succeeded" | "Failed" => true,
            "Running" => !ends_by_itself(pod),
            _ => fits_nothing(pod),
        })
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn ends_by_itself(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    policy == Some("Never")
}

fn fits_nothing(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let conditions = status.conditions.iter().flatten();
    conditions
        .filter_map(|condition| condition.reason.as_deref())
        .any(is_no_fit)
        || status.reason.as_deref().is_some_and(is_no_fit)
}

fn is_no_fit(reason: &str) -> bool {
    matches!(reason, "NoFit" | "Unschedulable")
}

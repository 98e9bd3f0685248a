//! For the pods the cases run: small, on the virtual node, from the one image every cell has.

use serde_json::{Value, json};

use crate::setup::image;

/// A pod with one container that runs a shell script once.
pub(super) fn script(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec(script),
    })
}

/// The spec of [`script`], for a controller's template.
pub(super) fn spec(script: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 3,
        "nodeSelector": {"type": "virtual-kubelet"},
        "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
        "containers": [container("main", script)],
    })
}

/// One container that runs a shell script.
pub(super) fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name,
        "image": image::NAME,
        "command": ["sh", "-c", script],
        "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
    })
}

/// Stays until told to end, and ends at once then.
pub(super) const STAY: &str =
    "trap 'echo told to end; exit 0' TERM; echo started; while :; do sleep 0.1; done";

//! The annotations of pods.

use k8s_openapi::api::core::v1::Pod;
use kip_core::kubelet::{PodsConfig, demand, warnings};
use serde_json::json;

use super::{Found, assert_same, check, rows};

/// Every annotation of the old Kip with a value as it was written then.
const ANNOTATIONS: [(&str, &str); 12] = [
    ("pod.elotl.co/instance-type", "c5.large"),
    ("pod.elotl.co/launch-type", "spot"),
    ("pod.elotl.co/private-ip-only", "true"),
    ("pod.elotl.co/security-groups", "sg-1, sg-2"),
    (
        "pod.elotl.co/instance-profile",
        "arn:aws:iam::123456789012:instance-profile/app",
    ),
    ("pod.elotl.co/healthcheck-healthy-timeout", "120"),
    ("pod.elotl.co/cloud-route", "10.1.0.0/16 10.2.0.0/16"),
    ("pod.elotl.co/volume-size", "30Gi"),
    ("pod.elotl.co/image-overlay-rootfs", "true"),
    ("pod.elotl.co/task-role", "role"),
    ("pod.elotl.co/task-execution-role", "role"),
    ("service.elotl.co/<key>", "x"),
];

fn pod(annotations: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "1", "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }))
    .expect("a pod")
}

fn found(name: &str, value: &str) -> Found {
    let config = PodsConfig::default();
    let key = name.replace("<key>", "aws-load-balancer-internal");
    let without = demand(&pod(&json!({})), &config).expect("a plain pod");
    let pod = pod(&json!({ key: value }));
    let warned = warnings(&pod).into_iter().next();
    match (demand(&pod, &config), warned) {
        (Err(refusal), _) => Found::Refused(refusal.message),
        (Ok(with), None) if with != without => Found::Taken,
        (Ok(with), Some(warning)) if with == without => Found::Warned(warning),
        (Ok(_), None) => Found::Unseen,
        (Ok(_), Some(warning)) => panic!("{name} has an effect, and a warning that it has none: {warning}"),
    }
}

#[test]
fn every_annotation_of_an_old_pod_is_treated_as_the_page_says() {
    let rows = rows("Pod annotations");
    assert_same(&rows, ANNOTATIONS.map(|(name, _)| name));
    check(&rows, |row| {
        let (_, value) = ANNOTATIONS
            .iter()
            .find(|(name, _)| *name == row.name)
            .expect("compared");
        found(&row.name, value)
    });
}

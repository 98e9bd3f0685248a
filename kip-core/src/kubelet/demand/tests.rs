use serde_json::{Value, json};

use super::*;
use crate::ids::Zone;
use crate::kubelet::config::SizingBasis;
use crate::model::Architecture;

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "i" }]);
    }
    serde_json::from_value(json!({ "metadata": { "uid": "u", "namespace": "n", "name": "p" }, "spec": spec }))
        .expect("a pod")
}

fn annotated(key: &str, value: &str) -> Pod {
    let mut pod = pod(json!({}));
    pod.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
    pod
}

fn container(requests: Value, limits: Value) -> Value {
    json!({ "name": "c", "image": "i", "resources": { "requests": requests, "limits": limits } })
}

fn sized(spec: Value, basis: SizingBasis) -> (u64, u64) {
    let config = PodsConfig {
        basis,
        ..PodsConfig::default()
    };
    let demand = demand(&pod(spec), &config).expect("a demand");
    (demand.cpu.0, demand.memory.0 >> 20)
}

fn read(pod: &Pod) -> PodDemand {
    demand(pod, &PodsConfig::default()).expect("a demand")
}

fn refused(pod: &Pod) -> String {
    demand(pod, &PodsConfig::default())
        .expect_err("must be refused")
        .message
}

#[test]
fn a_cell_holds_what_runs_together_or_containers_are_killed_for_memory() {
    let small = || {
        container(
            json!({ "cpu": "100m", "memory": "64Mi" }),
            json!({ "memory": "128Mi" }),
        )
    };
    let mut sidecar = small();
    sidecar["restartPolicy"] = json!("Always");
    let big = container(json!({ "cpu": "1", "memory": "32Mi" }), json!({}));
    for (name, spec, limits, requests) in [
        ("nothing asked", json!({}), (0, 0), (0, 0)),
        (
            "a limit beats a request",
            json!({ "containers": [small()] }),
            (100, 128),
            (100, 64),
        ),
        (
            "containers add up",
            json!({ "containers": [small(), small()] }),
            (200, 256),
            (200, 128),
        ),
        (
            "an init container runs alone",
            json!({ "containers": [small()], "initContainers": [big.clone()] }),
            (1000, 128),
            (1000, 64),
        ),
        (
            "a sidecar runs beside the containers",
            json!({ "containers": [small()], "initContainers": [sidecar.clone()] }),
            (200, 256),
            (200, 128),
        ),
        (
            "an init container runs beside the sidecars before it",
            json!({ "containers": [small()], "initContainers": [sidecar.clone(), big.clone()] }),
            (1100, 256),
            (1100, 128),
        ),
        (
            "and not beside those after it",
            json!({ "containers": [small()], "initContainers": [big.clone(), sidecar.clone()] }),
            (1000, 256),
            (1000, 128),
        ),
        (
            "overhead comes on top",
            json!({ "containers": [small()], "overhead": { "cpu": "50m", "memory": "16Mi" } }),
            (150, 144),
            (150, 80),
        ),
        (
            "what the pod sets as a whole counts",
            json!({ "containers": [small()], "resources": { "limits": { "cpu": "2" }, "requests": { "cpu": "1" } } }),
            (2000, 128),
            (1000, 64),
        ),
    ] {
        assert_eq!(sized(spec.clone(), SizingBasis::Limits), limits, "{name}, limits");
        assert_eq!(sized(spec, SizingBasis::Requests), requests, "{name}, requests");
    }
}

#[test]
fn graphics_cards_and_disk_are_asked_for_too() {
    let resources = json!({ "nvidia.com/gpu": "2", "ephemeral-storage": "3Gi", "example.com/none": "0" });
    let demand = read(&pod(json!({ "containers": [container(json!({}), resources)] })));
    assert_eq!(demand.extended, [("nvidia.com/gpu".to_owned(), 2)].into());
    assert_eq!(demand.options.ephemeral_storage, Bytes::gib(3));
}

#[test]
fn selectors_and_affinity_together_say_where_or_a_binary_meets_the_wrong_processor() {
    let affinity = |expressions: Value| {
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [ { "matchExpressions": expressions } ] } } })
    };
    let demand = read(&pod(json!({
        "nodeSelector": { "kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "kip" },
        "affinity": affinity(json!([
            { "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"] },
            { "key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["reserved"] },
        ])),
    })));
    assert_eq!(demand.architectures, [Architecture::Arm64].into());
    assert_eq!(demand.zones, [Zone::new("a"), Zone::new("b")].into());
    assert_eq!(
        demand.capacity_types,
        [CapacityType::OnDemand, CapacityType::Spot].into()
    );
    assert_eq!(demand.instance_type, None);

    let either = read(&pod(json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [ { "key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"] } ] },
            { "matchExpressions": [ { "key": "other", "operator": "Exists" } ] },
        ] } } } })));
    assert_eq!(
        either.architectures,
        [Architecture::Amd64].into(),
        "the second term says nothing of it"
    );

    for (spec, part) in [
        (
            json!({ "nodeSelector": { "kubernetes.io/os": "windows" } }),
            "linux",
        ),
        (
            json!({ "nodeSelector": { "kubernetes.io/arch": "s390x" } }),
            "s390x",
        ),
        (
            json!({ "affinity": affinity(json!([{ "key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["a"] }])) }),
            "list the allowed values with In",
        ),
        (
            json!({ "nodeSelector": { "topology.kubernetes.io/zone": "a" },
                    "affinity": affinity(json!([{ "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"] }])) }),
            "topology.kubernetes.io/zone",
        ),
    ] {
        let message = refused(&pod(spec));
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn arm_is_only_for_pods_that_allow_it_or_an_image_for_amd64_never_starts() {
    let arm = |demand: PodDemand| {
        demand.architectures.is_empty() || demand.architectures.contains(&Architecture::Arm64)
    };
    assert!(!arm(read(&pod(json!({})))));
    assert!(!arm(read(&annotated("pod.elotl.co/instance-type", "c*"))));
    for family in ["c7g.large", "c7g.*"] {
        assert!(
            arm(read(&annotated("pod.elotl.co/instance-type", family))),
            "{family}"
        );
    }
    assert!(arm(read(&pod(
        json!({ "nodeSelector": { "kubernetes.io/arch": "arm64" } })
    ))));

    use crate::kubelet::usual_architectures;
    let both = [Architecture::Arm64, Architecture::Amd64];
    assert_eq!(usual_architectures(both), [Architecture::Amd64].into());
    assert_eq!(
        usual_architectures([Architecture::Arm64]),
        [Architecture::Arm64].into(),
        "a machine with Arm alone"
    );
    assert_eq!(usual_architectures([]), [Architecture::Amd64].into());
}

#[test]
fn the_model_of_a_gpu_is_selected_by_the_labels_people_use() {
    for (key, value, model) in [
        ("node.elotl.co/gpu-nvidia-tesla-t4", "", "nvidia-tesla-t4"),
        ("node.elotl.co/gpu-type", "L4", "L4"),
        ("cloud.google.com/gke-accelerator", "nvidia-l4", "nvidia-l4"),
        ("karpenter.k8s.aws/instance-gpu-name", "a10g", "a10g"),
        ("nvidia.com/gpu.product", "Tesla-T4", "Tesla-T4"),
    ] {
        let demand = read(&pod(json!({ "nodeSelector": { key: value } })));
        assert_eq!(demand.gpu_models, [model.to_owned()].into(), "{key}");
    }
    assert!(read(&pod(json!({}))).gpu_models.is_empty());
    let message = refused(&pod(json!({ "nodeSelector": {
        "cloud.google.com/gke-accelerator": "nvidia-l4", "nvidia.com/gpu.product": "Tesla-T4" } })));
    assert!(message.contains("no GPU model"), "{message}");
}

#[test]
fn annotations_of_the_old_kip_still_work_and_wrong_ones_say_so() {
    let demand = read(&annotated("pod.elotl.co/instance-type", "c7g.*"));
    assert_eq!(demand.instance_type.as_deref(), Some("c7g.*"));
    let demand = read(&annotated("pod.elotl.co/launch-type", "Spot"));
    assert_eq!(demand.capacity_types, [CapacityType::Spot].into());
    let demand = read(&annotated("pod.elotl.co/volume-size", "20Gi"));
    assert_eq!(demand.options.volume_size, Bytes::gib(20));
    for (name, value) in [
        ("instance-type", "a b"),
        ("instance-type", "x"),
        ("launch-type", "dedicated"),
        ("launch-type", "sopt"),
        ("volume-size", "20GB"),
        ("volume-size", "-1"),
        ("private-ip-only", "yes please"),
        ("healthcheck-healthy-timeout", "soon"),
        ("cloud-route", "10.0.0.0/16 10.0.0.0/64"),
    ] {
        let key = format!("pod.elotl.co/{name}");
        let message = refused(&annotated(&key, value));
        assert!(message.contains(&key), "{message}");
    }
}

#[test]
fn what_is_not_offered_is_refused_by_its_name() {
    for (spec, part) in [
        (
            json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "x" } }] }),
            "persistentVolumeClaim",
        ),
        (
            json!({ "volumes": [{ "name": "v", "csi": { "driver": "x" } }] }),
            "csi",
        ),
        (
            json!({ "volumes": [{ "name": "v", "fromTheFuture": {} }] }),
            "unknown to this version",
        ),
        (
            json!({ "volumes": [{ "name": "v", "projected": { "sources": [{ "clusterTrustBundle": { "path": "p" } }] } }] }),
            "projects",
        ),
        (
            json!({ "resourceClaims": [{ "name": "x" }] }),
            "spec.resourceClaims",
        ),
        (json!({ "runtimeClassName": "gvisor" }), "gvisor"),
        (
            json!({ "containers": [container(json!({ "hugepages-2Mi": "4Mi" }), json!({}))] }),
            "hugepages-2Mi",
        ),
        (
            json!({ "containers": [container(json!({ "cpu": "lots" }), json!({}))] }),
            "spec.containers[0].resources, cpu",
        ),
    ] {
        let message = refused(&pod(spec));
        assert!(message.contains(part), "{message}");
    }
}

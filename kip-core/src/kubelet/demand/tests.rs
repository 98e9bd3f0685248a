use serde_json::{Value, json};

use super::*;
use crate::ids::Zone;
use crate::kubelet::config::SizingBasis;
use crate::model::{Architecture, CapacityType};

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
    assert!(demand.instance_types.is_empty());

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
            json!({ "affinity": affinity(json!([{ "key": "nvidia.com/gpu.product", "operator": "NotIn", "values": ["a"] }])) }),
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
    assert_eq!(demand.instance_types, ["c7g.*".to_owned()].into());
    let demand = read(&annotated("pod.elotl.co/launch-type", "Spot"));
    assert_eq!(demand.capacity_types, [CapacityType::Spot].into());
    assert!(read(&annotated("pod.elotl.co/fit", "elastic")).elastic);
    assert!(!read(&annotated("pod.elotl.co/fit", "exact")).elastic);
    let demand = read(&annotated("pod.elotl.co/volume-size", "20Gi"));
    assert_eq!(demand.options.volume_size, Bytes::gib(20));
    for (name, value) in [
        ("instance-type", "a b"),
        ("instance-type", "x"),
        ("launch-type", "sopt"),
        ("instance-selector", "cpu > many"),
        ("fit", "loose"),
        ("volume-size", "20GB"),
        ("volume-size", "-1"),
        ("private-ip-only", "yes please"),
        ("healthcheck-healthy-timeout", "soon"),
        ("cloud-route", "10.0.0.0/16 10.0.0.0/64"),
        ("security-groups", "sg-1 sg-2"),
        ("instance-profile", "a b"),
        ("instance-type", "mac1.metal"),
        ("instance-type", "mac*"),
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

#[test]
fn what_an_annotation_asks_of_the_instance_reaches_the_launch() {
    let options = |name: &str, value: &str| read(&annotated(&format!("pod.elotl.co/{name}"), value)).options;
    assert!(options("private-ip-only", "True").private_address_only);
    assert!(!options("private-ip-only", "false").private_address_only);
    let groups = options("security-groups", " sg-1, sg-2,,").security_groups;
    assert_eq!(groups, ["sg-1".to_owned(), "sg-2".to_owned()].into());
    let profile = "arn:aws:iam::123456789012:instance-profile/web";
    assert_eq!(
        options("instance-profile", profile).identity.as_deref(),
        Some(profile)
    );
    let routes = options("cloud-route", "10.9.1.0/16  fd00::/8").routes;
    assert_eq!(routes, ["10.9.0.0/16".to_owned(), "fd00::/8".to_owned()].into());
    assert!(options("launch-type", "Dedicated").dedicated);
    for name in [
        "instance-type",
        "launch-type",
        "security-groups",
        "instance-profile",
        "cloud-route",
    ] {
        let left_empty = read(&annotated(&format!("pod.elotl.co/{name}"), " "));
        assert_eq!(left_empty, read(&pod(json!({}))), "{name}");
    }
}

#[test]
fn an_annotation_and_a_selector_narrow_each_other_and_never_overrule() {
    let both = |annotation: (&str, &str), selector: (&str, &str)| {
        let mut pod = pod(json!({ "nodeSelector": { selector.0: selector.1 } }));
        pod.metadata.annotations = Some([(annotation.0.to_owned(), annotation.1.to_owned())].into());
        pod
    };
    let (launch, capacity) = ("pod.elotl.co/launch-type", "karpenter.sh/capacity-type");
    let agreed = read(&both((launch, "spot,on-demand"), (capacity, "spot")));
    assert_eq!(agreed.capacity_types, [CapacityType::Spot].into());
    let either = read(&annotated(launch, "spot, on-demand"));
    assert_eq!(
        either.capacity_types,
        [CapacityType::OnDemand, CapacityType::Spot].into()
    );
    let message = refused(&both((launch, "spot"), (capacity, "on-demand")));
    assert!(
        message.contains(launch) && message.contains(capacity),
        "{message}"
    );

    let (annotation, label) = ("pod.elotl.co/instance-type", "node.kubernetes.io/instance-type");
    let agreed = read(&both((annotation, "c7g.*"), (label, "c7g.large")));
    assert_eq!(agreed.instance_types, ["c7g.large".to_owned()].into());
    let message = refused(&both((annotation, "c7g.*"), (label, "m5.large")));
    assert!(
        message.contains(annotation) && message.contains(label),
        "{message}"
    );
}

fn affine(terms: Value) -> Pod {
    pod(json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } }))
}

#[test]
fn several_instance_types_may_be_listed_and_the_node_s_own_label_is_none() {
    let listed = affine(json!([{ "matchExpressions": [
        { "key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.large", "c5.large", "mac2.metal"] } ] }]));
    assert_eq!(
        read(&listed).instance_types,
        ["c5.large".to_owned(), "m5.large".to_owned()].into()
    );
    let node_itself = affine(json!([{ "matchExpressions": [
        { "key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["kip", "m5.large"] } ] }]));
    assert!(read(&node_itself).instance_types.is_empty());
    assert!(read(&node_itself).requirements.is_empty());
    let only_mac = affine(json!([{ "matchExpressions": [
        { "key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["mac2.metal"] } ] }]));
    assert!(refused(&only_mac).contains("macOS"));
}

#[test]
fn labels_of_instance_types_are_required_and_alternatives_stay_apart() {
    let demand = read(&pod(
        json!({ "nodeSelector": { "karpenter.k8s.aws/instance-family": "c7g" } }),
    ));
    let written = |demand: &PodDemand| -> Vec<Vec<String>> {
        let alternatives = demand.requirements.iter();
        alternatives
            .map(|all| all.iter().map(ToString::to_string).collect())
            .collect()
    };
    assert_eq!(written(&demand), [["karpenter.k8s.aws/instance-family in (c7g)"]]);

    let demand = read(&affine(json!([{ "matchExpressions": [
        { "key": "karpenter.k8s.aws/instance-local-nvme", "operator": "Gt", "values": ["100"] },
        { "key": "node.kubernetes.io/instance-type", "operator": "NotIn", "values": ["m5d.large", "kip"] },
        { "key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["z1"] },
        { "key": "example.com/rack", "operator": "In", "values": ["7"] } ] }])));
    assert_eq!(
        written(&demand),
        [[
            "karpenter.k8s.aws/instance-local-nvme > 100",
            "node.kubernetes.io/instance-type notin (m5d.large)",
            "topology.kubernetes.io/zone notin (z1)",
        ]]
    );

    let zone = |zone: &str, family: &str| {
        json!({ "matchExpressions": [
            { "key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone] },
            { "key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": [family] } ] })
    };
    let demand = read(&affine(json!([zone("a", "c5"), zone("b", "m5")])));
    assert_eq!(demand.zones, [Zone::new("a"), Zone::new("b")].into());
    assert_eq!(written(&demand).len(), 2, "c5 in b is neither");
    let mut annotated = affine(json!([zone("a", "c5"), zone("b", "m5")]));
    let selector = ("pod.elotl.co/instance-selector".to_owned(), "cpu > 4".to_owned());
    annotated.metadata.annotations = Some([selector].into());
    assert!(
        written(&read(&annotated))
            .iter()
            .all(|all| all.contains(&"cpu > 4".to_owned()))
    );
    let anything = json!({ "matchExpressions": [ { "key": "other", "operator": "Exists" } ] });
    assert!(
        read(&affine(json!([zone("a", "c5"), anything])))
            .requirements
            .is_empty()
    );

    for values in [json!([]), json!(["1", "2"]), json!(["much"])] {
        let message = refused(&affine(json!([{ "matchExpressions": [
            { "key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": values } ] }])));
        assert!(message.contains("karpenter.k8s.aws/instance-cpu"), "{message}");
    }
}

#[test]
fn an_annotation_without_effect_is_told_and_one_that_works_is_not() {
    for name in [
        "healthcheck-healthy-timeout",
        "image-overlay-rootfs",
        "task-role",
        "task-execution-role",
        "instance-typ",
    ] {
        let told = warnings(&annotated(&format!("pod.elotl.co/{name}"), "30"));
        assert!(told.len() == 1 && told[0].contains(name), "{told:?}");
    }
    let told = warnings(&annotated("pod.elotl.co/instance-typ", "x"));
    assert!(
        told[0].contains("instance-type, instance-selector, launch-type"),
        "{told:?}"
    );
    for key in ["pod.elotl.co/launch-type", "example.com/instance-typ"] {
        assert!(warnings(&annotated(key, "spot")).is_empty(), "{key}");
    }
}

//! Pods on their way to the driver and their status on its way back, against a Kubernetes API.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use std::sync::Arc;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kip_core::driver::{PodIntent, PodNotice, PodSource as _};
use kip_core::ids::{CellName, PodUid};
use kip_core::model::{
    ContainerReport, ContainerState, CpuMillis, EnvValue, PodPhase, PodReport, RuntimeReport, Termination,
    VolumeSource,
};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use kubelet_support::{Notes, World, within};

fn is_run(intent: &PodIntent) -> bool {
    matches!(intent, PodIntent::Run { .. })
}

fn running(pod_uid: &PodUid, ready: bool) -> PodReport {
    let mut report = PodReport::new(PodPhase::Running, "", "");
    report.cell = Some(CellName::new("cell-1"));
    report.host_ip = Some("10.0.0.2".parse().expect("an address"));
    report.runtime = Some(Arc::new(RuntimeReport {
        pod_uid: pod_uid.to_string(),
        sandbox_ready: true,
        pod_ips: vec!["10.1.0.2".parse().expect("an address")],
        containers: vec![ContainerReport {
            name: "main".to_owned(),
            image: "example.com/app:1".to_owned(),
            image_id: "sha256:1".to_owned(),
            container_id: "containerd://1".to_owned(),
            restart_count: 0,
            state: ContainerState::Running {
                started_at: Timestamp::UNIX_EPOCH,
            },
            last_state: None,
            ready,
            started: true,
        }],
        ..RuntimeReport::default()
    }));
    report
}

fn ended(pod_uid: &PodUid) -> PodReport {
    let mut report = running(pod_uid, false);
    report.phase = PodPhase::Succeeded;
    let mut runtime = (**report.runtime.as_ref().expect("a runtime report")).clone();
    runtime.finished = true;
    runtime.containers[0].state = ContainerState::Terminated(Termination {
        exit_code: 0,
        signal: 0,
        reason: "Completed".to_owned(),
        message: String::new(),
        started_at: Some(Timestamp::UNIX_EPOCH),
        finished_at: Some(Timestamp::UNIX_EPOCH),
        container_id: "containerd://1".to_owned(),
    });
    report.runtime = Some(Arc::new(runtime));
    report
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn condition(pod: &Pod, kind: &str) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.clone())
}

/// The life of a pod as its user sees it, in no more writes than a kubelet makes.
#[tokio::test]
async fn a_pod_is_told_to_the_driver_and_its_life_to_the_api() {
    let world = World::with(Notes {
        logs: [("main".to_owned(), "2026-01-01T00:00:00Z last words\n".to_owned())].into(),
        ..Notes::default()
    })
    .await;
    let uid = world
        .pod(
            "life",
            json!({ "restartPolicy": "Never", "activeDeadlineSeconds": 60,
                "containers": [{ "name": "main", "image": "example.com/app:1",
                    "resources": { "requests": { "cpu": "250m" } } }] }),
        )
        .await;
    let PodIntent::Run {
        demand,
        refresh,
        active_deadline_seconds,
        restartable,
        started_before,
    } = world.intent(&uid, "the pod is told", is_run).await
    else {
        panic!("a run")
    };
    assert_eq!((demand.cpu, demand.pod.name.as_str()), (CpuMillis(250), "life"));
    assert_eq!(
        (refresh, active_deadline_seconds, restartable, started_before),
        (false, Some(60), false, false)
    );
    within("synced", world.driver.synced.cancelled()).await;

    let pods = world.pods();
    let version = |pod: Pod| pod.metadata.resource_version.expect("a version");
    let mut versions = vec![version(pods.get("life").await.expect("the pod"))];
    for step in ["Placing", "Launching", "Booting", "Connecting", "Deploying"] {
        let report = PodReport::new(PodPhase::Pending, step, format!("{step}."));
        world.source.publish(&uid, &report).await.expect("published");
        versions.push(version(pods.get("life").await.expect("the pod")));
    }
    for report in [
        running(&uid, false),
        running(&uid, true),
        running(&uid, true),
        ended(&uid),
    ] {
        world.source.publish(&uid, &report).await.expect("published");
        versions.push(version(pods.get("life").await.expect("the pod")));
    }
    let pod = pods.get("life").await.expect("the pod");
    assert_eq!(phase(&pod), "Succeeded");
    versions.dedup();
    assert!(versions.len() - 1 <= 6, "{} writes", versions.len() - 1);
    let status = pod.status.as_ref().expect("a status");
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(condition(&pod, "Ready").as_deref(), Some("False"));
    assert!(status.qos_class.is_some(), "the API's own fields stay");

    // What has ended stays ended.
    world
        .source
        .publish(&uid, &running(&uid, true))
        .await
        .expect("taken, and nothing done");
    assert_eq!(phase(&pods.get("life").await.expect("the pod")), "Succeeded");
    // And its last words can still be read although its cell is gone.
    let logs = pods
        .logs("life", &kube::api::LogParams::default())
        .await
        .expect("logs");
    assert_eq!(logs, "last words\n");
    world.stop().await;
}

/// A pod of the same name must never get the old one's end.
#[tokio::test]
async fn deletion_is_graceful_and_hits_only_the_pod_it_is_meant_for() {
    let world = World::start().await;
    let uid = world
        .pod("p", json!({ "terminationGracePeriodSeconds": 30 }))
        .await;
    world.intent(&uid, "the pod is told", is_run).await;
    world
        .source
        .publish(&uid, &running(&uid, true))
        .await
        .expect("published");
    let pods = world.pods();
    pods.delete("p", &DeleteParams::default())
        .await
        .expect("accepted");
    let PodIntent::Delete { grace } = world
        .intent(&uid, "the deletion is told", |intent| {
            matches!(intent, PodIntent::Delete { .. })
        })
        .await
    else {
        panic!("a deletion")
    };
    assert_eq!(grace, Duration::from_secs(30));

    world.source.release(&uid).await.expect("released");
    world
        .intent(&uid, "the end is told", |intent| {
            matches!(intent, PodIntent::Gone)
        })
        .await;
    let second = world.pod("p", json!({})).await;
    world.intent(&second, "the new pod is told", is_run).await;
    world.source.release(&uid).await.expect("already released");
    world
        .source
        .publish(&uid, &ended(&uid))
        .await
        .expect("nobody is there to read it");
    let pod = pods.get("p").await.expect("the new pod is there");
    assert_eq!(pod.metadata.uid.as_deref(), Some(second.as_str()));
    assert_ne!(phase(&pod), "Succeeded");
    world.stop().await;
}

/// Users create things in any order, and change them afterwards.
#[tokio::test]
async fn a_missing_config_map_is_named_and_its_arrival_is_noticed() {
    let world = World::start().await;
    let uid = world
        .pod(
            "needs",
            json!({
                "containers": [{ "name": "main", "image": "example.com/app:1",
                    "env": [{ "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } }],
                    "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
                "volumes": [{ "name": "v", "projected": { "sources": [
                    { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                    { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } } ] } }],
            }),
        )
        .await;
    world.intent(&uid, "the pod is told", is_run).await;
    let cell = CellName::new("cell-1");
    let first = world
        .source
        .manifest(&uid, &cell, None)
        .await
        .expect("a manifest");
    let problem = first.containers[0].config_error.clone().expect("it is missing");
    assert!(problem.contains("settings"), "{problem}");
    let VolumeSource::Files(files) = &first.volumes[0].source else {
        panic!("files")
    };
    let token = files
        .files
        .iter()
        .find(|file| file.path == "token")
        .expect("a token");
    assert!(token.content.len() > 20 && files.secret);

    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = events.list(&ListParams::default()).await.expect("events").items;
    let told = told
        .iter()
        .find(|event| event.reason.as_deref() == Some("MandatoryConfigMapNotFound"));
    assert_eq!(
        told.expect("an event").involved_object.uid.as_deref(),
        Some(uid.as_str())
    );

    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    let map = |colour: &str| -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "name": "settings" }, "data": { "colour": colour } }))
            .expect("a ConfigMap")
    };
    maps.create(&PostParams::default(), &map("red"))
        .await
        .expect("created");
    let is_refresh = |intent: &PodIntent| matches!(intent, PodIntent::Run { refresh: true, .. });
    world.intent(&uid, "the arrival is told", is_refresh).await;
    let second = world
        .source
        .manifest(&uid, &cell, None)
        .await
        .expect("a manifest");
    assert_eq!(second.containers[0].config_error, None);
    assert!(
        second.generation > first.generation,
        "an older generation is ignored by the host"
    );
    assert_eq!(
        second.containers[0].env[0].value,
        EnvValue::Text("red".to_owned())
    );

    world.driver.intents.lock().expect("not poisoned").clear();
    let change = Patch::Merge(json!({ "data": { "colour": "blue" } }));
    maps.patch("settings", &PatchParams::default(), &change)
        .await
        .expect("changed");
    world.intent(&uid, "the change is told", is_refresh).await;
    world.stop().await;
}

/// A misspelled annotation must not look like one that works.
#[tokio::test]
async fn an_annotation_without_effect_is_told_in_an_event() {
    let world = World::start().await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "typo", "annotations": { "pod.elotl.co/instance-typ": "m5.large" } },
        "spec": { "nodeName": "kip", "containers": [{ "name": "main", "image": "app:1" }] },
    }))
    .expect("a pod");
    world
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect("created");
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let is_told = |event: &Event| {
        let message = event.message.as_deref().unwrap_or_default();
        event.type_.as_deref() == Some("Warning") && message.contains("pod.elotl.co/instance-typ")
    };
    within("the warning", async {
        loop {
            let told = events.list(&ListParams::default()).await.expect("events").items;
            if told.iter().any(is_told) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.stop().await;
}

/// Ten equal lines in `kubectl describe` hide the one that matters.
#[tokio::test]
async fn equal_events_are_counted() {
    let world = World::start().await;
    let uid = world.pod("noisy", json!({})).await;
    world.intent(&uid, "the pod is told", is_run).await;
    let notice = PodNotice::warning("NoFit", "nothing fits").for_container("main");
    for _ in 0..3 {
        world.source.notify(&uid, notice.clone()).await;
    }
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = events.list(&ListParams::default()).await.expect("events").items;
    let told: Vec<_> = told
        .iter()
        .filter(|event| event.reason.as_deref() == Some("NoFit"))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].count, Some(3));
    assert_eq!(
        told[0].involved_object.field_path.as_deref(),
        Some("spec.containers{main}")
    );
    world.stop().await;
}

/// When the control plane has marked the pod unready behind our back, traffic must come back without a restart.
#[tokio::test]
async fn a_status_others_overwrote_is_put_right_and_gates_are_heard() {
    let world = World::start().await;
    let uid = world
        .pod("gated", json!({ "readinessGates": [{ "conditionType": "lb" }] }))
        .await;
    world.intent(&uid, "the pod is told", is_run).await;
    world
        .source
        .publish(&uid, &running(&uid, true))
        .await
        .expect("published");
    let pods = world.pods();
    assert_eq!(
        condition(&pods.get("gated").await.expect("the pod"), "Ready").as_deref(),
        Some("False")
    );
    let open = json!({ "status": { "conditions": [{ "type": "lb", "status": "True" }] } });
    pods.patch_status("gated", &PatchParams::default(), &Patch::Strategic(&open))
        .await
        .expect("opened");
    let is_ready = |pod: &Pod| condition(pod, "Ready").as_deref() == Some("True");
    let pod = world.becomes(pods.clone(), "gated", "ready", is_ready).await;
    assert_eq!(
        condition(&pod, "lb").as_deref(),
        Some("True"),
        "a gate is its owner's"
    );
    world.stop().await;
}

/// What can never run is told at once, by name; what was there before us is told as such.
#[tokio::test]
async fn an_impossible_pod_is_refused() {
    let world = World::start().await;
    let uid = world
        .pod(
            "disk",
            json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] }),
        )
        .await;
    let refused = world
        .intent(&uid, "refused", |intent| {
            matches!(intent, PodIntent::Refuse { .. })
        })
        .await;
    let PodIntent::Refuse { message, .. } = refused else {
        panic!("refused")
    };
    assert!(message.contains("persistentVolumeClaim"), "{message}");
    world.stop().await;
}

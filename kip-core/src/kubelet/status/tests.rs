use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::{ContainerReport, ContainerState, RuntimeReport, Termination};

fn now() -> Timestamp {
    "2026-01-02T03:04:05.9Z".parse().expect("a time")
}

fn pod(spec: Value, status: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "main", "image": "i" }]);
    }
    let mut pod =
        json!({ "metadata": { "uid": "u", "namespace": "n", "name": "p", "generation": 3 }, "spec": spec });
    pod["status"] = status;
    serde_json::from_value(pod).expect("a pod")
}

fn container(name: &str, state: ContainerState) -> ContainerReport {
    let running = matches!(state, ContainerState::Running { .. });
    ContainerReport {
        name: name.to_owned(),
        image: "i".to_owned(),
        image_id: "sha256:1".to_owned(),
        container_id: "containerd://1".to_owned(),
        restart_count: 0,
        state,
        last_state: None,
        ready: running,
        started: running,
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: now() }
}

fn ended(exit_code: i32) -> ContainerState {
    ContainerState::Terminated(Termination {
        exit_code,
        signal: 0,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        started_at: Some(now()),
        finished_at: Some(now()),
        container_id: "containerd://1".to_owned(),
    })
}

fn report(phase: PodPhase, containers: Vec<ContainerReport>) -> PodReport {
    let mut report = PodReport::new(phase, "", "");
    report.host_ip = Some("10.0.0.2".parse().expect("an address"));
    report.runtime = Some(Arc::new(RuntimeReport {
        sandbox_ready: true,
        pod_ips: vec!["10.1.0.2".parse().expect("an address")],
        containers,
        ..RuntimeReport::default()
    }));
    report
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a k8s_openapi::api::core::v1::PodCondition {
    let conditions = status.conditions.as_ref().expect("conditions");
    conditions
        .iter()
        .find(|c| c.type_ == kind)
        .expect("the condition")
}

fn says(status: &PodStatus, kind: &str) -> (String, String) {
    let condition = condition(status, kind);
    (
        condition.status.clone(),
        condition.reason.clone().unwrap_or_default(),
    )
}

#[test]
fn a_waiting_pod_says_why_or_users_stare_at_pending() {
    let pod = pod(
        json!({ "initContainers": [{ "name": "first", "image": "i" }] }),
        json!({}),
    );
    let report = PodReport::new(
        PodPhase::Pending,
        "Launching",
        "waiting for an instance of small/z1/spot",
    );
    let status = project(&pod, &report, 3, now()).expect("a status");
    let waiting = status.container_statuses.as_ref().expect("statuses")[0]
        .state
        .clone();
    let waiting = waiting.and_then(|state| state.waiting).expect("waiting");
    assert_eq!(
        waiting.reason.as_deref(),
        Some("Launching"),
        "what `kubectl get pods` shows"
    );
    assert!(waiting.message.expect("a message").contains("small/z1/spot"));
    assert_eq!(
        says(&status, "Initialized"),
        ("False".into(), "ContainersNotInitialized".into())
    );
    assert_eq!(
        says(&status, "PodReadyToStartContainers"),
        ("False".into(), "Launching".into())
    );
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(
        status.start_time.expect("a time").0.to_string(),
        "2026-01-02T03:04:05Z"
    );
}

#[test]
fn a_running_pod_is_ready_with_its_addresses() {
    let pod = pod(json!({}), json!({}));
    let status = project(
        &pod,
        &report(PodPhase::Running, vec![container("main", running())]),
        3,
        now(),
    )
    .expect("a status");
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.2"));
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
    ] {
        assert_eq!(says(&status, kind).0, "True", "{kind}");
    }
}

#[test]
fn the_end_is_told_once_and_never_taken_back() {
    let pod_before = pod(json!({ "restartPolicy": "Never" }), json!({}));
    let status = project(
        &pod_before,
        &report(PodPhase::Succeeded, vec![container("main", ended(0))]),
        3,
        now(),
    )
    .expect("a status");
    assert_eq!(says(&status, "Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(says(&status, "PodReadyToStartContainers").0, "False");
    let mut pod_after = pod_before;
    pod_after.status = Some(status);
    assert_eq!(
        project(&pod_after, &report(PodPhase::Running, vec![]), 3, now()),
        None
    );
}

#[test]
fn a_lost_container_is_137_and_one_that_never_ran_is_not_blamed() {
    let spec = json!({ "containers": [{ "name": "ran", "image": "i" }, { "name": "never", "image": "i" }] });
    let known = json!({ "containerStatuses": [
        { "name": "ran", "image": "i", "imageID": "", "ready": true, "restartCount": 2, "containerID": "containerd://1",
          "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } } ] });
    let mut report = PodReport::new(PodPhase::Failed, "CellLost", "the instance is gone");
    report.disruption = Some("the instance is gone".to_owned());
    let status = project(&pod(spec, known), &report, 3, now()).expect("a status");
    let statuses = status.container_statuses.as_ref().expect("statuses");
    let lost = statuses[0]
        .state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .expect("terminated");
    assert_eq!(
        (lost.exit_code, lost.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
    assert_eq!(statuses[0].restart_count, 2);
    assert!(statuses[1].state.as_ref().expect("a state").waiting.is_some());
    assert_eq!(
        says(&status, "DisruptionTarget"),
        ("True".into(), "TerminationByKubelet".into())
    );
}

#[test]
fn restarts_are_counted_on_across_cells() {
    let known = json!({ "containerStatuses": [
        { "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 4, "containerID": "containerd://old",
          "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } } ] });
    let pod = pod(json!({}), known);
    let waiting = PodReport::new(PodPhase::Pending, "Launching", "again");
    let status = project(&pod, &waiting, 3, now()).expect("a status");
    let between = &status.container_statuses.as_ref().expect("statuses")[0];
    assert!(
        between
            .last_state
            .as_ref()
            .expect("the lost run")
            .terminated
            .is_some()
    );
    assert_eq!(between.restart_count, 4);
    let mut pod = pod;
    pod.status = Some(status);
    let again = report(PodPhase::Running, vec![container("main", running())]);
    let status = project(&pod, &again, 3, now()).expect("a status");
    assert_eq!(
        status.container_statuses.as_ref().expect("statuses")[0].restart_count,
        5
    );
    pod.status = Some(status);
    let status = project(&pod, &again, 3, now()).expect("a status");
    assert_eq!(
        status.container_statuses.as_ref().expect("statuses")[0].restart_count,
        5
    );
}

#[test]
fn a_container_that_may_not_restart_does_not_come_back() {
    let known = json!({ "containerStatuses": [
        { "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
          "state": { "terminated": { "exitCode": 1, "reason": "Error" } } } ] });
    let report = report(PodPhase::Running, vec![container("main", running())]);
    for (policy, comes_back) in [("Never", false), ("OnFailure", true), ("Always", true)] {
        let pod = pod(json!({ "restartPolicy": policy }), known.clone());
        let status = project(&pod, &report, 3, now()).expect("a status");
        let state = status.container_statuses.as_ref().expect("statuses")[0]
            .state
            .clone();
        assert_eq!(state.expect("a state").running.is_some(), comes_back, "{policy}");
    }
}

#[test]
fn readiness_gates_hold_traffic_back() {
    let spec = json!({ "readinessGates": [{ "conditionType": "lb" }] });
    let report = report(PodPhase::Running, vec![container("main", running())]);
    let closed = project(&pod(spec.clone(), json!({})), &report, 3, now()).expect("a status");
    assert_eq!(says(&closed, "ContainersReady").0, "True");
    assert_eq!(
        says(&closed, "Ready"),
        ("False".into(), "ReadinessGatesNotReady".into())
    );
    let open = json!({ "conditions": [{ "type": "lb", "status": "True" }] });
    let open = project(&pod(spec, open), &report, 3, now()).expect("a status");
    assert_eq!(says(&open, "Ready").0, "True");
}

#[test]
fn an_unchanged_status_is_not_written_and_a_flip_moves_its_time() {
    let report = report(PodPhase::Running, vec![container("main", running())]);
    let mut pod = pod(
        json!({}),
        json!({ "qosClass": "BestEffort", "conditions": [
        { "type": "PodScheduled", "status": "True" },
        { "type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z", "reason": "Old" } ] }),
    );
    let known = pod.status.clone().expect("a status");
    let wanted = project(&pod, &report, 3, now()).expect("a status");
    let patch = super::patch("u", &known, &wanted).expect("a change");
    assert_eq!(patch["metadata"]["uid"], "u");
    let conditions = patch["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().all(|c| c["type"] != "PodScheduled"), "not ours");
    let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("ready");
    assert_eq!(ready["lastTransitionTime"], "2026-01-02T03:04:05Z");
    assert_eq!(ready["reason"], Value::Null, "the old reason goes");
    assert!(patch["status"].get("qosClass").is_none());

    pod.status = Some(wanted.clone());
    let later = now() + jiff::SignedDuration::from_secs(60);
    let again = project(&pod, &report, 3, later).expect("a status");
    assert_eq!(super::patch("u", &wanted, &again), None);
}

#[test]
fn an_old_address_is_taken_out_of_the_list_when_the_pod_moves() {
    let known: PodStatus =
        serde_json::from_value(json!({ "podIP": "10.9.9.9", "podIPs": [{ "ip": "10.9.9.9" }] }))
            .expect("a status");
    let pod = pod(json!({}), json!(known));
    let report = report(PodPhase::Running, vec![container("main", running())]);
    let wanted = project(&pod, &report, 3, now()).expect("a status");
    let patch = super::patch("u", &known, &wanted).expect("a change");
    assert_eq!(
        patch["status"]["podIPs"],
        json!([{ "ip": "10.1.0.2" }, { "ip": "10.9.9.9", "$patch": "delete" }])
    );
}

#[test]
fn a_deletion_costs_a_running_pod_no_write_and_a_waiting_one_still_tells_why_it_waits() {
    let running_report = report(PodPhase::Running, vec![container("main", running())]);
    let mut deleted = pod(json!({}), json!({}));
    deleted.status = project(&deleted, &running_report, 3, now());
    let before = deleted.status.clone();
    deleted.metadata.deletion_timestamp = Some(Time(now()));
    let mut draining = running_report;
    draining.reason = "Draining".to_owned();
    draining.message = "Stopping: the pod is being deleted.".to_owned();
    assert_eq!(project(&deleted, &draining, 3, now()), before);
    draining.phase = PodPhase::Pending;
    let waiting = project(&deleted, &draining, 3, now()).expect("a status");
    assert_eq!(waiting.reason.as_deref(), Some("Draining"));
}

fn unheard(why: Unheard, reason: &str, message: &str) -> PodReport {
    let mut report = PodReport::new(PodPhase::Pending, reason, message);
    report.unheard = Some(why);
    report
}

#[test]
fn a_waiting_pod_goes_on_saying_why_while_a_new_controller_has_not_heard_of_its_host() {
    let deploying = PodReport::new(PodPhase::Pending, "Deploying", "Handing the pod to its cell.");
    let told = project(
        &pod(json!({}), json!({ "phase": "Pending" })),
        &deploying,
        3,
        now(),
    )
    .expect("news");
    let told = pod(json!({}), serde_json::to_value(told).expect("a status"));
    let not_yet = unheard(Unheard::NotYet, "Recovering", "asking the agent");
    assert_eq!(project(&told, &not_yet, 3, now()), None);
    // A pod that nothing was said of yet is told what is known.
    let fresh = pod(json!({}), json!({ "phase": "Pending" }));
    assert!(project(&fresh, &not_yet, 3, now()).is_some());
}

#[test]
fn a_running_pod_is_left_alone_until_its_host_is_heard_or_every_restart_would_be_an_outage() {
    let mut pod = pod(json!({}), json!({}));
    let running = report(PodPhase::Running, vec![container("main", running())]);
    pod.status = project(&pod, &running, 3, now());
    let not_yet = unheard(Unheard::NotYet, "Recovering", "asking the agent");
    assert_eq!(project(&pod, &not_yet, 3, now()), None);
    // A host that stays silent takes the pod out of its services, and nothing more.
    let silent = unheard(Unheard::Silent, "AgentSilent", "no answer");
    let status = project(&pod, &silent, 3, now()).expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(says(&status, "Ready"), ("False".into(), "AgentSilent".into()));
    assert_eq!(says(&status, "PodReadyToStartContainers").0, "True");
    let state = status.container_statuses.as_ref().expect("statuses")[0]
        .state
        .clone();
    assert!(state.expect("a state").running.is_some());
    // But one that is started again elsewhere says so.
    let lost = PodReport::new(PodPhase::Pending, "Restarting", "the instance is gone");
    assert_eq!(
        project(&pod, &lost, 3, now()).expect("a status").phase.as_deref(),
        Some("Pending")
    );
}

//! Nothing is lost between the model and the wire.

use jiff::Timestamp;
use kip_cell_api::v1;
use proptest::prelude::*;

use crate::cell::convert;
use crate::model::{
    AgentEvent, ContainerReport, ContainerState, InstanceNotice, NoticeKind, PodManifest, RuntimeReport,
    StartMarks, Termination,
};

/// Every field set to something of its own: what does not arrive changes what runs.
#[test]
fn a_manifest_arrives_whole() {
    let pod: PodManifest = serde_json::from_value(serde_json::json!({
        "pod": { "uid": "u", "namespace": "ns", "name": "p" }, "generation": 7,
        "labels": { "l": "1" }, "annotations": { "a": "2" }, "hostname": "h", "fqdn": "h.d", "restartPolicy": "OnFailure",
        "terminationGraceSeconds": 9,
        "initContainers": [{ "name": "init", "sidecar": true }],
        "containers": [{
            "name": "main", "image": "i", "pullPolicy": "Never", "command": ["c"], "args": ["x"], "workingDir": "/w",
            "env": [{ "name": "T", "value": { "Text": "v" } }, { "name": "I", "value": "PodIp" }, { "name": "J", "value": "PodIps" }],
            "mounts": [{ "volume": "v", "mountPath": "/m", "subPath": "s", "readOnly": true, "propagation": "None" }],
            "resources": { "cpuRequest": 1, "cpuLimit": 2, "memoryRequest": 3, "memoryLimit": 4, "extended": { "gpu": 5 } },
            "security": { "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "privileged": true,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "addCapabilities": ["A"],
                "dropCapabilities": ["B"], "seccomp": { "Localhost": "f" } },
            "stdin": true, "stdinOnce": true, "tty": true, "terminationMessagePath": "/t", "terminationMessageFromLogs": true,
            "liveness": { "handler": { "HttpGet": { "host": "", "port": 80, "path": "/", "https": true, "headers": [{ "name": "n", "value": "v" }] } },
                "initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 3, "successThreshold": 4, "failureThreshold": 5,
                "terminationGraceSeconds": 6 },
            "postStart": { "Exec": { "command": ["e"] } }, "preStop": { "Sleep": { "seconds": 8 } },
            "configError": "no such key",
        }],
        "volumes": [
            { "name": "e", "source": { "EmptyDir": { "memory": true, "size_limit": 1 } } },
            { "name": "f", "source": { "Files": { "files": [{ "path": "p", "content": [1, 2], "mode": 384 }], "secret": true } } },
            { "name": "h", "source": { "HostPath": { "path": "/h", "kind": "Directory" } } },
        ],
        "pullSecrets": [{ "registry": "r", "username": "u", "password": "p", "identity_token": "t" }],
        "dns": { "servers": ["1.1.1.1"], "searches": ["s"], "options": ["ndots:5"] },
        "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["x"] }],
        "hostNetwork": true, "hostPid": true, "hostIpc": true, "shareProcessNamespace": true,
        "security": { "runAsUser": 3, "fsGroup": 4, "supplementalGroups": [5], "sysctls": { "k": "v" }, "seccomp": "RuntimeDefault" },
        "hostIp": "10.0.0.1", "activeDeadlineSeconds": 60,
    }))
    .unwrap();
    let wire = convert::pod(&pod);
    let text = format!("{wire:#?}");
    // What prost leaves at its default would be a forgotten field: only these are unset above.
    let unset: Vec<_> = text
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.contains("name: \"main\""))
        .filter(|line| {
            line.ends_with(": \"\",")
                || line.ends_with(": 0,")
                || line.ends_with(": false,")
                || line.ends_with(": None,")
        })
        .collect();
    assert_eq!(
        unset,
        [
            "field: \"\",",
            "value: \"\",",
            "value: \"\",",
            "sidecar: false,",
            "host: \"\",",
            "readiness: None,",
            "startup: None,",
            "run_as_group: None,",
            "run_as_non_root: None,",
            "localhost_profile: \"\",",
        ],
        "{text}"
    );
    let main = &wire.containers[0];
    assert_eq!(
        (wire.restart_policy.as_str(), main.pull_policy.as_str()),
        ("OnFailure", "Never")
    );
    assert_eq!(
        (main.env[1].field.as_str(), main.env[2].field.as_str()),
        ("status.podIP", "status.podIPs")
    );
    assert_eq!(main.termination_message_policy, "FallbackToLogsOnError");
    assert!(wire.init_containers[0].sidecar);
}

fn moments() -> impl Strategy<Value = Timestamp> {
    (-5_000_000_000_i64..5_000_000_000, 0_i32..1_000_000_000)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
}

fn words() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ä:/]{0,12}"
}

fn terminations() -> impl Strategy<Value = Termination> {
    (
        any::<i32>(),
        any::<i32>(),
        words(),
        words(),
        any::<Option<()>>(),
        moments(),
        words(),
    )
        .prop_map(
            |(exit_code, signal, reason, message, known, at, container_id)| Termination {
                exit_code,
                signal,
                reason,
                message,
                started_at: known.map(|()| at),
                finished_at: Some(at),
                container_id,
            },
        )
}

fn containers() -> impl Strategy<Value = ContainerReport> {
    let state = prop_oneof![
        (words(), words()).prop_map(|(reason, message)| ContainerState::Waiting { reason, message }),
        moments().prop_map(|started_at| ContainerState::Running { started_at }),
        terminations().prop_map(ContainerState::Terminated),
    ];
    (
        words(),
        words(),
        any::<u32>(),
        state,
        proptest::option::of(terminations()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(name, image, restart_count, state, last_state, ready, started)| ContainerReport {
                name,
                image_id: format!("{image}@sha256:0"),
                container_id: format!("containerd://{image}"),
                image,
                restart_count,
                state,
                last_state,
                ready,
                started,
            },
        )
}

fn reports() -> impl Strategy<Value = RuntimeReport> {
    let lists = || proptest::collection::vec(containers(), 0..3);
    let events = proptest::collection::vec((any::<u64>(), moments(), any::<bool>(), words()), 0..3);
    let ips = proptest::collection::vec(any::<std::net::IpAddr>(), 0..3);
    let marks = proptest::collection::vec(proptest::option::of(moments()), 5);
    let flags = any::<[bool; 3]>();
    (
        words(),
        any::<u64>(),
        lists(),
        lists(),
        events,
        ips,
        marks,
        flags,
        proptest::option::of("[a-z]{1,9}"),
        proptest::collection::vec((notice_kinds(), moments(), words()), 0..3),
    )
        .prop_map(
            |(
                text,
                generation,
                init_containers,
                containers,
                events,
                pod_ips,
                marks,
                flags,
                sandbox_error,
                notices,
            )| RuntimeReport {
                pod_uid: text.clone(),
                observed_generation: generation,
                boot_id: text.clone(),
                sandbox_ready: flags[0],
                pod_ips,
                init_containers,
                containers,
                stopping: flags[1],
                stop_reason: text.clone(),
                finished: flags[2],
                sandbox_error,
                marks: StartMarks {
                    agent_started_at: marks[0],
                    deployed_at: marks[1],
                    sandbox_ready_at: marks[2],
                    images_ready_at: marks[3],
                    running_at: marks[4],
                },
                events: events
                    .into_iter()
                    .map(|(id, at, warning, message)| AgentEvent {
                        id,
                        at,
                        warning,
                        reason: text.clone(),
                        message,
                        container: String::new(),
                    })
                    .collect(),
                notices: notices
                    .into_iter()
                    .map(|(kind, at, reason)| InstanceNotice { kind, at, reason })
                    .collect(),
            },
        )
}

fn notice_kinds() -> impl Strategy<Value = NoticeKind> {
    proptest::sample::select(&NoticeKind::ALL[..])
}

fn wire_termination(from: &Termination) -> v1::ContainerState {
    let ended = v1::Terminated {
        exit_code: from.exit_code,
        signal: from.signal,
        reason: from.reason.clone(),
        message: from.message.clone(),
        started_at: from.started_at.map(convert::timestamp),
        finished_at: from.finished_at.map(convert::timestamp),
        container_id: from.container_id.clone(),
    };
    v1::ContainerState {
        state: Some(v1::container_state::State::Terminated(ended)),
    }
}

fn wire_container(from: &ContainerReport) -> v1::ContainerStatus {
    use v1::container_state::State;

    let state = match &from.state {
        ContainerState::Waiting { reason, message } => v1::ContainerState {
            state: Some(State::Waiting(v1::Waiting {
                reason: reason.clone(),
                message: message.clone(),
            })),
        },
        ContainerState::Running { started_at } => v1::ContainerState {
            state: Some(State::Running(v1::Running {
                started_at: Some(convert::timestamp(*started_at)),
            })),
        },
        ContainerState::Terminated(ended) => wire_termination(ended),
    };
    v1::ContainerStatus {
        name: from.name.clone(),
        image: from.image.clone(),
        image_id: from.image_id.clone(),
        container_id: from.container_id.clone(),
        restart_count: from.restart_count,
        state: Some(state),
        last_state: from.last_state.as_ref().map(wire_termination),
        ready: from.ready,
        started: from.started,
    }
}

/// What an agent would send for this report.
fn wire(from: &RuntimeReport) -> v1::StatusSnapshot {
    let at = |moment: Option<Timestamp>| moment.map(convert::timestamp);
    v1::StatusSnapshot {
        pod_uid: from.pod_uid.clone(),
        observed_generation: from.observed_generation,
        boot_id: from.boot_id.clone(),
        sequence: 1,
        sandbox_ready: from.sandbox_ready,
        pod_ips: from.pod_ips.iter().map(ToString::to_string).collect(),
        init_containers: from.init_containers.iter().map(wire_container).collect(),
        containers: from.containers.iter().map(wire_container).collect(),
        sandbox_started_at: None,
        stopping: from.stopping,
        stop_reason: from.stop_reason.clone(),
        finished: from.finished,
        sandbox_error: from.sandbox_error.clone().unwrap_or_default(),
        marks: Some(v1::StartMarks {
            agent_started_at: at(from.marks.agent_started_at),
            deployed_at: at(from.marks.deployed_at),
            sandbox_ready_at: at(from.marks.sandbox_ready_at),
            images_ready_at: at(from.marks.images_ready_at),
            running_at: at(from.marks.running_at),
        }),
        events: from
            .events
            .iter()
            .map(|event| v1::AgentEvent {
                id: event.id,
                at: Some(convert::timestamp(event.at)),
                warning: event.warning,
                reason: event.reason.clone(),
                message: event.message.clone(),
                container: event.container.clone(),
            })
            .collect(),
        notices: from.notices.iter().map(wire_notice).collect(),
    }
}

fn wire_notice(from: &InstanceNotice) -> v1::InstanceNotice {
    let kind = match from.kind {
        NoticeKind::Interruption => v1::NoticeKind::Interruption,
        NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
        NoticeKind::LiveMaintenance => v1::NoticeKind::LiveMaintenance,
        NoticeKind::Rebalance => v1::NoticeKind::Rebalance,
    };
    v1::InstanceNotice {
        kind: kind.into(),
        at: Some(convert::timestamp(from.at)),
        reason: from.reason.clone(),
    }
}

/// A newer agent may tell what this controller cannot know yet; its report must count all the same.
#[test]
fn a_notice_of_an_unknown_kind_is_passed_over() {
    let unknown = v1::InstanceNotice {
        kind: 99,
        ..Default::default()
    };
    let snapshot = v1::StatusSnapshot {
        notices: vec![unknown],
        ..Default::default()
    };
    assert_eq!(convert::report(snapshot).unwrap().notices, []);
}

/// What an agent says ends in memory, in the Cell and in events: megabytes of it would stall the controller for all pods.
#[test]
fn an_agent_cannot_say_more_than_is_kept() {
    // Not a divisor of any bound, so that a cut in the middle of a character would show.
    let long = || "€".repeat(100_000);
    let at = || Some(convert::timestamp(Timestamp::UNIX_EPOCH));
    let ended = || v1::Terminated {
        reason: long(),
        message: long(),
        container_id: long(),
        ..Default::default()
    };
    let container = |state| v1::ContainerStatus {
        name: long(),
        image: long(),
        image_id: long(),
        container_id: long(),
        state: Some(v1::ContainerState { state: Some(state) }),
        last_state: Some(v1::ContainerState {
            state: Some(v1::container_state::State::Terminated(ended())),
        }),
        ..Default::default()
    };
    let waiting = v1::container_state::State::Waiting(v1::Waiting {
        reason: long(),
        message: long(),
    });
    let event = |id| v1::AgentEvent {
        id,
        at: at(),
        warning: false,
        reason: long(),
        message: long(),
        container: long(),
    };
    let notice = || v1::InstanceNotice {
        kind: v1::NoticeKind::Rebalance.into(),
        at: at(),
        reason: long(),
    };
    let snapshot = v1::StatusSnapshot {
        pod_uid: long(),
        boot_id: long(),
        stop_reason: long(),
        sandbox_error: long(),
        pod_ips: vec!["10.0.0.1".into(); 1000],
        init_containers: vec![container(waiting)],
        containers: vec![container(v1::container_state::State::Terminated(ended()))],
        events: (1..=100).map(event).collect(),
        notices: (0..100).map(|_| notice()).collect(),
        ..Default::default()
    };
    let report = convert::report(snapshot).unwrap();
    let kept = serde_json::to_string(&report).unwrap().len();
    assert!(kept < 512 * 1024, "{kept} bytes are kept");
    assert_eq!((report.notices.len(), report.pod_ips.len()), (16, 16));
    let longest = report.notices.iter().map(|notice| notice.reason.len()).max();
    assert_eq!(longest, Some(510), "512 bytes, less what is left of a character");
    let events: Vec<u64> = report.events.iter().map(|event| event.id).collect();
    assert_eq!(events, (37..=100).collect::<Vec<_>>(), "the newest count");
}

proptest! {
    /// A field that got lost would be a container that never shows as ready, or an exit code that is always 0.
    #[test]
    fn a_report_survives_the_wire(report in reports()) {
        prop_assert_eq!(convert::report(wire(&report)).unwrap(), report);
    }

    /// An agent that is broken, or is not ours, must not take the controller down.
    #[test]
    fn impossible_values_are_errors_that_name_the_field(ip in "[a-z]{0,5}", seconds in prop_oneof![Just(i64::MAX), Just(i64::MIN)]) {
        let snapshot = v1::StatusSnapshot { pod_ips: vec![ip], ..Default::default() };
        prop_assert!(convert::report(snapshot).unwrap_err().to_string().contains("pod_ips"));
        let marks = v1::StartMarks { running_at: Some(prost_types::Timestamp { seconds, nanos: 0 }), ..Default::default() };
        let snapshot = v1::StatusSnapshot { marks: Some(marks), ..Default::default() };
        prop_assert!(convert::report(snapshot).unwrap_err().to_string().contains("running_at"));
    }
}

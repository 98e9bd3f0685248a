//! Small pods and runs for the tables of the decision tests.

use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::{Container, Pod};

use super::model::{Exit, Observed, Phase, Run, Sandbox};

/// A moment, in seconds of a made-up day.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

/// A container that needs nothing but its image.
pub(crate) fn container(name: &str) -> Container {
    Container {
        name: name.into(),
        image: "busybox".into(),
        pull_policy: "IfNotPresent".into(),
        ..Default::default()
    }
}

/// A pod of these main containers.
pub(crate) fn pod(policy: &str, names: &[&str]) -> Pod {
    Pod {
        uid: "uid".into(),
        namespace: "ns".into(),
        name: "pod".into(),
        generation: 1,
        restart_policy: policy.into(),
        termination_grace_seconds: 30,
        containers: names.iter().map(|name| container(name)).collect(),
        ..Default::default()
    }
}

/// A run in sandbox `s0`.
pub(crate) fn run(name: &str, attempt: u32, phase: Phase) -> Run {
    Run {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        sandbox_id: "s0".into(),
        phase,
        image: "docker.io/library/busybox:latest".into(),
        image_ref: "sha256:1".into(),
        wanted_image: "busybox".into(),
        backoff: Duration::ZERO,
        log_path: String::new(),
    }
}

/// A run that ended.
pub(crate) fn exited(
    name: &str,
    attempt: u32,
    code: i32,
    started_at: Timestamp,
    finished_at: Timestamp,
) -> Run {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let exit = Exit {
        code,
        reason: reason.into(),
        message: String::new(),
        started_at,
        finished_at,
    };
    run(name, attempt, Phase::Exited(exit))
}

/// A run that goes on.
pub(crate) fn running(name: &str, attempt: u32) -> Run {
    run(name, attempt, Phase::Running { started_at: at(0) })
}

/// A ready sandbox `s0` with these runs.
pub(crate) fn seen(runs: Vec<Run>) -> Observed {
    let sandbox = Sandbox {
        id: "s0".into(),
        attempt: 0,
        ready: true,
        created_at: at(0),
        ips: vec!["10.0.0.2".into()],
    };
    Observed {
        sandboxes: [(sandbox.id.clone(), sandbox)].into(),
        runs: runs.into_iter().map(|run| (run.id.clone(), run)).collect(),
    }
}

use std::time::Duration;

use super::*;
use crate::pod::fixtures::{at, container, exited, pod, running, seen};

fn only(pod: &Pod, observed: &Observed, mem: &Memory, second: i64) -> ContainerStatus {
    let view = View {
        pod,
        seen: observed,
        mem,
        stopping: false,
        now: at(second),
    };
    main_statuses(view).remove(0)
}

fn reason(status: &ContainerStatus) -> (String, String) {
    match status.state.clone().and_then(|state| state.state) {
        Some(State::Waiting(waiting)) => (waiting.reason, waiting.message),
        Some(State::Running(_)) => ("Running".into(), String::new()),
        Some(State::Terminated(terminated)) => (terminated.reason, terminated.message),
        None => (String::new(), String::new()),
    }
}

fn failed(reason: &str, message: &str) -> Failure {
    Failure {
        reason: reason.into(),
        message: message.into(),
        at: at(0),
        backoff: Duration::from_secs(10),
    }
}

/// People and tools read these words; each must be the kubelet's.
#[test]
fn waiting_reasons() {
    let pod_a = pod("Always", &["a"]);
    let mut mem = Memory::default();
    assert_eq!(
        reason(&only(&pod_a, &seen(vec![]), &mem, 0)).0,
        "ContainerCreating"
    );
    mem.images
        .insert("a".into(), ImageState::Failed(failed("ErrImagePull", "no route")));
    assert_eq!(
        reason(&only(&pod_a, &seen(vec![]), &mem, 0)),
        ("ErrImagePull".into(), "no route".into())
    );
    let backing_off = (
        "ImagePullBackOff".into(),
        "Back-off pulling image \"busybox\": ErrImagePull: no route".into(),
    );
    assert_eq!(reason(&only(&pod_a, &seen(vec![]), &mem, 3)), backing_off);
    mem.images
        .insert("a".into(), ImageState::Failed(failed("InvalidImageName", "x")));
    assert_eq!(
        reason(&only(&pod_a, &seen(vec![]), &mem, 3)).0,
        "InvalidImageName"
    );
    mem.images.clear();
    mem.failures
        .insert("a".into(), failed("CreateContainerError", "y"));
    assert_eq!(
        reason(&only(&pod_a, &seen(vec![]), &mem, 3)),
        ("CreateContainerError".into(), "y".into())
    );
    let mut with_init = pod("Always", &["a"]);
    with_init.init_containers = vec![container("i")];
    assert_eq!(
        reason(&only(&with_init, &seen(vec![]), &Memory::default(), 0)).0,
        "PodInitializing"
    );
}

#[test]
fn crash_loop() {
    let pod_a = pod("Always", &["a"]);
    let mut second = exited("a", 1, 9, at(2), at(3));
    second.backoff = Duration::from_secs(10);
    let observed = seen(vec![exited("a", 0, 1, at(0), at(1)), second]);
    let status = only(&pod_a, &observed, &Memory::default(), 5);
    let message = "back-off 10s restarting failed container=a pod=pod_ns(uid)";
    assert_eq!(reason(&status), ("CrashLoopBackOff".into(), message.into()));
    assert_eq!(status.restart_count, 1);
    let Some(State::Terminated(last)) = status.last_state.and_then(|state| state.state) else {
        panic!("no last state")
    };
    assert_eq!(
        (last.exit_code, last.container_id.as_str()),
        (9, "containerd://a-1")
    );
    let stopping = View {
        pod: &pod_a,
        seen: &observed,
        mem: &Memory::default(),
        stopping: true,
        now: at(5),
    };
    assert_eq!(
        reason(&main_statuses(stopping)[0]).0,
        "Error",
        "what is stopped does not wait for a restart"
    );
}

#[test]
fn ended_for_good_keeps_its_state() {
    let status = only(
        &pod("Never", &["a"]),
        &seen(vec![exited("a", 0, 0, at(0), at(1))]),
        &Memory::default(),
        5,
    );
    assert_eq!(
        (reason(&status).0.as_str(), status.last_state),
        ("Completed", None)
    );
}

#[test]
fn ready_needs_started() {
    let pod_a = pod("Always", &["a"]);
    let observed = seen(vec![running("a", 0)]);
    let mut mem = Memory::default();
    mem.ready.insert("a-0".into());
    let flags = |mem: &Memory| {
        let status = only(&pod_a, &observed, mem, 0);
        (status.started, status.ready)
    };
    assert_eq!(flags(&mem), (false, false));
    mem.started.insert("a-0".into());
    assert_eq!(flags(&mem), (true, true));
}

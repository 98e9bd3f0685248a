//! The agent against a real containerd: what a user sees of a pod.

mod support;

use std::time::{Duration, Instant};

use kip_cell_api::v1::container_state::State;
use kip_cell_api::v1::volume::Source;
use kip_cell_api::v1::{
    DeployPodRequest, EmptyDir, EnvVar, ExecAction, ExecStream, File, Files, GetInfoRequest, Handler,
    HostAlias, Pod, PrepareStreamRequest, Probe, ReadLogsRequest, Resources, StatsRequest, StatusSnapshot,
    StopPodRequest, TunnelFrame, UpdatePodRequest, Volume, VolumeMount, handler, prepare_stream_request,
};
use support::{BUSYBOX, Cell, Certs, ended, pod, shell, state, waiting};

fn logs_of(pod: &Pod, container: &str) -> ReadLogsRequest {
    ReadLogsRequest {
        pod_uid: pod.uid.clone(),
        container: container.into(),
        ..Default::default()
    }
}

fn exec(command: &str) -> Handler {
    let command = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    Handler {
        action: Some(handler::Action::Exec(ExecAction { command })),
    }
}

fn has_event(status: &StatusSnapshot, reason: &str, text: &str) -> bool {
    status
        .events
        .iter()
        .any(|event| event.reason == reason && event.message.contains(text))
}

/// The slice everything else builds on: a batch pod runs, its output and exit code can be read, nothing restarts it.
#[tokio::test]
async fn batch_pod_completes() {
    let cell = Cell::start().await;
    let pod = pod(
        "Never",
        &[("main", "echo hello; echo told > /dev/termination-log; exit 3")],
    );
    cell.deploy(&pod).await;
    let status = cell.wait("the pod has ended", |status| status.finished).await;
    assert_eq!(
        ended(&status.containers[0]),
        Some((3, "Error".into())),
        "{status:#?}"
    );
    let Some(State::Terminated(end)) = state(&status.containers[0]) else {
        panic!("{status:#?}")
    };
    assert_eq!(end.message, "told\n");
    assert!(!status.pod_ips.is_empty(), "{status:#?}");
    assert_eq!(cell.logs(logs_of(&pod, "main")).await.expect("logs"), "hello\n");
    let info = cell
        .client()
        .get_info(GetInfoRequest {})
        .await
        .expect("info")
        .into_inner();
    assert_eq!(
        (info.runtime_name.as_str(), info.pod_uid.as_str()),
        ("containerd", pod.uid.as_str())
    );
    let marks = status.marks.expect("marks");
    assert!(
        marks.running_at.is_some() && marks.images_ready_at.is_some() && marks.sandbox_ready_at.is_some()
    );
    let mut other = pod.clone();
    other.uid = "other".into();
    let refused = cell
        .client()
        .deploy_pod(DeployPodRequest { pod: Some(other) })
        .await
        .expect_err("second pod");
    assert_eq!(
        refused.code(),
        tonic::Code::FailedPrecondition,
        "a cell is never used twice: {refused}"
    );
}

/// Init containers run in order, a sidecar goes on beside the main container and ends after it.
#[tokio::test]
async fn init_and_sidecar_order() {
    let cell = Cell::start().await;
    let mut pod = pod(
        "Never",
        &[("main", "cat /data/a; cat /data/b; cat /data/side; sleep 0.3")],
    );
    let mount = VolumeMount {
        volume: "v".into(),
        mount_path: "/data".into(),
        ..Default::default()
    };
    let mut first = shell("first", "echo one > /data/a");
    let mut side = shell(
        "side",
        "trap 'exit 0' TERM; echo side > /data/side; while :; do sleep 0.1; done",
    );
    side.sidecar = true;
    side.startup = Some(Probe {
        handler: Some(exec("test -e /data/side")),
        period_seconds: 1,
        failure_threshold: 30,
        ..Default::default()
    });
    let mut second = shell(
        "second",
        "test -e /data/side && test -e /data/a && echo two > /data/b",
    );
    for container in [&mut first, &mut side, &mut second] {
        container.mounts.push(mount.clone());
    }
    pod.containers[0].mounts.push(mount);
    pod.init_containers = vec![first, side, second];
    pod.volumes = vec![Volume {
        name: "v".into(),
        source: Some(Source::EmptyDir(EmptyDir::default())),
    }];
    cell.deploy(&pod).await;
    let status = cell.wait("the pod has ended", |status| status.finished).await;
    assert_eq!(
        ended(&status.containers[0]),
        Some((0, "Completed".into())),
        "{status:#?}"
    );
    let inits: Vec<_> = status
        .init_containers
        .iter()
        .map(|c| ended(c).map(|(code, _)| code))
        .collect();
    assert_eq!(inits, [Some(0), Some(0), Some(0)], "{status:#?}");
    assert_eq!(
        cell.logs(logs_of(&pod, "main")).await.expect("logs"),
        "one\ntwo\nside\n"
    );
}

/// Environment, files with secrets, sub-paths, hosts file, resources: what the pod asked for is what the program sees.
#[tokio::test]
async fn environment_volumes_and_limits() {
    let cell = Cell::start().await;
    let script = "echo $POD_IP $A; hostname; cat /cfg/key /one; stat -c %a /cfg/..data/key; grep -c alias /etc/hosts; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                  touch /ro 2>/dev/null && echo writable; id -u; grep CapEff /proc/self/status; while :; do sleep 0.1; done";
    let mut pod = pod("Always", &[("main", script)]);
    pod.hostname = "web-0".into();
    pod.host_aliases = vec![HostAlias {
        ip: "10.9.9.9".into(),
        hostnames: vec!["alias".into()],
    }];
    let file = File {
        path: "key".into(),
        content: b"secret\n".to_vec(),
        mode: 0o440,
    };
    let files = Files {
        files: vec![file],
        secret: true,
    };
    pod.volumes = vec![Volume {
        name: "cfg".into(),
        source: Some(Source::Files(files)),
    }];
    let main = &mut pod.containers[0];
    let variable = |name: &str, value: &str, field: &str| EnvVar {
        name: name.into(),
        value: value.into(),
        field: field.into(),
    };
    main.env = vec![variable("POD_IP", "", "status.podIP"), variable("A", "b c", "")];
    let mount = |path: &str, sub: &str| VolumeMount {
        volume: "cfg".into(),
        mount_path: path.into(),
        sub_path: sub.into(),
        read_only: true,
        ..Default::default()
    };
    main.mounts = vec![mount("/cfg", ""), mount("/one", "key")];
    main.resources = Some(Resources {
        memory_limit_bytes: 64 << 20,
        cpu_limit_millis: 500,
        ..Default::default()
    });
    main.security = Some(kip_cell_api::v1::ContainerSecurity {
        read_only_root_filesystem: true,
        drop_capabilities: vec!["ALL".into()],
        ..Default::default()
    });
    cell.deploy(&pod).await;
    let status = cell.wait_running().await;
    let mut said = String::new();
    for _ in 0..500 {
        said = cell.logs(logs_of(&pod, "main")).await.expect("logs");
        if said.contains("CapEff") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for part in [
        format!("{} b c\nweb-0\nsecret\nsecret\n440\n1\n", status.pod_ips[0]).as_str(),
        "67108864\n",
        "\n0\n",
        "CapEff:\t0000000000000000",
    ] {
        assert!(
            said.contains(part),
            "{part:?} not in {said:?}\n{}",
            cell.agent_log()
        );
    }
    assert!(!said.contains("writable"), "{said}");
    // An update reaches the running program, atomically, without a restart.
    let mut updated = pod.clone();
    updated.generation = 2;
    let Some(Source::Files(files)) = &mut updated.volumes[0].source else {
        unreachable!("as made")
    };
    files.files[0].content = b"changed\n".to_vec();
    cell.client()
        .update_pod(UpdatePodRequest {
            pod: Some(updated.clone()),
        })
        .await
        .expect("update");
    cell.wait("the update is taken", |status| status.observed_generation == 2)
        .await;
    let id = status.containers[0]
        .container_id
        .rsplit('/')
        .next()
        .expect("id")
        .to_owned();
    let read = [
        "ctr",
        "-a",
        &cell.config.runtime_socket,
        "-n",
        "k8s.io",
        "tasks",
        "exec",
        "--exec-id",
    ];
    let mut content = String::new();
    for attempt in 0..200 {
        let out = cell
            .enter_all(&read)
            .args([&format!("x{attempt}"), &id, "cat", "/cfg/key"])
            .output()
            .expect("ctr");
        content = String::from_utf8_lossy(&out.stdout).into_owned();
        if content == "changed\n" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(content, "changed\n");
    let sample = cell
        .client()
        .stats(StatsRequest {
            pod_uid: pod.uid.clone(),
            interval_seconds: 0,
        })
        .await;
    let sample = sample
        .expect("stats")
        .into_inner()
        .message()
        .await
        .expect("sample")
        .expect("one");
    assert!(sample.containers[0].memory_usage_bytes > 0, "{sample:?}");
    let stopped = cell.stop(&pod, 0).await;
    assert_eq!(
        ended(&stopped.containers[0]).map(|(code, _)| code),
        Some(137),
        "{stopped:#?}"
    );
    let mounts = cell
        .enter(&["cat", "/proc/self/mountinfo"])
        .output()
        .expect("cat")
        .stdout;
    let mounts = String::from_utf8_lossy(&mounts).into_owned();
    assert!(!mounts.contains("/agent/pods/"), "mounts are left: {mounts}");
}

/// A container that crashes is restarted as a kubelet would: at once, then after 10 s, with all of it in the status.
#[tokio::test]
async fn crash_loop_backs_off() {
    let cell = Cell::start().await;
    let pod = pod("Always", &[("main", "echo run; exit 1"), ("bad", "true")]);
    let mut pod = pod;
    pod.containers[1].command = vec!["/no/such/command".into()];
    cell.deploy(&pod).await;
    let status = cell
        .wait("both back off", |status| {
            let c = &status.containers;
            !c.is_empty() && waiting(&c[0]) == "CrashLoopBackOff" && waiting(&c[1]) == "RunContainerError"
        })
        .await;
    let crashed = &status.containers[0];
    assert_eq!(crashed.restart_count, 1, "{status:#?}");
    let last = |index: usize| match status.containers[index]
        .last_state
        .clone()
        .and_then(|state| state.state)
    {
        Some(State::Terminated(end)) => (end.exit_code, end.reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(last(0), (1, "Error".into()));
    assert_eq!(last(1), (128, "StartError".into()));
    assert!(
        has_event(&status, "BackOff", "Back-off restarting failed container main"),
        "{status:#?}"
    );
    let mut previous = logs_of(&pod, "main");
    previous.previous = true;
    assert_eq!(cell.logs(previous).await.expect("previous"), "run\n");
    cell.stop(&pod, 1).await;
}

/// A wrong image name must not cost the cell: the pod waits, says why, and comes up when the name is corrected.
#[tokio::test]
async fn wrong_images_wait_and_recover() {
    let cell = Cell::start().await;
    let mut pod = pod(
        "Always",
        &[
            ("gone", "sleep 99"),
            ("never", "sleep 99"),
            ("invalid", "sleep 99"),
            ("config", "sleep 99"),
        ],
    );
    pod.containers[0].image = "127.0.0.1:1/no/such:image".into();
    pod.containers[1].image = "docker.io/library/absent:1".into();
    pod.containers[1].pull_policy = "Never".into();
    pod.containers[2].image = "UPPER".into();
    pod.containers[3].config_error = "configmap \"x\" not found".into();
    cell.deploy(&pod).await;
    let seen = |status: &StatusSnapshot, first: &str| {
        let reasons: Vec<_> = status.containers.iter().map(waiting).collect();
        reasons
            == [
                first,
                "ErrImageNeverPull",
                "InvalidImageName",
                "CreateContainerConfigError",
            ]
    };
    cell.wait("the pull fails", |status| seen(status, "ErrImagePull"))
        .await;
    let status = cell
        .wait("the pull backs off", |status| seen(status, "ImagePullBackOff"))
        .await;
    assert!(!status.finished);
    assert!(
        has_event(&status, "Failed", "Failed to pull image"),
        "{status:#?}"
    );
    for container in &mut pod.containers {
        container.image = BUSYBOX.into();
        container.config_error.clear();
    }
    pod.generation = 2;
    cell.client()
        .update_pod(UpdatePodRequest {
            pod: Some(pod.clone()),
        })
        .await
        .expect("update");
    cell.wait_running().await;
    cell.stop(&pod, 0).await;
}

/// `kill -9` of the agent touches no container, and the new one reports the same within two seconds.
#[tokio::test]
async fn killed_agent_goes_on() {
    let mut cell = Cell::start().await;
    let mut pod = pod(
        "Always",
        &[
            ("main", "while :; do echo tick; sleep 0.05; done"),
            ("once", "test -e /data/x && sleep 999; touch /data/x; exit 7"),
        ],
    );
    pod.volumes = vec![Volume {
        name: "v".into(),
        source: Some(Source::EmptyDir(EmptyDir::default())),
    }];
    let mount = VolumeMount {
        volume: "v".into(),
        mount_path: "/data".into(),
        ..Default::default()
    };
    pod.containers[1].mounts.push(mount);
    pod.containers[0].readiness = Some(Probe {
        handler: Some(exec("true")),
        period_seconds: 1,
        ..Default::default()
    });
    cell.deploy(&pod).await;
    let settled = |status: &StatusSnapshot| {
        status.containers.len() == 2
            && status.containers[0].ready
            && status.containers[1].restart_count == 1
            && status.containers[1].ready
    };
    let before = cell.wait("one restarted, both are ready", settled).await;
    cell.kill_agent();
    let began = Instant::now();
    cell.start_agent();
    let after = cell
        .wait("the new agent reports", |status| status.observed_generation == 1)
        .await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(after.containers, before.containers);
    assert_eq!(
        (after.pod_ips, after.boot_id, after.sandbox_started_at),
        (before.pod_ips, before.boot_id, before.sandbox_started_at)
    );
    cell.stop(&pod, 0).await;
}

/// `kill -9` of the agent at any moment of a deploy and of a stop leaves what the next one goes on from: the pod runs once,
/// and once it was told to stop it never runs again, whoever deploys it.
#[tokio::test]
async fn agent_killed_at_any_moment_of_deploy_and_stop() {
    for delay in [0, 20, 50, 100, 200].map(Duration::from_millis) {
        let mut cell = Cell::start().await;
        let pod = pod(
            "Always",
            &[(
                "main",
                "trap 'exit 0' TERM; echo started; while :; do sleep 0.1; done",
            )],
        );
        cell.deploy(&pod).await;
        tokio::time::sleep(delay).await;
        cell.kill_agent();
        cell.start_agent();
        // A controller that got no answer asks again.
        cell.deploy(&pod).await;
        let status = cell.wait_running().await;
        assert_eq!(status.containers[0].restart_count, 0, "{delay:?}: {status:#?}");
        assert_eq!(
            cell.logs(logs_of(&pod, "main")).await.expect("logs"),
            "started\n",
            "{delay:?}: it was started twice"
        );
        assert_eq!(cell.tasks().len(), 2, "{delay:?}: one container and its sandbox");

        let request = StopPodRequest {
            pod_uid: pod.uid.clone(),
            grace_seconds: 5,
            reason: "Deleted".into(),
        };
        cell.client().stop_pod(request).await.expect("stop");
        tokio::time::sleep(delay).await;
        cell.kill_agent();
        cell.start_agent();
        cell.wait("the pod has ended", |status| status.stopping && status.finished)
            .await;
        for _ in 0..2 {
            let refused = cell.try_deploy(&pod).await.expect_err("a deploy after the stop");
            assert_eq!(
                refused.code(),
                tonic::Code::FailedPrecondition,
                "{delay:?}: {refused}"
            );
            cell.kill_agent();
            cell.start_agent();
            cell.wait("it is known to have ended", |status| status.finished)
                .await;
        }
        assert!(cell.tasks().is_empty(), "{delay:?}: it runs again");
    }
}

/// An agent killed while the runtime starts a container: a pod that is never restarted must not fail by it.
#[tokio::test]
async fn agent_killed_in_the_middle_of_a_start() {
    for _ in 0..3 {
        let mut cell = Cell::start().await;
        let pod = pod("Never", &[("main", "echo started; sleep 1")]);
        cell.deploy(&pod).await;
        cell.wait("the container is being started", |status| {
            has_event(status, "Created", "main")
        })
        .await;
        cell.kill_agent();
        cell.start_agent();
        let status = cell.wait("the pod has ended", |status| status.finished).await;
        assert_eq!(
            ended(&status.containers[0]),
            Some((0, "Completed".into())),
            "{status:#?}"
        );
        assert_eq!(cell.logs(logs_of(&pod, "main")).await.expect("logs"), "started\n");
    }
}

/// containerd may be killed and come back: containers go on, and what ended meanwhile is noticed.
#[tokio::test]
async fn killed_containerd_is_survived() {
    let mut cell = Cell::start().await;
    let pod = pod("Always", &[("main", "sleep 9999")]);
    cell.deploy(&pod).await;
    let before = cell.wait_running().await;
    cell.kill_containerd();
    cell.wait("the agent says so", |status| {
        status.sandbox_error.contains("container runtime")
    })
    .await;
    cell.restart_containerd();
    let after = cell
        .wait("it is well again", |status| status.sandbox_error.is_empty())
        .await;
    assert_eq!(after.containers, before.containers);
    cell.stop(&pod, 0).await;
}

/// A stop runs the pre-stop hook and gives the program its time; a later, shorter one cuts that short.
#[tokio::test]
async fn graceful_stop_can_be_shortened() {
    let cell = Cell::start().await;
    let mut pod = pod(
        "Always",
        &[
            (
                "polite",
                "trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done",
            ),
            ("stubborn", "trap '' TERM; while :; do sleep 0.1; done"),
        ],
    );
    pod.containers[0].pre_stop = Some(exec("echo hook > /proc/1/fd/1"));
    cell.deploy(&pod).await;
    cell.wait_running().await;
    let request = |grace_seconds| StopPodRequest {
        pod_uid: pod.uid.clone(),
        grace_seconds,
        reason: "Deleted".into(),
    };
    let began = Instant::now();
    cell.client().stop_pod(request(600)).await.expect("stop");
    let status = cell
        .wait("the polite one ended", |status| {
            ended(&status.containers[0]).is_some()
        })
        .await;
    assert_eq!(
        ended(&status.containers[0]).map(|(code, _)| code),
        Some(5),
        "{status:#?}"
    );
    assert!(status.stopping && !status.finished);
    cell.client().stop_pod(request(1)).await.expect("stop");
    let status = cell.wait("the pod has ended", |status| status.finished).await;
    assert_eq!(
        ended(&status.containers[1]).map(|(code, _)| code),
        Some(137),
        "{status:#?}"
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(
        cell.logs(logs_of(&pod, "polite")).await.expect("logs"),
        "hook\nbye\n"
    );
}

/// A program killed for memory is reported as that.
#[tokio::test]
async fn out_of_memory_is_told() {
    let cell = Cell::start().await;
    let mut pod = pod("Never", &[("main", "x=a; while :; do x=$x$x; done")]);
    pod.containers[0].resources = Some(Resources {
        memory_limit_bytes: 16 << 20,
        ..Default::default()
    });
    cell.deploy(&pod).await;
    let status = cell.wait("the pod has ended", |status| status.finished).await;
    assert_eq!(
        ended(&status.containers[0]),
        Some((137, "OOMKilled".into())),
        "{status:#?}"
    );
}

/// A failing liveness probe restarts the container, a failing post-start hook too; both say so.
#[tokio::test]
async fn probes_and_hooks_restart() {
    let cell = Cell::start().await;
    let mut pod = pod(
        "Always",
        &[("main", "while :; do sleep 0.1; done"), ("hook", "sleep 9999")],
    );
    pod.termination_grace_seconds = 0;
    pod.containers[0].liveness = Some(Probe {
        handler: Some(exec("echo ill; false")),
        period_seconds: 1,
        failure_threshold: 1,
        ..Default::default()
    });
    pod.containers[1].post_start = Some(exec("false"));
    cell.deploy(&pod).await;
    let status = cell
        .wait("both restarted", |s| {
            s.containers.iter().all(|c| c.restart_count > 0) && !s.containers.is_empty()
        })
        .await;
    assert!(
        has_event(&status, "Unhealthy", "Liveness probe failed: ill"),
        "{status:#?}"
    );
    assert!(has_event(&status, "FailedPostStartHook", ""), "{status:#?}");
    cell.stop(&pod, 0).await;
}

/// `kubectl exec` is this path: a streaming session prepared, its HTTP upgrade relayed byte for byte.
#[tokio::test]
async fn exec_through_the_tunnel() {
    let cell = Cell::start().await;
    let pod = pod("Always", &[("main", "sleep 9999")]);
    cell.deploy(&pod).await;
    cell.wait_running().await;
    let exec = ExecStream {
        container: "main".into(),
        command: vec!["echo".into(), "through".into()],
        stdout: true,
        ..Default::default()
    };
    let kind = Some(prepare_stream_request::Kind::Exec(exec));
    let request = PrepareStreamRequest {
        pod_uid: pod.uid.clone(),
        kind,
    };
    let path = cell
        .client()
        .prepare_stream(request)
        .await
        .expect("prepare")
        .into_inner()
        .path;
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    let frames = [
        TunnelFrame::default(),
        TunnelFrame {
            data: upgrade.into_bytes(),
        },
    ];
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    for frame in frames {
        sender.send(frame).await.expect("send");
    }
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut incoming = cell.client().tunnel(outgoing).await.expect("tunnel").into_inner();
    let mut got = Vec::new();
    while let Ok(Some(frame)) = incoming.message().await {
        got.extend(frame.data);
        if String::from_utf8_lossy(&got).contains("\"status\":\"Success\"") {
            break;
        }
    }
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(got.starts_with("HTTP/1.1 101 "), "{got}");
    assert!(got.contains("through\n"), "{got}");
    drop(sender);
    cell.stop(&pod, 0).await;
}

/// `kubectl logs -f` shows what comes, survives the log's rotation, and ends with the container.
#[tokio::test]
async fn follow_ends_with_the_container() {
    let cell = Cell::start().await;
    let pod = pod(
        "Never",
        &[("main", "for i in 1 2 3 4 5 6; do echo line$i; sleep 0.2; done")],
    );
    cell.deploy(&pod).await;
    let status = cell
        .wait("it has started", |s| {
            s.containers.iter().any(|c| !c.container_id.is_empty())
        })
        .await;
    assert!(!status.finished);
    let mut follow = logs_of(&pod, "main");
    follow.follow = true;
    let all = tokio::time::timeout(support::PATIENCE, cell.logs(follow))
        .await
        .expect("ends")
        .expect("logs");
    assert_eq!(all, "line1\nline2\nline3\nline4\nline5\nline6\n");
    let mut tail = logs_of(&pod, "main");
    tail.tail_lines = Some(2);
    tail.timestamps = true;
    let tail = cell.logs(tail).await.expect("logs");
    assert_eq!(tail.lines().count(), 2);
    assert!(tail.lines().all(|line| line.contains("Z line")), "{tail}");
    let missing = cell
        .logs(logs_of(&pod, "nobody"))
        .await
        .expect_err("no such container");
    assert_eq!(missing.code(), tonic::Code::NotFound);
}

/// Nobody without a certificate of the cell's own authority is let in, nor with an older TLS; bad pods name the field.
#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let cell = Cell::start().await;
    cell.wait("the agent answers", |_| true).await;
    let stranger = cell.certs.client_as(&cell.config.listen, &Certs::new(), false);
    assert!(
        stranger.clone().get_info(GetInfoRequest {}).await.is_err(),
        "another authority's certificate was taken"
    );
    let old = cell.certs.client_as(&cell.config.listen, &cell.certs, true);
    assert!(
        old.clone().get_info(GetInfoRequest {}).await.is_err(),
        "TLS 1.2 was taken"
    );
    let mut bad = pod("Always", &[("main", "true")]);
    bad.containers[0].mounts = vec![VolumeMount {
        volume: "no".into(),
        mount_path: "x".into(),
        ..Default::default()
    }];
    let refused = cell
        .client()
        .deploy_pod(DeployPodRequest { pod: Some(bad) })
        .await
        .expect_err("bad pod");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(
        refused.message().contains("containers[0].mounts[0].mount_path"),
        "{refused}"
    );
    let gone = UpdatePodRequest {
        pod: Some(pod("Always", &[("main", "true")])),
    };
    assert_eq!(
        cell.client().update_pod(gone).await.expect_err("no pod").code(),
        tonic::Code::NotFound
    );
}

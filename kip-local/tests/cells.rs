//! Real pods on real cells: the cloud, the agent and the controller's side together. Needs root and what `LocalCloud::check` lists.

mod support;

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use kip_core::model::ContainerState;
use kip_core::provider::CloudProvider as _;
use kip_core::runtime::{PodRuntime as _, StreamKind};
use support::{Bench, Place, wait};

/// What every user does with a pod. If it fails, Kip runs nothing.
#[tokio::test]
async fn a_pod_runs_logs_executes_stops_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let bench = Bench::new(&place).await?;
    let mut cell = bench
        .run(
            "hello",
            "echo hello from $(cat /etc/hostname); trap 'exit 3' TERM; sleep 1000 & wait",
        )
        .await?;
    assert_eq!(bench.runtime.connections(), 1);
    assert_eq!(bench.first_line(&cell).await?, "hello from hello");

    let pod = cell.manifest.pod.uid.clone();
    let kind = StreamKind::Exec {
        container: "main".into(),
        command: vec!["echo".into(), "hi".into()],
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = bench.runtime.open(&cell.endpoint, &pod, kind).await?;
    let ask = format!(
        "POST {} HTTP/1.1\r\nHost: cell\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
        session.path
    );
    session.io.to_host.send(ask.into_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        answer.extend(
            session
                .io
                .from_host
                .next()
                .await
                .expect("an answer before the end")?,
        );
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 101 Switching Protocols"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    drop(session);

    let stats = bench.runtime.stats(&cell.endpoint, &pod).await?;
    assert!(
        stats
            .containers
            .iter()
            .any(|one| one.name == "main" && one.memory_usage_bytes > 0),
        "{stats:?}"
    );

    bench
        .runtime
        .stop(&cell.endpoint, &pod, Duration::from_secs(5), "Deleted")
        .await?;
    let last = wait(&mut cell.reports, "the pod stops", |report| report.finished).await?;
    let ContainerState::Terminated(end) = &last.containers[0].state else {
        panic!("{last:?}");
    };
    assert_eq!(end.exit_code, 3, "the container was not asked to stop: {end:?}");
    bench.cloud.terminate(&cell.instance.id).await?;
    drop(cell);
    assert_eq!(
        bench.runtime.connections(),
        0,
        "connections of ended cells would pile up"
    );
    place.nothing_left().await
}

/// The start of a pod is what users feel: launch call to running, one by one and ten at once.
#[tokio::test(flavor = "multi_thread")]
async fn pods_start_fast_alone_and_together() -> Result<()> {
    let place = Place::new()?;
    let bench = Bench::new(&place).await?;
    let mut alone = Vec::new();
    for i in 0..5 {
        let cell = bench.run(&format!("alone{i}"), "sleep 1000").await?;
        alone.push(cell.took);
        bench.cloud.terminate(&cell.instance.id).await?;
    }
    alone.sort_unstable();
    let started = std::time::Instant::now();
    let names: Vec<String> = (0..10).map(|i| format!("ten{i}")).collect();
    let cells = futures::future::try_join_all(names.iter().map(|name| bench.run(name, "sleep 1000"))).await?;
    let together = started.elapsed();
    eprintln!("alone {alone:?}, ten together {together:?}");
    let started = std::time::Instant::now();
    futures::future::try_join_all(cells.iter().map(|cell| bench.cloud.terminate(&cell.instance.id))).await?;
    eprintln!("ten terminated in {:?}", started.elapsed());
    // Wide, for a busy machine and a debug build; the benchmark holds the real budget.
    assert!(alone[2] < Duration::from_secs(3), "{alone:?}");
    assert!(together < Duration::from_secs(20), "{together:?}");
    place.nothing_left().await
}

/// Pods talk to each other, and the machine talks to pods, by the pods' own addresses.
#[tokio::test]
async fn pods_of_different_cells_reach_each_other_and_keep_running_when_their_keepers_are_killed()
-> Result<()> {
    let place = Place::new()?;
    let bench = Bench::new(&place).await?;
    let mut server = bench
        .run("server", "echo up; while :; do echo served | nc -l -p 8080; done")
        .await?;
    assert_eq!(bench.first_line(&server).await?, "up");
    let pod = server.instance.addresses.pod.expect("a pod address");
    let report = wait(&mut server.reports, "the pod's address", |report| {
        !report.pod_ips.is_empty()
    })
    .await?;
    assert_eq!(report.pod_ips, [pod]);
    let client = bench
        .run(
            "client",
            &format!("while ! nc {pod} 8080 </dev/null; do sleep 0.1; done; sleep 1000"),
        )
        .await?;
    assert_eq!(bench.first_line(&client).await?, "served");
    tokio::time::timeout(Duration::from_secs(10), async {
        while tokio::net::TcpStream::connect((pod, 8080)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;

    let id = &server.instance.id;
    let running = support::processes(id, "while :; do echo served");
    assert!(!running.is_empty());
    for program in ["containerd --config", "/kip/kip-cell"] {
        let first = support::processes(id, program);
        support::kill(first[0])?;
        support::until("it comes back", || {
            let now = support::processes(id, program);
            !now.is_empty() && now != first
        })
        .await?;
    }
    let mut reports = bench
        .runtime
        .watch(&server.endpoint, Duration::from_secs(15))
        .await?;
    let report = wait(&mut reports, "the container is still known", |report| {
        matches!(
            report.containers.first().map(|one| &one.state),
            Some(ContainerState::Running { .. })
        )
    })
    .await?;
    assert_eq!(
        report.containers[0].restart_count, 0,
        "the container was restarted: {report:?}"
    );
    assert_eq!(support::processes(id, "while :; do echo served"), running);
    bench.cloud.purge().await?;
    place.nothing_left().await
}

//! Logs, exec, attach, port-forward and watch, by the real kubectl.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::manifests::{STAY, script};
use super::world::{both, printed};
use super::{Case, World};
use crate::command::{cmd, outcome};
use crate::daemon::wait_until;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "streams: logs in all their forms",
        run: logs,
    },
    Case {
        name: "streams: logs follow a running program",
        run: follow,
    },
    Case {
        name: "streams: exec gives output, errors, exit code and takes input",
        run: exec,
    },
    Case {
        name: "streams: exec with a terminal",
        run: terminal,
    },
    Case {
        name: "streams: attach to a running program",
        run: attach,
    },
    Case {
        name: "streams: a web server is reached by port-forward",
        run: port_forward,
    },
    Case {
        name: "streams: kubectl cp both ways",
        run: copy,
    },
    Case {
        name: "watch: a pod's phases come once and in order",
        run: watch,
    },
];

fn logs(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let talk = "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    world.apply(&ns, &script("talker", talk))?;
    world.wait_ready(&ns, "talker")?;
    let read = |more: &[&str]| world.kubectl_ok(&[&["logs", "-n", &ns, "talker"], more].concat());
    wait_until("all lines to be there", Duration::from_secs(10), || {
        Ok((read(&[])?.lines().count() == 6).then_some(()))
    })?;
    let all = read(&[])?;
    // Each stream keeps its order; between the two there is none.
    ensure!(
        all.replace("oops\n", "") == "line 1\nline 2\nline 3\nline 4\nline 5\n" && all.contains("oops\n"),
        "all: {all:?}"
    );
    ensure!(
        read(&["--tail=2"])?.lines().count() == 2,
        "--tail=2 gave {:?}",
        read(&["--tail=2"])?
    );
    ensure!(
        read(&["--limit-bytes=8"])?.len() == 8,
        "--limit-bytes=8 gave {:?}",
        read(&["--limit-bytes=8"])?
    );
    let stamped = read(&["--timestamps", "--tail=1"])?;
    ensure!(
        stamped.starts_with("20") && stamped.contains('T') && stamped.contains('Z'),
        "no time in {stamped:?}"
    );
    ensure!(
        read(&["--since=1h"])?.lines().count() == 6,
        "--since=1h gave {:?}",
        read(&["--since=1h"])?
    );
    ensure!(
        read(&["--since-time=2099-01-01T00:00:00Z"])?.is_empty(),
        "the future has logs already"
    );
    let other = outcome(&mut world.kubectl(&["logs", "-n", &ns, "talker", "-c", "nobody"]))?;
    ensure!(
        !other.status.success() && both(&other).contains("nobody"),
        "a wrong container: {}",
        both(&other)
    );
    let before = outcome(&mut world.kubectl(&["logs", "-n", &ns, "talker", "--previous"]))?;
    ensure!(
        !before.status.success(),
        "a first life has no previous one, yet: {}",
        both(&before)
    );
    world.delete_pod(&ns, "talker")
}

fn follow(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(
        &ns,
        &script(
            "counter",
            "for i in 1 2 3 4 5 6; do echo tick $i; sleep 0.3; done; echo done",
        ),
    )?;
    world.wait_pod(&ns, "counter", "to have started", |pod| {
        pod["status"]["phase"] != "Pending"
    })?;
    // It ends by itself when the program does.
    let text = world.kubectl_ok(&["logs", "-f", "-n", &ns, "counter"])?;
    ensure!(
        text == "tick 1\ntick 2\ntick 3\ntick 4\ntick 5\ntick 6\ndone\n",
        "followed: {text:?}"
    );
    world.delete_pod(&ns, "counter")
}

fn exec(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &script("host", STAY))?;
    world.wait_ready(&ns, "host")?;
    let run = |program: &[&str]| outcome(&mut world.kubectl_with(&["exec", "-n", &ns, "host"], program));
    let fine = run(&["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(fine.status.success(), "exec: {}", both(&fine));
    ensure!(
        fine.stdout == b"out\n" && fine.stderr == b"err\n",
        "the streams are mixed up: {}",
        both(&fine)
    );
    let seven = run(&["sh", "-c", "exit 7"])?;
    ensure!(
        seven.status.code() == Some(7),
        "exit 7 arrived as {}",
        both(&seven)
    );
    let none = run(&["no-such-program"])?;
    ensure!(
        !none.status.success() && both(&none).contains("no-such-program"),
        "no program: {}",
        both(&none)
    );
    let mut input = world.kubectl_with(
        &["exec", "-i", "-n", &ns, "host"],
        &["sh", "-c", "wc -c; echo after the end"],
    );
    let mut child = input
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let bytes = vec![b'x'; 300_000];
    std::io::Write::write_all(&mut child.stdin.take().context("no stdin")?, &bytes)
        .context("cannot write")?;
    let answer = child.wait_with_output().context("kubectl exec -i")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    ensure!(text == "300000\nafter the end\n", "input: {text:?}");
    let lost = outcome(&mut world.kubectl_with(&["exec", "-n", &ns, "nobody"], &["true"]))?;
    ensure!(
        both(&lost).contains("NotFound"),
        "exec in no pod: {}",
        both(&lost)
    );
    world.delete_pod(&ns, "host")
}

fn terminal(world: &mut World) -> Result<()> {
    // The size is told a moment after the start, as kubectl does it.
    const SIZE: &str =
        "tty; i=0; until stty size | grep [1-9]; do i=$((i+1)); [ $i -lt 50 ] || break; sleep 0.1; done";
    let ns = world.namespace()?;
    world.apply(&ns, &script("host", STAY))?;
    world.wait_ready(&ns, "host")?;
    // `script` gives kubectl a terminal of its own.
    let line =
        crate::command::line(&world.kubectl_with(&["exec", "-it", "-n", &ns, "host"], &["sh", "-c", SIZE]));
    let mut with_terminal = cmd("script", ["--quiet", "--return", "--command"]);
    with_terminal
        .arg(format!("stty rows 33 cols 77; {line}"))
        .arg("/dev/null");
    with_terminal.env("KUBECONFIG", &world.cluster.kubeconfig);
    with_terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = with_terminal
        .spawn()
        .context("cannot start script (Debian package bsdutils)")?;
    // Open until the end: `script` takes the end of its input for the end of the session.
    let keyboard = child.stdin.take();
    let output = child.wait_with_output().context("script")?;
    drop(keyboard);
    let text = both(&output);
    ensure!(text.contains("/dev/pts/"), "there is no terminal: {text:?}");
    ensure!(text.contains("33 77"), "the size did not arrive: {text:?}");
    world.delete_pod(&ns, "host")
}

fn attach(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script(
        "reader",
        "echo ready; while read line; do echo got $line; done; echo no more input",
    );
    pod["spec"]["containers"][0]["stdin"] = Value::Bool(true);
    pod["spec"]["containers"][0]["stdinOnce"] = Value::Bool(true);
    world.apply(&ns, &pod)?;
    world.wait_ready(&ns, "reader")?;
    let mut attach = world.kubectl(&["attach", "-i", "-n", &ns, "reader"]);
    let mut child = attach
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    std::io::Write::write_all(&mut child.stdin.take().context("no stdin")?, b"one\ntwo\n")
        .context("cannot write")?;
    let answer = child.wait_with_output().context("kubectl attach")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    ensure!(text.contains("got one\ngot two\n"), "attached: {text:?}");
    world.wait_phase(&ns, "reader", "Succeeded")?;
    world.delete_pod(&ns, "reader")
}

fn port_forward(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let serve = "mkdir /www; echo served by a cell > /www/index.html; head -c 3000000 /dev/zero > /www/big; \
                 trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait";
    world.apply(&ns, &script("web", serve))?;
    world.wait_ready(&ns, "web")?;
    let mut forward = world.background("port-forward", &["port-forward", "-n", &ns, "pod/web", ":8080"])?;
    let words = forward.wait_for_line("Forwarding from 127.0.0.1:", Duration::from_secs(20))?;
    let port = words.split_whitespace().next().context("no port")?.to_owned();
    let curl = |path: &str| {
        printed(&mut cmd(
            "curl",
            [
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "20",
                &format!("http://127.0.0.1:{port}{path}"),
            ],
        ))
    };
    wait_until("the web server to answer", Duration::from_secs(20), || {
        Ok(curl("/").ok())
    })
    .and_then(|page| {
        ensure!(page == "served by a cell\n", "it served {page:?}");
        Ok(())
    })?;
    for _ in 0..3 {
        ensure!(
            curl("/big")?.len() == 3_000_000,
            "a large file came in another size"
        );
    }
    drop(forward);
    world.delete_pod(&ns, "web")
}

fn copy(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &script("host", STAY))?;
    world.wait_ready(&ns, "host")?;
    let (there, back) = (world.folder().join("there"), world.folder().join("back"));
    std::fs::write(&there, "carried\n".repeat(50_000)).context("cannot write")?;
    world.kubectl_ok(&[
        "cp",
        &there.display().to_string(),
        &format!("{ns}/host:/tmp/file"),
    ])?;
    world.kubectl_ok(&["cp", &format!("{ns}/host:/tmp/file"), &back.display().to_string()])?;
    ensure!(
        std::fs::read(&there)? == std::fs::read(&back)?,
        "the file came back changed"
    );
    world.delete_pod(&ns, "host")
}

fn watch(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let columns = "jsonpath={.type} {.object.status.phase}{\"\\n\"}";
    let mut watch = world.background(
        "watch",
        &[
            "get",
            "pods",
            "-n",
            &ns,
            "-w",
            "--output-watch-events",
            "-o",
            columns,
        ],
    )?;
    world.apply(&ns, &script("watched", "sleep 0.5"))?;
    world.wait_phase(&ns, "watched", "Succeeded")?;
    world.delete_pod(&ns, "watched")?;
    watch.wait_for_line("DELETED", Duration::from_secs(20))?;
    let text = std::fs::read_to_string(watch.log()).context("cannot read the watch")?;
    let mut events: Vec<&str> = text.lines().collect();
    events.dedup();
    let want = [
        "ADDED Pending",
        "MODIFIED Pending",
        "MODIFIED Running",
        "MODIFIED Succeeded",
        "DELETED Succeeded",
    ];
    ensure!(events == want, "the watch saw {events:?} instead of {want:?}");
    Ok(())
}

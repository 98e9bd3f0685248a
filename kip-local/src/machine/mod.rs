//! An instance from the inside: its file system, its containerd, its init.

mod containerd;
mod root;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kip_core::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::host::Process;

pub(crate) use containerd::{Purpose, config as containerd_config};
pub(crate) use root::{Blueprint, build};

/// How long the machine may take to make namespaces.
const SPAWN: Duration = Duration::from_secs(10);
/// The first process of an instance and when it started, as it wrote them down itself.
const INIT_FILE: &str = "init.pid";

/// Starts an instance whose file system is built and whose network namespace exists. Returns when its first process runs.
///
/// The child is the instance's keeper in the machine's process namespace: it ends when the instance does.
pub(crate) async fn start(
    instance: &Path,
    netns: &str,
    cgroups: &[PathBuf],
    leaf: Option<&Path>,
) -> Result<(Child, Process)> {
    let failed = |message: &str| {
        Error::new(ErrorKind::Unexpected, "start instance", message)
            .with_context("instance", instance.display())
    };
    let console = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(instance.join("console.log"))
        .map_err(|source| failed("cannot write its console").with_source(source))?;
    // A session of its own: a Ctrl-C at our terminal is not for the instances.
    let mut child = Command::new("setsid")
        .arg("sh")
        .arg(instance.join("launch.sh"))
        .arg(instance)
        .arg(netns)
        .arg(leaf.unwrap_or(Path::new("")))
        .args(cgroups)
        .env_clear()
        .env("PATH", root::PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(console)
        .spawn()
        .map_err(|source| failed("cannot run setsid").with_source(source))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Whatever goes wrong here shows as a missing line.
        let _ = tokio::time::timeout(SPAWN, BufReader::new(stdout).read_line(&mut line)).await;
    }
    if let (Some(leaf), Some(keeper)) = (leaf, child.id()) {
        // The keeper cannot be moved from inside: it is not in the instance's process namespace.
        std::fs::write(leaf.join("cgroup.procs"), keeper.to_string())
            .map_err(|source| failed("cannot move its keeper").with_source(source))?;
    }
    match parse_init(&line).map(|(pid, start)| Process::open(pid, Some(start))) {
        Some(Ok(Some(process))) => Ok((child, process)),
        _ => {
            // Whatever did start is in the control group and ended by whoever cleans up.
            let console = std::fs::read_to_string(instance.join("console.log")).unwrap_or_default();
            Err(failed(&format!(
                "its first process did not come up: {}",
                console.lines().last().unwrap_or("it said nothing")
            )))
        }
    }
}

/// The first process of an instance, if it runs.
pub(crate) fn running(instance: &Path) -> Result<Option<Process>> {
    let Ok(text) = std::fs::read_to_string(instance.join(INIT_FILE)) else {
        return Ok(None);
    };
    let Some((pid, start)) = parse_init(&text) else {
        return Ok(None);
    };
    Process::open(pid, Some(start)).map_err(|source| {
        Error::new(
            ErrorKind::Unexpected,
            "find instance",
            "cannot look for its first process",
        )
        .with_source(source)
    })
}

fn parse_init(text: &str) -> Option<(i32, u64)> {
    let (pid, start) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

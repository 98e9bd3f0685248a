//! What the demo does with its pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cells;
use crate::command::{cmd, line, outcome, read};
use crate::daemon::wait_until;
use crate::dev::Dev;
use crate::ui;

pub(super) fn batch(dev: &Dev, pod: &str) -> Result<()> {
    ui::section("A batch pod computed something and ended");
    let logs = dev.show(&["logs", pod])?;
    ensure!(!logs.trim().is_empty(), "the batch pod said nothing");
    let exit = &dev.pod(pod)?["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
    ensure!(*exit == 0, "its exit code is {exit}");
    ui::ok("its logs are there although its cell is gone; exit code 0");
    Ok(())
}

pub(super) fn web(dev: &Dev, pod: &str) -> Result<()> {
    ui::section("A web server, reached from here");
    cells::list(dev)?;
    let spec = dev.pod(pod)?;
    let port = spec["spec"]["containers"][0]["ports"][0]["containerPort"]
        .as_u64()
        .context("the web pod names no port")?;
    let mut forward = dev.background(
        "port-forward",
        &["port-forward", &format!("pod/{pod}"), &format!(":{port}")],
    )?;
    let words = forward.wait_for_line("Forwarding from 127.0.0.1:", Duration::from_secs(20))?;
    let local = words.split_whitespace().next().context("kubectl named no port")?;
    let mut curl = cmd("curl", ["--silent", "--show-error", "--fail", "--max-time", "10"]);
    curl.arg(format!("http://127.0.0.1:{local}/"));
    ui::command(&line(&curl));
    let page = wait_until("the web server to answer", Duration::from_secs(20), || {
        Ok(read(&mut curl).ok())
    })?;
    ui::answer(&page);
    drop(forward);
    ui::ok("port-forward");

    exec(dev, pod, "hostname; uptime", 0)?;
    exec(dev, pod, "exit 42", 42)?;
    ui::ok("exec passes output and exit codes on");
    Ok(())
}

fn exec(dev: &Dev, pod: &str, script: &str, code: i32) -> Result<()> {
    ui::command(&format!("kubectl exec {pod} -- sh -c '{script}'"));
    let output = outcome(&mut dev.kubectl(&["exec", pod, "--", "sh", "-c", script]))?;
    ui::answer(&String::from_utf8_lossy(&output.stdout));
    ui::answer(&String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.code() == Some(code),
        "the exit code is {} instead of {code}",
        output.status
    );
    Ok(())
}

pub(super) fn config(dev: &Dev, pod: &str) -> Result<()> {
    ui::section("A pod with an init container, a ConfigMap and a Secret");
    let logs = dev.show(&["logs", pod])?;
    ensure!(!logs.trim().is_empty(), "the configured pod said nothing");
    let init = &dev.pod(pod)?["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"];
    ensure!(*init == 0, "its init container's exit code is {init}");
    ui::ok("the init container went first, then the main one saw both");
    Ok(())
}

pub(super) fn too_big(dev: &Dev, pod: &str) -> Result<()> {
    ui::section("A pod that fits nothing says why");
    let events = dev.show(&[
        "get",
        "events",
        "--field-selector",
        &format!("involvedObject.name={pod}"),
        "-o",
        "custom-columns=REASON:.reason,MESSAGE:.message",
    ])?;
    ensure!(events.lines().count() > 1, "there is no event about {pod}");
    ensure!(dev.pod(pod)?["status"]["phase"] == "Pending", "it is not Pending");
    ui::ok("it waits, costs nothing, and says why");
    Ok(())
}

pub(super) fn delete(dev: &Dev, pods: &[&str]) -> Result<()> {
    ui::section("Deleting the pods");
    let seen = dev.cloud()?.left()?;
    ensure!(
        ["process", "network namespace", "network link", "control group"]
            .iter()
            .all(|kind| seen.iter().any(|line| line.starts_with(kind))),
        "what will be looked for at the end is not even seen while pods run: {seen:?}"
    );
    ui::step(&format!(
        "at this moment {} things on this machine belong to cells",
        seen.len()
    ));
    dev.show(&[&["delete", "pod"], pods, &["--timeout=60s"]].concat())?;
    wait_until("the last cell to be gone", Duration::from_secs(60), || {
        Ok(dev.cells_now()?.is_empty().then_some(()))
    })?;
    let left: Value = serde_json::from_str(&read(&mut dev.kubectl(&["get", "pods", "-o", "json"]))?)?;
    ensure!(
        left["items"].as_array().is_some_and(Vec::is_empty),
        "there are still pods: {left}"
    );
    ui::ok("no pod and no cell");
    Ok(())
}

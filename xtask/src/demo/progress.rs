//! What happens to the pods, told as it happens.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::read;
use crate::daemon::{tail, wait_until};
use crate::dev::Dev;
use crate::ui;

/// Applies a manifest and returns the name of its pod.
pub(super) fn apply(dev: &Dev, manifest: &Path) -> Result<String> {
    let name = manifest.file_name().unwrap_or_default().to_string_lossy();
    ui::command(&format!("kubectl apply -f examples/{name}"));
    let text = read(&mut dev.kubectl(&["apply", "-o", "name", "-f", &manifest.display().to_string()]))?;
    ui::answer(&text);
    let pods: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pod/"))
        .collect();
    ensure!(
        pods.len() == 1,
        "examples/{name} has {} pods; the demo expects one in each",
        pods.len()
    );
    Ok(pods[0].to_owned())
}

/// Prints each change of the pods until every one is as told; a pod that must stay Pending must have said why.
pub(super) fn follow(dev: &mut Dev, wanted: &[(&str, &str)]) -> Result<()> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    wait_until(
        "the pods to come as far as they should",
        Duration::from_secs(120),
        || {
            dev.kip.check_alive()?;
            dev.cells.check_alive()?;
            let list: Value = serde_json::from_str(&read(&mut dev.kubectl(&["get", "pods", "-o", "json"]))?)
                .context("kubectl printed no JSON")?;
            let mut arrived = 0;
            for pod in list["items"].as_array().into_iter().flatten() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let now = describe(pod);
                if shown.get(name) != Some(&now) {
                    ui::step(&format!(
                        "{:>6.2} s  {name}: {now}",
                        dev.begin.elapsed().as_secs_f64()
                    ));
                    shown.insert(name.to_owned(), now);
                }
                arrived += wanted
                    .iter()
                    .filter(|(pod_name, phase)| *pod_name == name && has_arrived(pod, phase))
                    .count();
            }
            Ok((arrived == wanted.len()).then_some(()))
        },
    )
    .with_context(|| format!("kip dev said last:\n{}", tail(dev.kip.log(), 15)))
}

fn has_arrived(pod: &Value, phase: &str) -> bool {
    let is = pod["status"]["phase"].as_str().unwrap_or_default();
    match phase {
        "Pending" => is == "Pending" && reason(pod).is_some(),
        "Running" => is == "Running" && is_ready(pod),
        either => either.split(" or ").any(|phase| phase == is),
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Why a pod waits, if it says so.
fn reason(pod: &Value) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array();
    let container = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let said = conditions
        .into_iter()
        .flatten()
        .filter(|c| c["status"] == "False")
        .map(|c| &c["message"]);
    said.chain([&pod["status"]["message"], container])
        .filter_map(Value::as_str)
        .find(|message| !message.is_empty() && !message.starts_with("containers with "))
        .map(str::to_owned)
}

fn describe(pod: &Value) -> String {
    let status = &pod["status"];
    let phase = status["phase"].as_str().unwrap_or("unknown");
    match phase {
        "Pending" => match (&pod["spec"]["nodeName"], reason(pod)) {
            (_, Some(reason)) => format!("Pending ({reason})"),
            (Value::Null, None) => "Pending".into(),
            (_, None) => "Pending on the virtual node".into(),
        },
        "Running" => format!(
            "Running at {}{}",
            status["podIP"].as_str().unwrap_or("?"),
            if is_ready(pod) { ", ready" } else { "" }
        ),
        other => other.to_owned(),
    }
}

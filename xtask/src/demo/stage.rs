//! `kip dev` and kubectl against it: where the demo is played.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::build::Release;
use crate::command::{cmd, line, read};
use crate::daemon::{Daemon, tail, wait_until};
use crate::setup::Machine;
use crate::ui;

/// A running `kip dev`. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stage {
    cells: Daemon,
    kip: Daemon,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    pub(super) program: PathBuf,
    data: PathBuf,
    folder: PathBuf,
    begin: Instant,
}

impl Stage {
    /// Starts `kip dev` with everything it writes in `folder`.
    pub(super) fn set(machine: &Machine, programs: &Release, folder: &Path) -> Result<Self> {
        ui::section("Starting kip dev: a Kubernetes API, the controller, and this machine as its cloud");
        let (kubeconfig, data) = (folder.join("kubeconfig"), folder.join("data"));
        let mut dev = cmd(&programs.kip, ["dev", "--keep", "--kubeconfig"]);
        dev.arg(&kubeconfig)
            .arg("--image-archive")
            .arg(&machine.busybox)
            .arg("--data-dir")
            .arg(&data);
        dev.arg("--agent").arg(&programs.agent);
        ui::command(&line(&dev));
        let begin = Instant::now();
        let mut kip = Daemon::start("kip dev", &dev, &folder.join("kip-dev.log"), Signal::SIGTERM)?;
        kip.wait_for_line("kip dev: ready", Duration::from_secs(30))?;
        ui::ok(&format!("ready ({})", ui::duration(begin.elapsed())));
        let kubectl = machine.kubectl.clone();
        let mut watch = cmd(&kubectl, ["get", "cells.kip.elotl.co", "--watch", "-o", "json"]);
        watch.env("KUBECONFIG", &kubeconfig);
        let cells = Daemon::start("kubectl", &watch, &folder.join("cells.log"), Signal::SIGKILL)?;
        Ok(Self {
            cells,
            kip,
            kubectl,
            kubeconfig,
            program: programs.kip.clone(),
            data,
            folder: folder.to_owned(),
            begin: Instant::now(),
        })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// kubectl as the reader would type it.
    pub(super) fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = cmd(&self.kubectl, args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        command
    }

    /// Shows a kubectl command and what it prints; fails unless it exits 0.
    pub(super) fn show(&self, args: &[&str]) -> Result<String> {
        ui::command(&format!(
            "kubectl {}",
            line(&cmd("", args)).trim_start_matches("''").trim()
        ));
        let text = read(&mut self.kubectl(args))?;
        ui::answer(&text);
        Ok(text)
    }

    /// Applies a manifest and returns the name of its pod.
    pub(super) fn apply(&self, manifest: &Path) -> Result<String> {
        let name = manifest.file_name().unwrap_or_default().to_string_lossy();
        ui::command(&format!("kubectl apply -f examples/{name}"));
        let text = read(&mut self.kubectl(&["apply", "-o", "name", "-f", &manifest.display().to_string()]))?;
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

    /// The pod as it is now.
    pub(super) fn pod(&self, name: &str) -> Result<Value> {
        serde_json::from_str(&read(&mut self.kubectl(&["get", "pod", name, "-o", "json"]))?)
            .context("kubectl printed no JSON")
    }

    /// Prints each change of the pods until every one is as told; a pod that must stay Pending must have said why.
    pub(super) fn follow(&mut self, wanted: &[(&str, &str)]) -> Result<()> {
        let mut shown: BTreeMap<String, String> = BTreeMap::new();
        wait_until(
            "the pods to come as far as they should",
            Duration::from_secs(120),
            || {
                self.kip.check_alive()?;
                self.cells.check_alive()?;
                let list: Value =
                    serde_json::from_str(&read(&mut self.kubectl(&["get", "pods", "-o", "json"]))?)
                        .context("kubectl printed no JSON")?;
                let mut arrived = 0;
                for pod in list["items"].as_array().into_iter().flatten() {
                    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                    let now = describe(pod);
                    if shown.get(name) != Some(&now) {
                        ui::step(&format!(
                            "{:>6.2} s  {name}: {now}",
                            self.begin.elapsed().as_secs_f64()
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
        .with_context(|| format!("kip dev said last:\n{}", tail(self.kip.log(), 15)))
    }

    /// Every version of every cell that was seen.
    pub(super) fn cells_seen(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.cells.log()).context("cannot read what kubectl saw")?;
        // The last one may be half written; it is then an error, and what came before it counts.
        Ok(serde_json::Deserializer::from_str(&text)
            .into_iter::<Value>()
            .map_while(Result::ok)
            .collect())
    }

    /// The cells there are now.
    pub(super) fn cells_now(&self) -> Result<Vec<Value>> {
        let text = read(&mut self.kubectl(&["get", "cells.kip.elotl.co", "-o", "json"]))?;
        let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Starts a kubectl that goes on until it is dropped.
    pub(super) fn background(&self, name: &str, args: &[&str]) -> Result<Daemon> {
        ui::command(&format!("kubectl {}", args.join(" ")));
        Daemon::start(
            "kubectl",
            &self.kubectl(args),
            &self.folder.join(format!("{name}.log")),
            Signal::SIGKILL,
        )
    }

    /// Ctrl-C, as a user would end it; fails unless it ends with 0.
    pub(super) fn end(mut self) -> Result<()> {
        self.kip.signal(Signal::SIGINT)?;
        let status = self.kip.wait(Duration::from_secs(60))?;
        ensure!(
            status.success(),
            "kip dev ended with {status}; it said last:\n{}",
            tail(self.kip.log(), 15)
        );
        Ok(())
    }
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

//! For a running `kip dev` and kubectl against it: where the demo is played and the measurements are taken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::build::Release;
use crate::command::{cmd, line, read};
use crate::daemon::{Daemon, tail};
use crate::leftovers::LocalCloud;
use crate::setup::Machine;
use crate::ui;

/// A running `kip dev`. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Dev {
    pub(crate) cells: Daemon,
    pub(crate) kip: Daemon,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    pub(crate) program: PathBuf,
    data: PathBuf,
    folder: PathBuf,
    /// When it was ready.
    pub(crate) begin: Instant,
}

impl Dev {
    /// Starts `kip dev` with everything it writes in `folder`.
    pub(crate) fn start(machine: &Machine, programs: &Release, folder: &Path) -> Result<Self> {
        ui::section("Starting kip dev: a Kubernetes API, the controller, and this machine as its cloud");
        let (kubeconfig, data) = (folder.join("kubeconfig"), folder.join("data"));
        std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
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

    /// The local cloud whose cells are the pods'.
    pub(crate) fn cloud(&self) -> Result<LocalCloud> {
        LocalCloud::of(&self.data.join("cells"))
    }

    /// kubectl as the reader would type it.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = cmd(&self.kubectl, args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        command
    }

    /// Shows a kubectl command and what it prints; fails unless it exits 0.
    pub(crate) fn show(&self, args: &[&str]) -> Result<String> {
        ui::command(&format!(
            "kubectl {}",
            line(&cmd("", args)).trim_start_matches("''").trim()
        ));
        let text = read(&mut self.kubectl(args))?;
        ui::answer(&text);
        Ok(text)
    }

    /// Applies objects that are in no file.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let path = self.folder.join("apply.json");
        std::fs::write(&path, object.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        read(&mut self.kubectl(&["apply", "-f", &path.display().to_string()])).map(|_| ())
    }

    /// The pod as it is now.
    pub(crate) fn pod(&self, name: &str) -> Result<Value> {
        serde_json::from_str(&read(&mut self.kubectl(&["get", "pod", name, "-o", "json"]))?)
            .context("kubectl printed no JSON")
    }

    /// Every version of every cell that was seen.
    pub(crate) fn cells_seen(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.cells.log()).context("cannot read what kubectl saw")?;
        // The last one may be half written; it is then an error, and what came before it counts.
        Ok(serde_json::Deserializer::from_str(&text)
            .into_iter::<Value>()
            .map_while(Result::ok)
            .collect())
    }

    /// The cells there are now.
    pub(crate) fn cells_now(&self) -> Result<Vec<Value>> {
        let text = read(&mut self.kubectl(&["get", "cells.kip.elotl.co", "-o", "json"]))?;
        let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Starts a kubectl that goes on until it is dropped.
    pub(crate) fn background(&self, name: &str, args: &[&str]) -> Result<Daemon> {
        ui::command(&format!("kubectl {}", args.join(" ")));
        Daemon::start(
            "kubectl",
            &self.kubectl(args),
            &self.folder.join(format!("{name}.log")),
            Signal::SIGKILL,
        )
    }

    /// Ctrl-C, as a user would end it; fails unless it ends with 0.
    pub(crate) fn end(mut self) -> Result<()> {
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

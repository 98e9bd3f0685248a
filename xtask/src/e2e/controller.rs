//! For the program under test: `kip run` as a process that can be stopped, killed and started again, with the
//! permissions it has in a user's cluster and no others.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::world::World;
use crate::cluster::kubeconfig;
use crate::command::{cmd, read};
use crate::daemon::{Daemon, ended_as_told};
use crate::{build, paths};

/// The virtual node's name.
pub(crate) const NODE: &str = "kip-e2e";

const NAMESPACE: &str = "kip";

/// `kip run` and what it needs to be started again.
#[derive(Debug)]
pub(crate) struct Controller {
    daemon: Option<Daemon>,
    program: PathBuf,
    config: PathBuf,
    kubeconfig: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Controller {
    /// Makes its service account, its permissions and its configuration. `data` is where cells are kept.
    pub(crate) fn prepare(world: &World, settings: &Value, data: &Path) -> Result<Self> {
        let program = build::binary("kip")?;
        let folder = world.folder();
        let base = paths::workspace().join("kustomize/base");
        for file in ["namespace.yaml", "serviceaccount.yaml", "rbac.yaml"] {
            world.kubectl_ok(&["apply", "-f", &base.join(file).display().to_string()])?;
        }
        let definition = folder.join("crd.yaml");
        std::fs::write(&definition, read(&mut cmd(&program, ["crd"]))?)
            .with_context(|| format!("cannot write {}", definition.display()))?;
        world.kubectl_ok(&["apply", "--server-side", "-f", &definition.display().to_string()])?;
        let token = world.kubectl_ok(&["create", "token", "kip", "-n", NAMESPACE, "--duration=4h"])?;
        let kubeconfig_path = folder.join("kip.kubeconfig");
        let user = json!({"token": token.trim()});
        std::fs::write(
            &kubeconfig_path,
            kubeconfig(&world.cluster.server, &world.cluster.ca_file, user),
        )
        .with_context(|| format!("cannot write {}", kubeconfig_path.display()))?;
        let config = folder.join("provider.yaml");
        std::fs::write(&config, settings.to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self {
            daemon: None,
            program,
            config,
            kubeconfig: kubeconfig_path,
            data: data.to_owned(),
            log: folder.join("kip.log"),
        })
    }

    /// Starts it; the node says when it is ready.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the controller runs already");
        let mut run = cmd(
            &self.program,
            [
                "run",
                "--nodename",
                NODE,
                "--kubelet-port",
                "0",
                "--node-ip",
                "127.0.0.1",
                "--metrics-addr",
                "127.0.0.1:0",
            ],
        );
        run.arg("--provider-config")
            .arg(&self.config)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        // SIGTERM: it leaves its cells alone but its records in order.
        self.daemon = Some(Daemon::start("kip run", &run, &self.log, Signal::SIGTERM)?);
        Ok(())
    }

    /// Another of the same node, not started, with a log of its own.
    pub(crate) fn twin(&self, name: &str) -> Self {
        Self {
            daemon: None,
            program: self.program.clone(),
            config: self.config.clone(),
            kubeconfig: self.kubeconfig.clone(),
            data: self.data.clone(),
            log: self.log.with_file_name(format!("kip-{name}.log")),
        }
    }

    /// What it answers over plain HTTP at that path, by the address its log names.
    pub(crate) fn admin(&self, path: &str) -> Result<String> {
        const SAID: &str = "metrics are served address=";
        let log = self.read_log()?;
        let at = log
            .rfind(SAID)
            .context("it does not say where it serves metrics")?;
        let address = log[at + SAID.len()..]
            .split_whitespace()
            .next()
            .context("it names no address")?;
        read(&mut cmd(
            "curl",
            [
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                &format!("http://{address}{path}"),
            ],
        ))
    }

    /// Whether its log, of all its runs, has these words.
    pub(crate) fn has_said(&self, words: &str) -> Result<bool> {
        Ok(self.read_log()?.contains(words))
    }

    fn read_log(&self) -> Result<String> {
        let log = std::fs::read_to_string(&self.log);
        log.with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.daemon
            .take()
            .context("the controller does not run")?
            .wait(limit)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the controller does not run")?.kill()
    }

    /// SIGTERM; fails unless it ends by itself with 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let status = self
            .daemon
            .take()
            .context("the controller does not run")?
            .stop(Duration::from_secs(30))?;
        ensure!(ended_as_told(status), "kip run ended with {status} on SIGTERM");
        Ok(())
    }

    /// Starts it unless it runs.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        if self.check_alive().is_ok() {
            return Ok(());
        }
        self.daemon = None;
        self.start()
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.daemon
            .as_mut()
            .context("the controller does not run")?
            .check_alive()
    }

    /// Where cells are kept.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

//! For everything a case stands on: a control plane, the controller on it, kubectl, and a namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client::Api;
use super::controller::Controller;
use super::ec2::Ec2;
use super::{Case, Cloud};
use crate::build::Scope;
use crate::cluster::{Cluster, Kind};
use crate::command::{cmd, line, outcome};
use crate::daemon::{Daemon, tail, wait_until};
use crate::setup::Machine;
use crate::{interrupt, ui};

/// How long a pod may take to reach what a case waits for, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How long the last cell's record may stay when everything was deleted. One whose pod went while no controller ran is removed only after
/// five sweeps, 30 s apart: from a list without any pod nothing is concluded sooner.
const LAST_CELL: Duration = Duration::from_secs(240);

/// Dropping it ends what was started, the controller before the API it needs.
#[derive(Debug)]
pub(crate) struct World {
    /// None where no case needs a cell.
    controller: Option<Controller>,
    /// None on the local cloud.
    ec2: Option<Ec2>,
    pub(crate) api: Api,
    pub(crate) cluster: Cluster,
    kubectl: PathBuf,
    /// How many namespaces there were, for the next one's name.
    namespaces: usize,
    // Last: removed when nothing writes into it any more.
    folder: tempfile::TempDir,
}

impl World {
    /// A control plane alone.
    pub(crate) fn api_only(kind: Kind, kubectl: &Path) -> Result<Self> {
        Self::bare(kind, kubectl, Scope::Package)
    }

    fn bare(kind: Kind, kubectl: &Path, scope: Scope) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("kip-e2e-")
            .tempdir()
            .context("cannot make a folder")?;
        let cluster = Cluster::start(kind, folder.path(), kubectl, scope)?;
        let api = Api::from_kubeconfig(&cluster.kubeconfig, kubectl, folder.path())?;
        Ok(Self {
            controller: None,
            ec2: None,
            api,
            cluster,
            kubectl: kubectl.to_owned(),
            namespaces: 0,
            folder,
        })
    }

    /// A control plane and the controller on it, with a cloud whose cells are on this machine.
    pub(crate) fn start(kind: Kind, cloud: Cloud, machine: &Machine) -> Result<Self> {
        let mut world = Self::bare(kind, &machine.kubectl, Scope::Workspace)?;
        let data = world.folder().join("local");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let (cloud, cells) = if cloud == Cloud::Local {
            let local = json!({"dataDir": data, "imageArchives": [machine.busybox]});
            (json!({"local": local}), json!({}))
        } else {
            let ec2 = Ec2::start(cloud, machine, world.folder(), &data)?;
            world.ec2.insert(ec2).settings()
        };
        // Nothing but Kip launches here, so what is left over need not be watched for long.
        let settings = json!({"cloud": cloud, "cells": cells, "orphans": {"grace": "20s"}});
        let controller = Controller::prepare(&world, &settings, &data)?;
        world.controller.insert(controller).start()?;
        world.wait_node()?;
        Ok(world)
    }

    /// Waits until the virtual node is there and ready.
    fn wait_node(&mut self) -> Result<()> {
        let (api, controller) = (self.api.clone(), self.controller()?);
        let log = controller.log().to_owned();
        wait_until("the virtual node to be ready", PATIENCE, || {
            controller.check_alive()?;
            let node = api.get(&format!("/api/v1/nodes/{}", super::controller::NODE))?;
            let conditions = node.at("/status/conditions").as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            Ok(ready.then_some(()))
        })
        .with_context(|| format!("the end of the controller's log:\n{}", tail(&log, 15)))
    }

    pub(super) fn case(&mut self, case: &Case) -> Result<()> {
        self.cluster.check_alive()?;
        if let Some(controller) = &mut self.controller {
            controller.check_alive()?;
        }
        if let Some(ec2) = &mut self.ec2 {
            ec2.check_alive()?;
        }
        // A panic is a failed case too: what was started must still be ended in order.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(self)))
            .unwrap_or_else(|_| bail!("the case panicked"))
    }

    /// After a case that failed: the controller runs again and no pod of the case is left.
    pub(super) fn recover(&mut self) {
        if let Some(controller) = &mut self.controller {
            ui::answer(&format!(
                "the end of the controller's log:\n{}",
                tail(controller.log(), 12)
            ));
            if let Err(error) = controller.ensure_running() {
                ui::failed(&format!("{error:#}"));
            }
        }
        if let Some(ec2) = &self.ec2 {
            ui::answer(&format!("the end of the hypervisor's log:\n{}", ec2.last_words()));
        }
        self.delete_all_pods();
    }

    /// Ends every pod and with it every cell, then the controller.
    pub(crate) fn end(&mut self, failed: &mut Vec<&'static str>) {
        // The clean-up may wait even when it was an interruption that brought us here.
        interrupt::clear();
        if let Some(controller) = &mut self.controller
            && controller.ensure_running().is_err()
        {
            failed.push("the controller can be started at the end");
        }
        self.delete_all_pods();
        let empty = wait_until("the last cell to be gone", LAST_CELL, || {
            let list = self.api.get("/apis/kip.elotl.co/v1alpha1/cells")?;
            Ok(list
                .at("/items")
                .as_array()
                .is_none_or(Vec::is_empty)
                .then_some(()))
        });
        if empty.is_err() {
            self.explain_what_is_left();
        }
        let stopped = match &mut self.controller {
            Some(controller) => controller.stop(),
            None => Ok(()),
        };
        let ended = match &mut self.ec2 {
            Some(ec2) => {
                match ec2.report() {
                    Ok(calls) => ui::step(&format!("Kip called EC2: {calls}")),
                    Err(error) => ui::failed(&format!("{error:#}")),
                }
                ec2.end()
            }
            None => Ok(()),
        };
        for error in [empty, stopped, ended].into_iter().filter_map(Result::err) {
            ui::failed(&format!("{error:#}"));
            failed.push("the end is clean");
        }
    }

    /// What a person needs who asks why a cell does not go.
    fn explain_what_is_left(&self) {
        match self.kubectl_ok(&["get", "cells", "-o", "yaml"]) {
            Ok(cells) => ui::answer(&format!("the cells that are left:\n{cells}")),
            Err(error) => ui::failed(&format!("{error:#}")),
        }
        if let Some(controller) = &self.controller {
            let log = tail(controller.log(), 40);
            ui::answer(&format!("the end of the controller's log:\n{log}"));
        }
        if let Some(ec2) = &self.ec2 {
            ui::answer(&format!("the end of the hypervisor's log:\n{}", ec2.last_words()));
        }
    }

    fn delete_all_pods(&self) {
        let namespaces: Vec<String> = (1..=self.namespaces)
            .map(|number| format!("e2e-{number}"))
            .collect();
        for namespace in namespaces {
            let all = [
                "delete",
                "deployments,jobs,pods",
                "--all",
                "-n",
                &namespace,
                "--timeout=60s",
            ];
            let pods = ["delete", "pods", "--all", "-n", &namespace, "--timeout=60s"];
            let args: &[&str] = if self.cluster.kind == Kind::Real {
                &all
            } else {
                &pods
            };
            if let Err(error) = self.kubectl_ok(args) {
                ui::failed(&format!("{error:#}"));
            }
        }
    }

    /// Whether the API checks what one may do. The in-process one only checks who asks: it keeps roles, and heeds none.
    pub(crate) fn enforces_rbac(&self) -> bool {
        self.cluster.kind == Kind::Real
    }

    /// The folder of this run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn controller(&mut self) -> Result<&mut Controller> {
        self.controller.as_mut().context("this case needs the controller")
    }

    pub(crate) fn ec2(&self) -> Result<&Ec2> {
        self.ec2.as_ref().context("this case needs EC2")
    }

    /// A fresh namespace, ready for pods.
    pub(crate) fn namespace(&mut self) -> Result<String> {
        self.namespaces += 1;
        let name = format!("e2e-{}", self.namespaces);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.api.post("/api/v1/namespaces", &namespace)?.ok()?;
        // A real controller makes this account a moment later, and no pod is admitted before.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let made = self
            .api
            .post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account)?;
        if made.code != 409 {
            made.ok()?;
        }
        Ok(name)
    }

    /// kubectl as a user would call it, with the administrator's credentials.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = cmd(&self.kubectl, args);
        command.env("KUBECONFIG", &self.cluster.kubeconfig);
        // Its discovery cache would outlive the cluster.
        command
            .arg("--cache-dir")
            .arg(self.folder().join("kubectl-cache"));
        command
    }

    /// [`World::kubectl`] for a command whose own arguments end with `-- program arguments`.
    pub(crate) fn kubectl_with(&self, args: &[&str], program: &[&str]) -> Command {
        let mut command = self.kubectl(args);
        command.arg("--").args(program);
        command
    }

    /// What kubectl printed; fails unless it exits 0.
    pub(crate) fn kubectl_ok(&self, args: &[&str]) -> Result<String> {
        printed(&mut self.kubectl(args))
    }

    /// Applies an object by kubectl.
    pub(crate) fn apply(&self, namespace: &str, object: &Value) -> Result<()> {
        let path = self.folder().join("apply.json");
        std::fs::write(&path, object.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.kubectl_ok(&["apply", "-n", namespace, "-f", &path.display().to_string()])
            .map(|_| ())
    }

    /// The pod as it is now; `None` when there is none.
    pub(crate) fn find_pod(&self, namespace: &str, name: &str) -> Result<Option<Value>> {
        let answer = self
            .api
            .get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
        if answer.code == 404 {
            return Ok(None);
        }
        Ok(Some(answer.ok()?.json))
    }

    /// The pod as it is now.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Result<Value> {
        self.find_pod(namespace, name)?
            .with_context(|| format!("pod {namespace}/{name} is gone"))
    }

    /// Waits until the pod is as told and returns it. An error shows how it was last.
    pub(crate) fn wait_pod(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        wait_until(&format!("pod {name} {what}"), PATIENCE, || {
            last = self.pod(namespace, name)?;
            Ok(holds(&last).then(|| last.clone()))
        })
        .with_context(|| {
            format!(
                "the pod's status was last {}\n{}",
                last["status"],
                self.events(namespace)
            )
        })
    }

    /// Waits for a phase that must come.
    pub(crate) fn wait_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<Value> {
        self.wait_pod(namespace, name, &format!("to be {phase}"), |pod| {
            pod["status"]["phase"] == phase
        })
    }

    /// Waits until the pod is running and ready.
    pub(crate) fn wait_ready(&self, namespace: &str, name: &str) -> Result<Value> {
        self.wait_pod(namespace, name, "to be ready", |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
    }

    /// Waits until the pod object is gone.
    pub(crate) fn wait_gone(&self, namespace: &str, name: &str) -> Result<()> {
        wait_until(&format!("pod {name} to be gone"), PATIENCE, || {
            Ok(self.find_pod(namespace, name)?.is_none().then_some(()))
        })
        .with_context(|| format!("events: {}", self.events(namespace)))
    }

    /// Deletes a pod by kubectl, which waits until it is gone.
    pub(crate) fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.kubectl_ok(&["delete", "pod", "-n", namespace, name, "--timeout=90s"])
            .map(|_| ())
    }

    /// The cells of the pods of one namespace.
    pub(crate) fn cells(&self, namespace: &str) -> Result<Vec<Value>> {
        let list = self.api.get("/apis/kip.elotl.co/v1alpha1/cells")?.ok()?;
        let items = list.at("/items").as_array().cloned().unwrap_or_default();
        Ok(items
            .into_iter()
            .filter(|cell| cell["spec"]["pod"]["namespace"] == namespace)
            .collect())
    }

    /// Waits until no pod of the namespace has a cell.
    pub(crate) fn wait_no_cells(&self, namespace: &str) -> Result<()> {
        wait_until(&format!("the cells of {namespace} to be gone"), PATIENCE, || {
            Ok(self.cells(namespace)?.is_empty().then_some(()))
        })
    }

    /// The events of a namespace, one a line.
    pub(crate) fn events(&self, namespace: &str) -> String {
        let answer = self.api.get(&format!("/api/v1/namespaces/{namespace}/events"));
        let items = answer
            .ok()
            .and_then(|a| a.at("/items").as_array().cloned())
            .unwrap_or_default();
        items
            .iter()
            .map(|e| {
                format!(
                    "{} {}: {}\n",
                    e["involvedObject"]["name"], e["reason"], e["message"]
                )
            })
            .collect()
    }

    /// Starts a kubectl that goes on until it is dropped.
    pub(crate) fn background(&self, name: &str, args: &[&str]) -> Result<Daemon> {
        let log = self.folder().join(format!("{name}.log"));
        if log.exists() {
            std::fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
        }
        Daemon::start(name, &self.kubectl(args), &log, nix::sys::signal::Signal::SIGKILL)
    }
}

/// The standard output of a command that must exit 0.
pub(crate) fn printed(command: &mut Command) -> Result<String> {
    let output = outcome(command)?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), both(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Both streams of a finished command, for a message.
pub(crate) fn both(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end()
    )
}

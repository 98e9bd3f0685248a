//! For running the in-process Kubernetes API as a process of its own, from the example kip-cluster ships.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Cluster, Kind};
use crate::build::Scope;
use crate::command::{cmd, read};
use crate::daemon::Daemon;
use crate::{build, ui};

/// Starts kip-cluster's `serve` example with its kubeconfig and log in `folder`.
pub(super) fn start(folder: &Path, kubectl: &Path, scope: Scope) -> Result<Cluster> {
    let program = build::example(scope, "kip-cluster", "serve")?;
    let begin = Instant::now();
    let kubeconfig = folder.join("admin.kubeconfig");
    let mut serve = cmd(program, ["--listen", "127.0.0.1:0", "--kubeconfig"]);
    // It has no RBAC: whoever is named may do everything. What the controller may do is for the real one to check.
    serve
        .arg(&kubeconfig)
        .args(["--allow", "system:serviceaccount:kip:kip"]);
    let mut daemon = Daemon::start(
        "kip-cluster",
        &serve,
        &folder.join("kip-cluster.log"),
        Signal::SIGKILL,
    )?;
    let server = daemon.wait_for_line("kip-cluster: serving ", Duration::from_secs(30))?;
    // kubectl reads whatever form of kubeconfig was written.
    let mut view = cmd(kubectl, ["config", "view", "--raw", "-o", "json", "--kubeconfig"]);
    let config: serde_json::Value =
        serde_json::from_str(&read(view.arg(&kubeconfig))?).context("kubectl printed no JSON")?;
    let cluster = &config["clusters"][0]["cluster"];
    let ca_file = folder.join("ca.crt");
    let data = cluster["certificate-authority-data"]
        .as_str()
        .context("the kubeconfig carries no CA")?;
    write_base64(data, &ca_file)?;
    ui::ok(&format!(
        "in-process Kubernetes API at {server} ({})",
        ui::duration(begin.elapsed())
    ));
    Ok(Cluster {
        kind: Kind::Embedded,
        kubeconfig,
        server: server.trim().to_owned(),
        ca_file,
        daemons: vec![daemon],
    })
}

fn write_base64(text: &str, path: &Path) -> Result<()> {
    let encoded = path.with_extension("b64");
    std::fs::write(&encoded, text).with_context(|| format!("cannot write {}", encoded.display()))?;
    let decoded = read(cmd("base64", ["--decode"]).arg(&encoded))?;
    std::fs::write(path, decoded).with_context(|| format!("cannot write {}", path.display()))
}

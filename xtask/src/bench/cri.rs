//! A pod on a ready cell against the bare CRI calls, both in one run on one runtime of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::report::Report;
use crate::command::{cmd, line, outcome, read};
use crate::daemon::{Daemon, wait_until};
use crate::setup::{Machine, image};
use crate::{build, paths, ui};

const CNI: &str = r#"{"cniVersion": "0.4.0", "name": "bench", "plugins": [{"type": "ptp", "ipam":
    {"type": "host-local", "dataDir": "DATA", "ranges": [[{"subnet": "10.213.77.0/24"}]]}}]}"#;

/// Measures with the agent's own `cri_floor`, which takes turns and prints one line of JSON.
pub(super) fn measure(machine: &Machine, report: &mut Report) -> Result<()> {
    build::release_example("kip-cell", "cri_floor")?;
    let folder = tempfile::Builder::new()
        .prefix("kip-bench-cri-")
        .tempdir()
        .context("cannot make a folder")?;
    let (runtime, socket) = start_runtime(machine, folder.path())?;
    let mut bench = cmd(
        paths::target().join("release/examples/cri_floor"),
        ["--image", image::NAME, "--runs", "20"],
    );
    bench.arg("--socket").arg(&socket);
    ui::command(&line(&bench));
    let text = read(&mut bench)?;
    drop(runtime);
    let last: Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).context("cri_floor printed no JSON")?;
    let (Some(bare), Some(agent)) = (last["bareMs"].as_f64(), last["agentMs"].as_f64()) else {
        bail!("cri_floor printed {last} without bareMs and agentMs");
    };
    report.plain(
        "bare CRI calls for a one-container pod, p50",
        &format!("{bare:.0} ms"),
    );
    report.plain(
        "the agent for the same pod on a ready cell, p50",
        &format!("{agent:.0} ms"),
    );
    report.at_most(
        "pod start on a ready cell over the bare CRI calls",
        agent / bare,
        1.15,
        "×",
    );
    Ok(())
}

/// A containerd with the image and one to hold a pod's namespaces.
fn start_runtime(machine: &Machine, folder: &Path) -> Result<(Daemon, std::path::PathBuf)> {
    let at = |name: &str| folder.join(name);
    let plugins = ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .find(|path| Path::new(path).join("ptp").is_file());
    let plugins = plugins.context("the CNI plugins are missing")?;
    std::fs::create_dir(at("cni")).context("cannot create a folder")?;
    let network = CNI.replace("DATA", &at("ipam").display().to_string());
    std::fs::write(at("cni/10-bench.conflist"), network).context("cannot write the network")?;
    let socket = at("containerd.sock");
    // Without the right to lower its OOM score, as in many containers, a sandbox could not start.
    let config = format!(
        "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n[grpc]\naddress = \"{root}/containerd.sock\"\n\
         [ttrpc]\naddress = \"{root}/containerd.sock.ttrpc\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\n\
         restrict_oom_score_adj = true\ndisable_apparmor = true\nsandbox_image = \"{pause}\"\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{plugins}\"\n\
         conf_dir = \"{root}/cni\"\n",
        root = folder.display(),
        pause = image::PAUSE,
    );
    std::fs::write(at("config.toml"), config).context("cannot write containerd's configuration")?;
    let mut containerd = cmd("containerd", ["--config"]);
    containerd.arg(at("config.toml"));
    let mut daemon = Daemon::start("containerd", &containerd, &at("containerd.log"), Signal::SIGTERM)?;
    for archive in [&machine.busybox, &image::pause()?] {
        wait_until("containerd to take an image", Duration::from_secs(20), || {
            daemon.check_alive()?;
            let mut ctr = cmd("ctr", ["-n", "k8s.io", "-a"]);
            ctr.arg(&socket).args(["images", "import"]).arg(archive);
            Ok(outcome(&mut ctr)?.status.success().then_some(()))
        })?;
    }
    Ok((daemon, socket))
}

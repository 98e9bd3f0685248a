//! How long a pod takes, one by one and ten at once, and what the processes weigh.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::report::{Report, median};
use crate::command::read;
use crate::daemon::wait_until;
use crate::demo::mark;
use crate::dev::Dev;
use crate::processes;
use crate::setup::image;

const ONE_BY_ONE: usize = 21;
const AT_ONCE: usize = 10;

/// The marks that end the stages, from the launch call on.
const STAGES: [(&str, &str, &str); 4] = [
    ("launch call answered", "decidedAt", "launchedAt"),
    ("agent up", "launchedAt", "connectedAt"),
    ("image there", "connectedAt", "imagesAt"),
    ("containers running", "imagesAt", "runningAt"),
];

pub(super) fn measure(dev: &mut Dev, report: &mut Report) -> Result<()> {
    let kip = dev.kip.pid().cast_signed();
    report.at_most(
        "idle `kip dev`, resident",
        kib_to_mb(processes::resident_kib(kip)),
        60.0,
        "MB",
    );
    one_by_one(dev, report)?;
    at_once(dev, report)
}

fn one_by_one(dev: &mut Dev, report: &mut Report) -> Result<()> {
    let mut agents = Vec::new();
    for round in 0..ONE_BY_ONE {
        let name = format!("one-{round}");
        dev.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [pod(&name)]}))?;
        wait_until(&format!("{name} to run"), Duration::from_secs(30), || {
            let phase = read(&mut dev.kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"]))?;
            Ok((phase == "Running").then_some(()))
        })?;
        let of_agents = dev.cloud()?.processes()?;
        agents.extend(
            of_agents
                .iter()
                .filter(|p| p.program == "kip-cell")
                .map(|p| kib_to_mb(p.resident_kib())),
        );
        read(&mut dev.kubectl(&["delete", "pod", &name, "--timeout=30s"]))?;
    }
    // The last word on each cell has every mark.
    let mut last = BTreeMap::new();
    for cell in dev.cells_seen()? {
        if mark(&cell, "runningAt").is_some() {
            last.insert(cell["metadata"]["name"].to_string(), cell);
        }
    }
    let cells: Vec<Value> = last.into_values().collect();
    ensure!(
        cells.len() == ONE_BY_ONE,
        "only {} of {ONE_BY_ONE} cells told when they ran",
        cells.len()
    );
    let p50 = |from: &str, to: &str| {
        median(
            &mut cells
                .iter()
                .filter_map(|cell| Some(mark(cell, to)? - mark(cell, from)?))
                .collect::<Vec<_>>(),
        )
    };
    report.at_most(
        "one pod, launch call to running, p50",
        p50("decidedAt", "runningAt"),
        1.0,
        "s",
    );
    for (what, from, to) in STAGES {
        report.plain(&format!("… {what}"), &format!("{:.0} ms", p50(from, to) * 1000.0));
    }
    report.at_most(
        "agent with a running pod, resident, largest seen",
        agents.iter().copied().fold(0.0, f64::max),
        15.0,
        "MB",
    );
    report.note(format!(
        "One pod: {ONE_BY_ONE} pods after each other, image preloaded, times from the marks on each Cell."
    ));
    Ok(())
}

fn at_once(dev: &mut Dev, report: &mut Report) -> Result<()> {
    let pods: Vec<Value> = (0..AT_ONCE)
        .map(|number| pod(&format!("many-{number}")))
        .collect();
    let begin = Instant::now();
    dev.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}))?;
    wait_until("all ten to run", Duration::from_secs(60), || {
        let text = read(&mut dev.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]))?;
        Ok((text
            .split_whitespace()
            .filter(|phase| *phase == "Running")
            .count()
            == AT_ONCE)
            .then_some(()))
    })?;
    report.at_most(
        "ten pods at once, `kubectl apply` to all running",
        begin.elapsed().as_secs_f64(),
        6.0,
        "s",
    );
    read(&mut dev.kubectl(&["delete", "pods", "--all", "--timeout=60s"]))?;
    wait_until("the last cell to be gone", Duration::from_secs(60), || {
        Ok(dev.cells_now()?.is_empty().then_some(()))
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "containers": [{
                "name": "main", "image": image::NAME,
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
                "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
            }],
        },
    })
}

#[expect(clippy::cast_precision_loss, reason = "three digits are enough")]
fn kib_to_mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

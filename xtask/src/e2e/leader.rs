//! Two controllers of one node: one acts, the other takes over, and the pods never notice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::controller::{Controller, NODE};
use super::manifests::{STAY, script};
use super::recovery::{lives_on, marked};
use super::world::PATIENCE;
use super::{Case, World};
use crate::daemon::wait_until;
use crate::leftovers::LocalCloud;
use crate::ui;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "leader: a second controller takes over from one that is killed, and at once from one that is stopped",
        run: takeover,
    },
    Case {
        name: "leader: a controller that loses its lease ends itself and leaves its pods alone",
        run: deposed,
    },
];

/// From the kill of the leader until another acts.
const TAKEOVER: Duration = Duration::from_secs(15);
/// From the clean end of the leader until another acts: its retry period, and a moment.
const HANDOVER: Duration = Duration::from_secs(5);

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kip/leases/kip-kip-e2e";

/// Where the API server finds the kubelet endpoint of the node.
fn endpoint(world: &World) -> Result<Value> {
    let node = world.api.get(&format!("/api/v1/nodes/{NODE}"))?.ok()?;
    Ok(node.at("/status/daemonEndpoints/kubeletEndpoint/Port").clone())
}

fn is_leader(controller: &Controller) -> Result<bool> {
    let metrics = controller.admin("/metrics")?;
    Ok(metrics.lines().any(|line| line == "kip_leader 1"))
}

fn wait_standing_by(controller: &mut Controller) -> Result<()> {
    wait_until("the second controller to stand by", PATIENCE, || {
        controller.check_alive()?;
        Ok(controller.has_said("standing by")?.then_some(()))
    })?;
    ensure!(!is_leader(controller)?, "two controllers lead");
    let ready = controller.admin("/readyz")?;
    ensure!(ready.contains("standing by"), "it says it is {ready:?}");
    ensure!(
        !controller.admin("/metrics")?.contains("kip_pods"),
        "it works on pods"
    );
    ensure!(
        !controller.has_said("controller starts")?,
        "it has bound the kubelet endpoint"
    );
    Ok(())
}

/// Waits until that controller leads; how long since `begin`.
fn wait_leading(controller: &mut Controller, begin: Instant) -> Result<Duration> {
    wait_until("the other controller to lead", PATIENCE, || {
        controller.check_alive()?;
        Ok(is_leader(controller)?.then_some(()))
    })?;
    Ok(begin.elapsed())
}

/// As many agents run as there are pods: none was launched twice.
fn ensure_cells(world: &mut World, ns: &str, count: usize) -> Result<()> {
    ensure!(
        world.cells(ns)?.len() == count,
        "there are {} cells",
        world.cells(ns)?.len()
    );
    let cloud = LocalCloud::of(world.controller()?.data())?;
    let agents = cloud
        .processes()?
        .into_iter()
        .filter(|process| process.program == "kip-cell")
        .count();
    ensure!(agents == count, "{agents} agents run for {count} pods");
    Ok(())
}

fn takeover(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut second = world.controller()?.twin("second");
    second.start()?;
    wait_standing_by(&mut second)?;
    let pod = marked(world, &ns, "steady")?;
    ensure_cells(world, &ns, 1)?;
    let before = endpoint(world)?;

    world.controller()?.kill()?;
    let killed = Instant::now();
    world.apply(&ns, &script("meanwhile", STAY))?;
    let took = wait_leading(&mut second, killed)?;
    ui::answer(&format!(
        "the second controller leads {:.1} s after the first was killed",
        took.as_secs_f64()
    ));
    ensure!(took <= TAKEOVER, "it took {took:?}");
    world.wait_ready(&ns, "meanwhile")?;
    lives_on(world, &ns, "steady", &pod, 2)?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "steady"])?;
    ensure!(logs.contains("started"), "its logs are {logs:?}");
    ensure!(
        endpoint(world)? != before,
        "the node still has the endpoint of the dead"
    );
    ensure_cells(world, &ns, 2)?;

    // The first comes back, and the second ends in good order.
    world.controller()?.start()?;
    let first = world.controller()?;
    wait_until("the first controller to stand by", PATIENCE, || {
        first.check_alive()?;
        Ok((first
            .admin("/readyz")
            .is_ok_and(|text| text.contains("standing by")))
        .then_some(()))
    })?;
    second.stop()?;
    let stopped = Instant::now();
    let took = wait_leading(world.controller()?, stopped)?;
    ui::answer(&format!(
        "the first controller leads {:.1} s after the second ended",
        took.as_secs_f64()
    ));
    ensure!(took <= HANDOVER, "it took {took:?}");
    lives_on(world, &ns, "steady", &pod, 2)?;
    ensure_cells(world, &ns, 2)?;
    world.delete_pod(&ns, "steady")?;
    world.delete_pod(&ns, "meanwhile")?;
    world.wait_no_cells(&ns)
}

fn deposed(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let usurped = json!({"spec": {"holderIdentity": "an administrator"}});
    world
        .api
        .patch(LEASE, "application/merge-patch+json", &usurped)?
        .ok()?;
    let status = world.controller()?.wait_end(PATIENCE)?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    ensure!(
        world.controller()?.has_said("an administrator")?,
        "its log does not say who leads"
    );
    // Nobody renews that lease: it runs out, and the controller leads again.
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    ensure_cells(world, &ns, 1)?;
    world.delete_pod(&ns, "steady")?;
    world.wait_no_cells(&ns).context("after the lease was lost")
}

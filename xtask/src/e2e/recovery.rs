//! Bad luck: whatever is killed, a running pod keeps running and is found again.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::manifests::{STAY, script};
use super::world::PATIENCE;
use super::{Case, World};
use crate::daemon::wait_until;
use crate::leftovers::LocalCloud;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "recovery: a controller that is stopped and started again adopts its pods",
        run: controller_stopped,
    },
    Case {
        name: "recovery: a controller that is killed and started again adopts its pods",
        run: controller_killed,
    },
    Case {
        name: "recovery: a launch the controller did not live to see is finished",
        run: killed_while_launching,
    },
    Case {
        name: "recovery: a pod deleted while the controller was away goes when it is back",
        run: deleted_meanwhile,
    },
    Case {
        name: "recovery: the agent is killed, the pod lives on",
        run: agent_killed,
    },
    Case {
        name: "recovery: containerd is killed, the pod lives on",
        run: containerd_killed,
    },
];

/// What must stay the same when nothing happened to a container.
fn identity(pod: &Value) -> (Value, Value, Value) {
    let container = &pod["status"]["containerStatuses"][0];
    (
        container["containerID"].clone(),
        container["restartCount"].clone(),
        pod["status"]["podIP"].clone(),
    )
}

/// The pod runs, is the same container as before, and can be talked to; its namespace has that many cells.
pub(super) fn lives_on(world: &World, ns: &str, name: &str, before: &Value, cells: usize) -> Result<()> {
    wait_until("exec to work again", PATIENCE, || {
        let exec = world.kubectl_with(&["exec", "-n", ns, name], &["cat", "/tmp/mark"]);
        Ok(super::world::printed(&mut { exec })
            .ok()
            .filter(|text| text == "still me\n")
            .map(|_| ()))
    })?;
    let now = world.wait_ready(ns, name)?;
    ensure!(
        identity(&now) == identity(before),
        "it was {:?} and is {:?}",
        identity(before),
        identity(&now)
    );
    ensure!(
        world.cells(ns)?.len() == cells,
        "there are {} cells",
        world.cells(ns)?.len()
    );
    Ok(())
}

/// A running pod that can be told from its successor.
pub(super) fn marked(world: &World, ns: &str, name: &str) -> Result<Value> {
    world.apply(ns, &script(name, STAY))?;
    let pod = world.wait_ready(ns, name)?;
    super::world::printed(&mut world.kubectl_with(
        &["exec", "-n", ns, name],
        &["sh", "-c", "echo still me > /tmp/mark"],
    ))?;
    Ok(pod)
}

fn controller_stopped(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    world.controller()?.stop()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    world.delete_pod(&ns, "steady")?;
    world.wait_no_cells(&ns)
}

fn controller_killed(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    world.controller()?.kill()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    world.delete_pod(&ns, "steady")?;
    world.wait_no_cells(&ns)
}

fn killed_while_launching(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    for round in 0..3 {
        let name = format!("halfway-{round}");
        world.apply(&ns, &script(&name, STAY))?;
        // Some way into the launch; each round at another place, as chance has it.
        wait_until("the launch to begin", PATIENCE, || {
            Ok((!world.cells(&ns)?.is_empty()).then_some(()))
        })?;
        world.controller()?.kill()?;
        world.controller()?.start()?;
        let pod = world.wait_ready(&ns, &name)?;
        ensure!(
            pod["status"]["containerStatuses"][0]["restartCount"] == 0,
            "it was started twice"
        );
        ensure!(
            world.cells(&ns)?.len() == 1,
            "there are {} cells",
            world.cells(&ns)?.len()
        );
        world.delete_pod(&ns, &name)?;
        world.wait_no_cells(&ns)?;
    }
    Ok(())
}

fn deleted_meanwhile(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    marked(world, &ns, "leaving")?;
    world.controller()?.kill()?;
    world.kubectl_ok(&["delete", "pod", "-n", &ns, "leaving", "--wait=false"])?;
    world.controller()?.start()?;
    world.wait_gone(&ns, "leaving")?;
    world.wait_no_cells(&ns)
}

/// Kills the one process of that program in the cells and waits for its successor.
fn kill_program(world: &mut World, program: &str) -> Result<()> {
    let cloud = LocalCloud::of(world.controller()?.data())?;
    let running = || -> Result<Vec<i32>> {
        let found = cloud.processes()?;
        // The keeper that starts it again carries its name among its arguments; the program itself is the first word.
        Ok(found
            .into_iter()
            .filter(|process| process.program == program)
            .map(|process| process.pid)
            .collect())
    };
    let victims = running()?;
    ensure!(
        victims.len() == 1,
        "there are {} processes of {program}: {victims:?}",
        victims.len()
    );
    kill(Pid::from_raw(victims[0]), Signal::SIGKILL).with_context(|| format!("cannot kill {program}"))?;
    wait_until(&format!("a new {program}"), PATIENCE, || {
        let now = running()?;
        Ok((!now.is_empty() && now != victims).then_some(()))
    })
}

fn agent_killed(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    kill_program(world, "kip-cell")?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    world.delete_pod(&ns, "steady")?;
    world.wait_no_cells(&ns)
}

fn containerd_killed(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    kill_program(world, "containerd")?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    world.delete_pod(&ns, "steady")?;
    world.wait_no_cells(&ns)
}

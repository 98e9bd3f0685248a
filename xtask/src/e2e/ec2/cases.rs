//! What a user relies on where EC2 is the cloud: the first examples, whole pods on real instances' records, and instances that go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::command::{cmd, outcome, read};
use crate::daemon::wait_until;
use crate::e2e::manifests::{STAY, script};
use crate::e2e::world::PATIENCE;
use crate::e2e::{Case, World};
use crate::paths;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "ec2: the first examples do what they say",
        run: examples,
    },
    Case {
        name: "ec2: a pod's instance is of the chosen type and zone, and says whose it is",
        run: described,
    },
    Case {
        name: "ec2: ten pods at once have one instance each",
        run: ten_at_once,
    },
    Case {
        name: "ec2: pods whose instance is terminated behind Kip's back, or shuts itself down, get another",
        run: lost,
    },
];

/// Of the cases of every cloud, those that are played on EC2 too. What containers do is the same everywhere.
pub(crate) const FROM_OTHERS: &[&str] = &[
    "pods: a failing pod tells its exit code",
    "pods: a request that fits nothing says why and launches nothing",
    "pods: delete ends the program gracefully and the cell with it",
    "streams: logs follow a running program",
    "streams: exec gives output, errors, exit code and takes input",
    "streams: a web server is reached by port-forward",
    "recovery: a controller that is stopped and started again adopts its pods",
    "recovery: a launch the controller did not live to see is finished",
    "recovery: a pod deleted while the controller was away goes when it is back",
    "recovery: the agent is killed, the pod lives on",
];

fn example(name: &str) -> PathBuf {
    paths::workspace().join("examples").join(name)
}

fn examples(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    for file in ["web.yaml", "batch.yaml", "config.yaml", "too-big.yaml"] {
        world.kubectl_ok(&["apply", "-n", &ns, "-f", &example(file).display().to_string()])?;
    }
    world.wait_phase(&ns, "batch", "Succeeded")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "batch"])?;
    ensure!(logs.starts_with("303 primes"), "batch says {logs:?}");
    world.wait_phase(&ns, "config", "Succeeded")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "config"])?;
    ensure!(
        logs.starts_with("Good morning!\nOne pod, one cell.\n"),
        "config says {logs:?}"
    );

    world.wait_ready(&ns, "web")?;
    let mut forward = world.background("port-forward", &["port-forward", "-n", &ns, "pod/web", ":8080"])?;
    let words = forward.wait_for_line("Forwarding from 127.0.0.1:", Duration::from_secs(20))?;
    let port = words.split_whitespace().next().context("kubectl named no port")?;
    let url = format!("http://127.0.0.1:{port}/");
    let page = wait_until("the web server to answer", PATIENCE, || {
        Ok(read(&mut cmd("curl", ["--silent", "--fail", "--max-time", "10", &url])).ok())
    })?;
    ensure!(page.starts_with("Hello from web at 100."), "the page is {page:?}");
    drop(forward);

    wait_until("an event to say why", PATIENCE, || {
        Ok(world.events(&ns).contains("\"too-big\"").then_some(()))
    })?;
    let waiting = world.pod(&ns, "too-big")?;
    ensure!(waiting["status"]["phase"] == "Pending", "{}", waiting["status"]);
    ensure!(
        launched(world, &waiting)?.is_empty(),
        "something was launched for too-big"
    );
    for pod in ["batch", "config", "web", "too-big"] {
        world.delete_pod(&ns, pod)?;
    }
    world.wait_no_cells(&ns)
}

fn uid(pod: &Value) -> Result<&str> {
    pod["metadata"]["uid"].as_str().context("a pod without a UID")
}

fn launched(world: &World, pod: &Value) -> Result<Vec<super::api::Instance>> {
    world.ec2()?.launched_for(uid(pod)?)
}

fn described(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("tagged", STAY);
    pod["metadata"]["annotations"] = json!({"pod.elotl.co/instance-type": "c7i.large"});
    world.apply(&ns, &pod)?;
    let pod = world.wait_ready(&ns, "tagged")?;
    let instances = launched(world, &pod)?;
    ensure!(instances.len() == 1, "{instances:?}");
    let instance = &instances[0];
    ensure!(instance.instance_type == "c7i.large", "{instance:?}");
    ensure!(
        instance
            .tags
            .get("kip.elotl.co/node")
            .is_some_and(|node| node == crate::e2e::controller::NODE),
        "{instance:?}"
    );
    let cells = world.cells(&ns)?;
    let cell = cells.first().context("there is no cell")?;
    ensure!(
        cell["status"]["instance"] == instance.id.as_str(),
        "{cell} is not of {instance:?}"
    );
    ensure!(
        ["us-east-1a", "us-east-1b"].contains(&instance.zone.as_str()),
        "{instance:?}"
    );
    world.delete_pod(&ns, "tagged")?;
    world.wait_no_cells(&ns)?;
    ended(world, &instance.id)
}

/// Waits until EC2 shows an instance as terminated, or not at all.
fn ended(world: &World, id: &str) -> Result<()> {
    wait_until(&format!("{id} to be terminated"), PATIENCE, || {
        let alive = world.ec2()?.instances()?;
        Ok(alive.iter().all(|one| one.id != id).then_some(()))
    })
}

fn ten_at_once(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let names: Vec<String> = (0..10).map(|number| format!("one-of-ten-{number}")).collect();
    for name in &names {
        world.apply(&ns, &script(name, STAY))?;
    }
    let mut ids = BTreeSet::new();
    for name in &names {
        let pod = world.wait_ready(&ns, name)?;
        let mut alive = launched(world, &pod)?;
        alive.retain(|instance| instance.state == "running");
        ensure!(alive.len() == 1, "{name} has {alive:?}");
        ids.extend(alive.into_iter().map(|instance| instance.id));
    }
    ensure!(ids.len() == names.len(), "they share instances: {ids:?}");
    for name in &names {
        world.kubectl_ok(&["delete", "pod", "-n", &ns, name, "--wait=false"])?;
    }
    for name in &names {
        world.wait_gone(&ns, name)?;
    }
    world.wait_no_cells(&ns)
}

/// Side by side, since a lost cell is found by its silence only after 30 s.
fn lost(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let names = ["terminated", "shut-down"];
    for name in names {
        let mut pod = script(name, STAY);
        pod["spec"]["restartPolicy"] = json!("Always");
        world.apply(&ns, &pod)?;
    }
    let mut pods = Vec::new();
    for name in names {
        let pod = world.wait_ready(&ns, name)?;
        let instances = launched(world, &pod)?;
        ensure!(instances.len() == 1, "{name} has {instances:?}");
        pods.push((name, pod, instances[0].id.clone()));
    }
    world.ec2()?.terminate(&pods[0].2)?;
    world.ec2()?.shut_down(&pods[1].2)?;
    for (name, pod, first) in &pods {
        gets_another(world, &ns, name, pod, first)?;
    }
    for name in names {
        world.delete_pod(&ns, name)?;
    }
    world.wait_no_cells(&ns)
}

fn gets_another(world: &World, ns: &str, name: &str, pod: &Value, first: &str) -> Result<()> {
    wait_until("another instance to run the pod", PATIENCE, || {
        let cells = world.cells(ns)?;
        let other = cells.iter().any(|cell| {
            let status = &cell["status"];
            cell["spec"]["pod"]["name"] == name
                && status["phase"] == "Running"
                && status["instance"].is_string()
                && status["instance"] != first
        });
        Ok(other.then_some(()))
    })
    .with_context(|| world.events(ns))?;
    let now = world.wait_ready(ns, name)?;
    let exec = outcome(&mut world.kubectl_with(&["exec", "-n", ns, name], &["true"]))?;
    ensure!(
        exec.status.success(),
        "exec: {exec:?}; ready was {}",
        now["status"]
    );
    ended(world, first)?;
    let mut alive = launched(world, pod)?;
    alive.retain(|instance| instance.state == "running");
    ensure!(alive.len() == 1, "{name} has {alive:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::{pods, recovery, streams};

    #[test]
    fn each_case_that_is_played_again_exists_or_it_would_silently_not_be_played() {
        let all: Vec<&str> = [pods::CASES, streams::CASES, recovery::CASES]
            .iter()
            .flat_map(|list| list.iter())
            .map(|case| case.name)
            .collect();
        for name in FROM_OTHERS {
            assert!(all.contains(name), "{name}");
        }
    }
}

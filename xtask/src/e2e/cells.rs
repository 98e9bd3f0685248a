//! What people do to Cell objects and their definition by hand: a running pod never notices, and the controller says what it saw.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::controller::NODE;
use super::manifests::STAY;
use super::recovery::{lives_on, marked};
use super::world::PATIENCE;
use super::{Case, World};
use crate::build;
use crate::command::{cmd, read};
use crate::daemon::wait_until;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cells: a change no controller would make is refused in words a user understands",
        run: refused,
    },
    Case {
        name: "cells: an object changed by hand is put back, and its pod runs on",
        run: changed,
    },
    Case {
        name: "cells: an object deleted by hand stays until its pod ends",
        run: deleted,
    },
    Case {
        name: "cells: an object whose finalizer was stripped is written again",
        run: stripped,
    },
    Case {
        name: "cells: an object of another cluster is left alone",
        run: foreign,
    },
    Case {
        name: "cells: a definition of another version of Kip is never written over, and one too old is named",
        run: definition,
    },
];

const CELLS: &str = "/apis/kip.elotl.co/v1alpha1/cells";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/cells.kip.elotl.co";
const MERGE: &str = "application/merge-patch+json";
const FORGED: &str = "0123456789012345678901234567890123456789";

/// The one cell of a namespace, running.
fn cell(world: &World, ns: &str) -> Result<Value> {
    wait_until("the cell to be recorded as running", PATIENCE, || {
        let cells = world.cells(ns)?;
        ensure!(cells.len() == 1, "there are {} cells", cells.len());
        Ok(cells
            .into_iter()
            .find(|cell| cell["status"]["phase"] == "Running"))
    })
}

fn path(cell: &Value) -> Result<String> {
    let name = cell["metadata"]["name"]
        .as_str()
        .context("a cell without a name")?;
    Ok(format!("{CELLS}/{name}"))
}

fn end(world: &World, ns: &str) -> Result<()> {
    world.delete_pod(ns, "steady")?;
    world.wait_no_cells(ns)
}

/// Waits for the cell to say again what it said, and for the pod to be told.
fn wait_restored(world: &World, ns: &str, before: &Value) -> Result<()> {
    wait_until("the cell to be put back", PATIENCE, || {
        let cells = world.cells(ns)?;
        let same = |cell: &Value| {
            cell["status"]["seal"] == before["status"]["seal"]
                && cell["status"]["instance"] == before["status"]["instance"]
                && cell["status"]["phase"] == before["status"]["phase"]
                && cell["spec"]["token"] == before["spec"]["token"]
                && cell["spec"]["attempt"] == before["spec"]["attempt"]
        };
        Ok(cells.iter().any(same).then_some(()))
    })?;
    wait_until("an event that names it", PATIENCE, || {
        Ok(world.events(ns).contains("CellRestored").then_some(()))
    })
}

fn refused(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let before = cell(world, &ns)?;
    let path = path(&before)?;
    let instance = &before["status"]["instance"];
    let status = |phase: &str, instance: &Value| json!({"status": {"attempt": 1, "phase": phase, "instance": instance, "seal": "x"}});
    for (part, patch, words) in [
        (
            "",
            json!({"spec": {"pod": {"uid": "another"}}}),
            "spec.pod cannot be changed",
        ),
        (
            "",
            json!({"spec": {"node": "another"}}),
            "spec.node cannot be changed",
        ),
        (
            "",
            json!({"spec": {"cluster": "another"}}),
            "spec.cluster cannot be changed",
        ),
        ("", json!({"spec": {"attempt": 0}}), "spec.attempt"),
        ("", json!({"spec": {"token": "short"}}), "spec.token"),
        (
            "",
            json!({"spec": {"token": FORGED}}),
            "together with a higher spec.attempt",
        ),
        ("/status", json!({"status": null}), "status cannot be removed"),
        (
            "/status",
            status("Running", &json!("another")),
            "an attempt has one instance",
        ),
        ("/status", status("Booting", instance), "never goes back"),
        ("/status", status("Terminating", instance), "ending"),
        ("/status", status("Dead", instance), "status.phase"),
    ] {
        let answer = world.api.patch(&format!("{path}{part}"), MERGE, &patch)?;
        ensure!(
            answer.code == 422 && answer.text.contains(words),
            "{patch} was answered {}: {}",
            answer.code,
            answer.text
        );
    }
    ensure!(
        cell(world, &ns)?["status"] == before["status"],
        "it was changed all the same"
    );
    lives_on(world, &ns, "steady", &pod, 1)?;
    end(world, &ns)
}

fn changed(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let before = cell(world, &ns)?;
    let path = path(&before)?;
    let over = json!({"status": {"phase": "Terminating", "ending": "Over", "seal": "by hand"}});
    world.api.patch(&format!("{path}/status"), MERGE, &over)?.ok()?;
    wait_restored(world, &ns, &before)?;
    let another = json!({"spec": {"attempt": 7, "token": FORGED}});
    world.api.patch(&path, MERGE, &another)?.ok()?;
    wait_restored(world, &ns, &before)?;
    lives_on(world, &ns, "steady", &pod, 1)?;

    // Changed while nobody looks: the instance's own tags tell what it was.
    world.controller()?.stop()?;
    world.api.patch(&format!("{path}/status"), MERGE, &over)?.ok()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    end(world, &ns)
}

fn deleted(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let path = path(&cell(world, &ns)?)?;
    world.api.delete(&path)?.ok()?;
    let now = world.api.get(&path)?.ok()?;
    ensure!(
        !now.at("/metadata/deletionTimestamp").is_null(),
        "it was not deleted"
    );
    lives_on(world, &ns, "steady", &pod, 1)?;
    world.controller()?.kill()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    end(world, &ns)
}

fn stripped(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let before = cell(world, &ns)?;
    let path = path(&before)?;
    let bare = json!({"metadata": {"finalizers": null}});
    world.api.patch(&path, MERGE, &bare)?.ok()?;
    world.api.delete(&path)?.ok()?;
    wait_restored(world, &ns, &before)?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    end(world, &ns)
}

fn foreign(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let mut theirs = cell(world, &ns)?;
    theirs["metadata"] = json!({"name": "cell-of-another", "finalizers": ["kip.elotl.co/instance"],
        "labels": {"kip.elotl.co/node": NODE}});
    theirs["spec"]["cluster"] = json!("another cluster");
    theirs["spec"]["pod"] = json!({"namespace": "elsewhere", "name": "theirs", "uid": "theirs"});
    let made = world.api.post(CELLS, &theirs)?.ok()?;
    world.controller()?.kill()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    wait_until("the controller to name it", PATIENCE, || {
        Ok(world.controller()?.has_said("cell-of-another")?.then_some(()))
    })?;
    end(world, &ns)?;
    let path = format!("{CELLS}/cell-of-another");
    let now = world.api.get(&path)?.ok()?;
    ensure!(
        now.at("/metadata/resourceVersion") == made.at("/metadata/resourceVersion"),
        "it was written"
    );
    world
        .api
        .patch(&path, MERGE, &json!({"metadata": {"finalizers": null}}))?
        .ok()?;
    world.api.delete(&path)?.ok().map(|_| ())
}

fn definition(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let pod = marked(world, &ns, "steady")?;
    let mark = |version: &str| json!({"metadata": {"annotations": {"kip.elotl.co/schema": version}}});

    let newer = world.api.patch(DEFINITION, MERGE, &mark("99"))?.ok()?;
    world.controller()?.stop()?;
    world.controller()?.start()?;
    lives_on(world, &ns, "steady", &pod, 1)?;
    let said = world.controller()?.has_said("of a newer version of Kip")?;
    ensure!(said, "the controller does not name the newer definition");
    let now = world.api.get(DEFINITION)?.ok()?;
    ensure!(
        now.at("/metadata/generation") == newer.at("/metadata/generation")
            && now.at("/metadata/annotations/kip.elotl.co~1schema") == "99",
        "it was written over"
    );

    world.controller()?.stop()?;
    world.api.patch(DEFINITION, MERGE, &mark("1"))?.ok()?;
    world.controller()?.start()?;
    if world.enforces_rbac() {
        // It may not upgrade it, so it says who may, and how.
        let status = world.controller()?.wait_end(PATIENCE)?;
        ensure!(status.code() == Some(1), "it ended with {status}");
        let said = world.controller()?.has_said("kip crd | kubectl apply")?;
        ensure!(said, "it does not say how to upgrade");
        let path = world.folder().join("crd.yaml");
        std::fs::write(&path, read(&mut cmd(build::binary("kip")?, ["crd"]))?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let path = path.display().to_string();
        world.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", &path])?;
        world.controller()?.start()?;
    }
    lives_on(world, &ns, "steady", &pod, 1)?;
    let now = world.api.get(DEFINITION)?.ok()?;
    ensure!(
        now.at("/metadata/annotations/kip.elotl.co~1schema") != "1",
        "it was not upgraded"
    );
    end(world, &ns)?;
    // What was upgraded serves.
    world.apply(&ns, &super::manifests::script("steady", STAY))?;
    world.wait_ready(&ns, "steady")?;
    end(world, &ns)
}

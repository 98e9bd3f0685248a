//! What only a control plane with a controller-manager does: Deployments and Jobs. And what only one with RBAC can show.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::manifests::{STAY, spec};
use super::world::PATIENCE;
use super::{Case, World};
use crate::command::outcome;
use crate::daemon::wait_until;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "controllers: a Deployment scales up, down and replaces what is lost",
        run: deployment,
    },
    Case {
        name: "controllers: a Job runs to completion",
        run: job,
    },
    Case {
        name: "permissions: the controller can do no more than it needs",
        run: permissions,
    },
];

fn deployment(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut template = spec(STAY);
    template["restartPolicy"] = json!("Always");
    world.apply(
        &ns,
        &json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fleet"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "fleet"}},
                     "template": {"metadata": {"labels": {"app": "fleet"}}, "spec": template}},
        }),
    )?;
    world.kubectl_ok(&[
        "rollout",
        "status",
        "-n",
        &ns,
        "deployment/fleet",
        "--timeout=90s",
    ])?;
    ensure!(
        world.cells(&ns)?.len() == 2,
        "two replicas have {} cells",
        world.cells(&ns)?.len()
    );
    let first = world.kubectl_ok(&[
        "get",
        "pods",
        "-n",
        &ns,
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    world.delete_pod(&ns, &first)?;
    world.kubectl_ok(&[
        "rollout",
        "status",
        "-n",
        &ns,
        "deployment/fleet",
        "--timeout=90s",
    ])?;
    world.kubectl_ok(&["scale", "-n", &ns, "deployment/fleet", "--replicas=1"])?;
    wait_until("one cell to remain", PATIENCE, || {
        Ok((world.cells(&ns)?.len() == 1).then_some(()))
    })?;
    world.kubectl_ok(&[
        "delete",
        "-n",
        &ns,
        "deployment/fleet",
        "--cascade=foreground",
        "--timeout=90s",
    ])?;
    world.wait_no_cells(&ns)
}

fn job(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"completions": 3, "parallelism": 2, "backoffLimit": 0, "template": {"spec": spec("echo done $HOSTNAME")}},
    }))?;
    world
        .kubectl_ok(&[
            "wait",
            "-n",
            &ns,
            "job/work",
            "--for=condition=Complete",
            "--timeout=120s",
        ])
        .with_context(|| world.events(&ns))?;
    world.wait_no_cells(&ns)?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "-l", "job-name=work"])?;
    ensure!(logs.lines().count() == 3, "three completions logged {logs:?}");
    world
        .kubectl_ok(&["delete", "-n", &ns, "job/work", "--timeout=90s"])
        .map(|_| ())
}

fn permissions(world: &mut World) -> Result<()> {
    for (verb, resource, allowed) in [
        ("get", "pods", true),
        ("patch", "pods --subresource=status", true),
        ("create", "tokenreviews.authentication.k8s.io", true),
        ("create", "pods", false),
        ("delete", "nodes", false),
        ("create", "clusterroles.rbac.authorization.k8s.io", false),
        ("update", "configmaps", false),
        ("delete", "namespaces", false),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", false),
    ] {
        let (kind, subresource) = resource.split_once(" --subresource=").unwrap_or((resource, ""));
        let mut asked = vec![
            "auth",
            "can-i",
            verb,
            kind,
            "--as=system:serviceaccount:kip:kip",
            "-n",
            "default",
        ];
        if !subresource.is_empty() {
            asked.extend(["--subresource", subresource]);
        }
        let answer = outcome(&mut world.kubectl(&asked))?;
        let yes = String::from_utf8_lossy(&answer.stdout).trim() == "yes";
        ensure!(
            yes == allowed,
            "`{verb} {resource}` is {}allowed",
            if yes { "" } else { "not " }
        );
    }
    Ok(())
}

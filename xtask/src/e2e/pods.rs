//! What becomes of a pod: it runs, ends, fails for its own reasons, or waits and says why.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::manifests::{STAY, container, script};
use super::world::PATIENCE;
use super::{Case, World};
use crate::daemon::wait_until;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "pods: a batch pod computes something and ends",
        run: batch,
    },
    Case {
        name: "pods: a failing pod tells its exit code",
        run: failing,
    },
    Case {
        name: "pods: init container, ConfigMap and Secret",
        run: configured,
    },
    Case {
        name: "pods: two containers share a volume",
        run: shared_volume,
    },
    Case {
        name: "pods: environment from the pod itself and its account's token",
        run: downward,
    },
    Case {
        name: "pods: an image that does not exist keeps the pod waiting with the reason",
        run: wrong_image,
    },
    Case {
        name: "pods: a command that does not exist is named",
        run: wrong_command,
    },
    Case {
        name: "pods: a missing ConfigMap is waited for",
        run: missing_config,
    },
    Case {
        name: "pods: a request that fits nothing says why and launches nothing",
        run: too_big,
    },
    Case {
        name: "pods: a crashing container is restarted with back-off",
        run: crash_loop,
    },
    Case {
        name: "pods: a container over its memory limit is OOMKilled",
        run: out_of_memory,
    },
    Case {
        name: "pods: two pods have a cell each",
        run: two_at_once,
    },
    Case {
        name: "pods: delete ends the program gracefully and the cell with it",
        run: graceful,
    },
    Case {
        name: "pods: kubectl shows and describes a running pod",
        run: described,
    },
];

fn terminated(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["terminated"]
}

fn waiting_reason(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
        .as_str()
        .unwrap_or_default()
}

fn batch(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let sum = "s=0; i=1; while [ $i -le 1000 ]; do s=$((s+i)); i=$((i+1)); done; echo sum $s";
    world.apply(&ns, &script("batch", sum))?;
    let pod = world.wait_phase(&ns, "batch", "Succeeded")?;
    ensure!(
        terminated(&pod)["exitCode"] == 0,
        "no exit code 0: {}",
        pod["status"]
    );
    ensure!(
        terminated(&pod)["reason"] == "Completed",
        "the reason is not Completed: {}",
        pod["status"]
    );
    world
        .wait_no_cells(&ns)
        .context("a pod that has ended still costs a cell")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "batch"])?;
    ensure!(logs == "sum 500500\n", "the logs of an ended pod are {logs:?}");
    world.delete_pod(&ns, "batch")
}

fn failing(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &script("failing", "echo about to fail; exit 3"))?;
    let pod = world.wait_phase(&ns, "failing", "Failed")?;
    ensure!(
        terminated(&pod)["exitCode"] == 3,
        "no exit code 3: {}",
        pod["status"]
    );
    ensure!(
        terminated(&pod)["reason"] == "Error",
        "the reason is not Error: {}",
        pod["status"]
    );
    world.wait_no_cells(&ns)?;
    world.delete_pod(&ns, "failing")
}

fn configured(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(
        &ns,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"greeting": "hello", "page": "<h1>page</h1>"}}),
    )?;
    world.apply(
        &ns,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"},
        "stringData": {"word": "hush"}}),
    )?;
    let mut pod = script(
        "configured",
        "cat /scratch/made /config/page /secret/word; echo; echo $GREETING $WORD",
    );
    let work = json!({"name": "work", "mountPath": "/scratch"});
    let mut init = container("prepare", "echo prepared > /scratch/made");
    init["volumeMounts"] = json!([work]);
    pod["spec"]["initContainers"] = json!([init]);
    pod["spec"]["volumes"] = json!([
        {"name": "work", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "word"}},
    ]);
    let main = &mut pod["spec"]["containers"][0];
    main["volumeMounts"] =
        json!([work, {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"}]);
    main["env"] = json!([
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "word", "key": "word"}}},
    ]);
    world.apply(&ns, &pod)?;
    let pod = world.wait_phase(&ns, "configured", "Succeeded")?;
    let init = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
    ensure!(
        init["exitCode"] == 0,
        "the init container did not end with 0: {}",
        pod["status"]
    );
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "configured"])?;
    ensure!(
        logs == "prepared\n<h1>page</h1>hush\nhello hush\n",
        "it saw {logs:?}"
    );
    world.delete_pod(&ns, "configured")
}

fn shared_volume(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script(
        "shared",
        "while [ ! -e /data/said ]; do sleep 0.05; done; cat /data/said",
    );
    let mount = json!([{"name": "data", "mountPath": "/data"}]);
    let mut other = container(
        "other",
        "echo from the other > /data/.new; mv /data/.new /data/said",
    );
    other["volumeMounts"] = mount.clone();
    pod["spec"]["containers"][0]["volumeMounts"] = mount;
    pod["spec"]["containers"]
        .as_array_mut()
        .context("no containers")?
        .push(other);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    world.apply(&ns, &pod)?;
    world.wait_phase(&ns, "shared", "Succeeded")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "shared", "-c", "main"])?;
    ensure!(logs == "from the other\n", "it read {logs:?}");
    world.delete_pod(&ns, "shared")
}

fn downward(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let read = "echo $NAME $NODE; [ -n \"$IP\" ] && echo has an address; \
                [ -s /var/run/secrets/kubernetes.io/serviceaccount/token ] && echo has a token; \
                cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; hostname";
    let mut pod = script("downward", read);
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]);
    world.apply(&ns, &pod)?;
    world.wait_phase(&ns, "downward", "Succeeded")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "downward"])?;
    let want = format!(
        "downward {}\nhas an address\nhas a token\n{ns}\ndownward\n",
        super::controller::NODE
    );
    ensure!(logs == want, "it saw {logs:?} instead of {want:?}");
    world.delete_pod(&ns, "downward")
}

fn wrong_image(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("wrong-image", "true");
    // A registry that refuses at once, so that no resolver's patience is tested.
    pod["spec"]["containers"][0]["image"] = json!("127.0.0.1:9/no/such-image:1");
    world.apply(&ns, &pod)?;
    let pod = world.wait_pod(&ns, "wrong-image", "to name its image", |pod| {
        matches!(waiting_reason(pod), "ErrImagePull" | "ImagePullBackOff")
    })?;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].to_string();
    ensure!(
        message.contains("no/such-image"),
        "the message does not name the image: {message}"
    );
    ensure!(
        pod["status"]["phase"] == "Pending",
        "the phase is {}",
        pod["status"]["phase"]
    );
    world.wait_pod(&ns, "wrong-image", "to back off", |pod| {
        waiting_reason(pod) == "ImagePullBackOff"
    })?;
    ensure!(
        world.cells(&ns)?.len() == 1,
        "a wrong image cost more than one cell"
    );
    world.delete_pod(&ns, "wrong-image")?;
    world.wait_no_cells(&ns)
}

fn wrong_command(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("wrong-command", "true");
    pod["spec"]["containers"][0]["command"] = json!(["no-such-program"]);
    world.apply(&ns, &pod)?;
    let pod = world.wait_pod(&ns, "wrong-command", "to name its command", |pod| {
        pod["status"]["containerStatuses"][0]["state"]
            .to_string()
            .contains("no-such-program")
    })?;
    let state = &pod["status"]["containerStatuses"][0]["state"];
    let reason = state["terminated"]["reason"]
        .as_str()
        .or(state["waiting"]["reason"].as_str())
        .unwrap_or_default();
    ensure!(
        matches!(
            reason,
            "StartError" | "ContainerCannotRun" | "RunContainerError" | "CrashLoopBackOff"
        ),
        "the reason is {reason}"
    );
    world.delete_pod(&ns, "wrong-command")
}

fn missing_config(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("needy", "echo $VALUE");
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "VALUE", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "value"}}}]);
    world.apply(&ns, &pod)?;
    let pod = world.wait_pod(&ns, "needy", "to name the missing ConfigMap", |pod| {
        let status = pod["status"].to_string();
        status.contains("CreateContainerConfigError") && status.contains("late")
    })?;
    ensure!(
        pod["status"]["phase"] == "Pending",
        "the phase is {}",
        pod["status"]["phase"]
    );
    world.apply(&ns, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"value": "at last"}}))?;
    world
        .wait_phase(&ns, "needy", "Succeeded")
        .context("the ConfigMap came, but not the pod")?;
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "needy"])?;
    ensure!(logs == "at last\n", "it saw {logs:?}");
    world.delete_pod(&ns, "needy")
}

fn too_big(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("too-big", "true");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "4000", "memory": "100Ti"}});
    // Past the scheduler, which may hold it back for the same reason.
    pod["spec"]["nodeName"] = json!(super::controller::NODE);
    world.apply(&ns, &pod)?;
    wait_until("an event to say why", PATIENCE, || {
        let events = world.events(&ns);
        let said = events.contains("too-big") && (events.contains("memory") || events.contains("cpu"));
        Ok(said.then_some(()))
    })
    .with_context(|| world.events(&ns))?;
    let pod = world.pod(&ns, "too-big")?;
    ensure!(
        pod["status"]["phase"] == "Pending",
        "the phase is {}",
        pod["status"]["phase"]
    );
    ensure!(
        world
            .cells(&ns)?
            .iter()
            .all(|cell| cell["status"]["instance"].is_null()),
        "something was launched"
    );
    world.delete_pod(&ns, "too-big")?;
    world.wait_no_cells(&ns)
}

fn crash_loop(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("crashing", "echo life $(date +%s%N); exit 5");
    pod["spec"]["restartPolicy"] = json!("Always");
    world.apply(&ns, &pod)?;
    let pod = world.wait_pod(&ns, "crashing", "to back off", |pod| {
        waiting_reason(pod) == "CrashLoopBackOff"
            && pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
    })?;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    ensure!(
        last["exitCode"] == 5,
        "the last state does not tell the exit code: {}",
        pod["status"]
    );
    let logs = world.kubectl_ok(&["logs", "-n", &ns, "crashing", "--previous"])?;
    ensure!(
        logs.starts_with("life "),
        "the previous life left no logs: {logs:?}"
    );
    ensure!(world.cells(&ns)?.len() == 1, "a crash cost a second cell");
    world.delete_pod(&ns, "crashing")
}

fn out_of_memory(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let mut pod = script("greedy", "tail /dev/zero");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "500m", "memory": "24Mi"}});
    world.apply(&ns, &pod)?;
    let pod = world.wait_phase(&ns, "greedy", "Failed")?;
    ensure!(
        terminated(&pod)["reason"] == "OOMKilled",
        "the reason is not OOMKilled: {}",
        pod["status"]
    );
    ensure!(
        terminated(&pod)["exitCode"] == 137,
        "the exit code is not 137: {}",
        pod["status"]
    );
    world.delete_pod(&ns, "greedy")
}

fn two_at_once(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    let both = [script("left", STAY), script("right", STAY)];
    world.apply(&ns, &json!({"apiVersion": "v1", "kind": "List", "items": both}))?;
    let (left, right) = (world.wait_ready(&ns, "left")?, world.wait_ready(&ns, "right")?);
    let address = |pod: &Value| pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    ensure!(
        !address(&left).is_empty() && !address(&right).is_empty(),
        "a pod has no address"
    );
    ensure!(
        address(&left) != address(&right),
        "two pods share the address {}",
        address(&left)
    );
    ensure!(
        world.cells(&ns)?.len() == 2,
        "two pods have {} cells",
        world.cells(&ns)?.len()
    );
    world.delete_pod(&ns, "left")?;
    let still = world.pod(&ns, "right")?;
    ensure!(still["status"]["phase"] == "Running", "the other pod went along");
    world.delete_pod(&ns, "right")?;
    world.wait_no_cells(&ns)
}

fn graceful(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &script("graceful", STAY))?;
    world.wait_ready(&ns, "graceful")?;
    let mut follow = world.background("follow", &["logs", "-f", "-n", &ns, "graceful"])?;
    follow.wait_for_line("started", PATIENCE)?;
    world.delete_pod(&ns, "graceful")?;
    let log = std::fs::read_to_string(follow.log()).unwrap_or_default();
    ensure!(
        log.contains("told to end"),
        "the program was not told to end: {log:?}"
    );
    world.wait_no_cells(&ns)
}

fn described(world: &mut World) -> Result<()> {
    let ns = world.namespace()?;
    world.apply(&ns, &script("shown", STAY))?;
    let pod = world.wait_ready(&ns, "shown")?;
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
        let conditions = pod["status"]["conditions"].as_array();
        let holds = conditions
            .into_iter()
            .flatten()
            .any(|c| c["type"] == kind && c["status"] == "True");
        ensure!(
            holds,
            "the condition {kind} is not True: {}",
            pod["status"]["conditions"]
        );
    }
    for field in ["hostIP", "podIP", "startTime"] {
        ensure!(pod["status"][field].is_string(), "the status has no {field}");
    }
    ensure!(
        pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()
            .is_some_and(|id| id.starts_with("containerd://")),
        "no containerID"
    );
    let wide = world.kubectl_ok(&["get", "pods", "-n", &ns, "-o", "wide", "--no-headers"])?;
    for word in ["shown", "1/1", "Running", super::controller::NODE] {
        ensure!(
            wide.contains(word),
            "`kubectl get pods -o wide` does not show {word}: {wide}"
        );
    }
    let text = world.kubectl_ok(&["describe", "pod", "-n", &ns, "shown"])?;
    for word in ["Status:", "Running", "Container ID:", "Events:", "Started"] {
        ensure!(
            text.contains(word),
            "`kubectl describe` does not show {word}:\n{text}"
        );
    }
    world.kubectl_ok(&["describe", "node", super::controller::NODE])?;
    world.delete_pod(&ns, "shown")
}

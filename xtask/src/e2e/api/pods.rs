//! Pods as objects: defaults, validation, update rules, binding, eviction.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::patch;
use super::{Expectations, core};

/// A pod no scheduler will touch, so that its object stays as written.
pub(super) fn idle_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "docker.io/library/busybox:1.35"}],
        },
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(key.to_owned(), value);
        }
        Some(Value::Array(list)) => list.push(value),
        _ => {}
    }
    object
}

pub(super) fn create(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let pods = core(&ns, "pods");
    let made = expect.answer("create", api.post(&pods, &idle_pod("one"))?, 201, "");
    for (pointer, want) in [
        ("/kind", json!("Pod")),
        ("/apiVersion", json!("v1")),
        ("/metadata/namespace", json!(ns)),
        ("/metadata/generation", json!(1)),
        ("/spec/restartPolicy", json!("Always")),
        ("/spec/terminationGracePeriodSeconds", json!(30)),
        ("/spec/dnsPolicy", json!("ClusterFirst")),
        ("/spec/enableServiceLinks", json!(true)),
        ("/spec/preemptionPolicy", json!("PreemptLowerPriority")),
        ("/spec/priority", json!(0)),
        ("/spec/securityContext", json!({})),
        ("/spec/serviceAccountName", json!("default")),
        ("/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
        (
            "/spec/containers/0/terminationMessagePath",
            json!("/dev/termination-log"),
        ),
        ("/spec/containers/0/terminationMessagePolicy", json!("File")),
        ("/spec/containers/0/resources", json!({})),
        ("/status/phase", json!("Pending")),
        ("/status/qosClass", json!("BestEffort")),
    ] {
        expect.field("defaults", &made, pointer, want);
    }
    for pointer in [
        "/metadata/uid",
        "/metadata/resourceVersion",
        "/metadata/creationTimestamp",
    ] {
        expect.holds(
            "defaults",
            &made,
            made.at(pointer).is_string(),
            &format!("{pointer} is set"),
        );
    }
    let tolerations = made.at("/spec/tolerations").as_array().map_or(0, Vec::len);
    expect.holds(
        "defaults",
        &made,
        tolerations == 2,
        "not-ready and unreachable are tolerated for a while",
    );

    let again = expect.answer(
        "create twice",
        api.post(&pods, &idle_pod("one"))?,
        409,
        "AlreadyExists",
    );
    expect.field("create twice", &again, "/message", r#"pods "one" already exists"#);
    let latest = with(
        idle_pod("latest"),
        "/spec/containers",
        json!([{"name": "main", "image": "busybox"}]),
    );
    let latest = expect.answer("no tag", api.post(&pods, &latest)?, 201, "");
    expect.field("no tag", &latest, "/spec/containers/0/imagePullPolicy", "Always");
    let generated = with(idle_pod(""), "/metadata", json!({"generateName": "gen-"}));
    let generated = expect.answer("generateName", api.post(&pods, &generated)?, 201, "");
    let name = generated
        .at("/metadata/name")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    expect.holds(
        "generateName",
        &generated,
        name.len() == "gen-".len() + 5 && name.starts_with("gen-"),
        "five characters are added",
    );
    let limits =
        json!([{"name": "main", "image": "a:1", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]);
    let limited = expect.answer(
        "limits",
        api.post(&pods, &with(idle_pod("limited"), "/spec/containers", limits))?,
        201,
        "",
    );
    expect.field(
        "limits become requests",
        &limited,
        "/spec/containers/0/resources/requests/cpu",
        "500m",
    );
    expect.field(
        "limits become requests",
        &limited,
        "/status/qosClass",
        "Guaranteed",
    );
    let dry = expect.answer(
        "dry run",
        api.post(&format!("{pods}?dryRun=All"), &idle_pod("dry"))?,
        201,
        "",
    );
    expect.field("dry run", &dry, "/status/phase", "Pending");
    expect.answer(
        "a dry run leaves nothing",
        api.get(&format!("{pods}/dry"))?,
        404,
        "NotFound",
    );

    invalid(&api, &pods, &mut expect)?;
    expect.verdict()
}

fn invalid(api: &super::super::client::Api, pods: &str, expect: &mut Expectations) -> Result<()> {
    let container = json!({"name": "main", "image": "a:1"});
    let in_container = |key: &str, value: Value| {
        let mut container = container.clone();
        container[key] = value;
        with(idle_pod("bad"), "/spec/containers", json!([container]))
    };
    for (what, pod, field) in [
        (
            "no containers",
            with(idle_pod("bad"), "/spec/containers", json!([])),
            "spec.containers",
        ),
        (
            "a bad name",
            with(idle_pod("bad"), "/metadata/name", json!("Not_A_Name")),
            "metadata.name",
        ),
        (
            "a bad container name",
            in_container("name", json!("Main!")),
            "spec.containers[0].name",
        ),
        (
            "no image",
            in_container("image", json!("")),
            "spec.containers[0].image",
        ),
        (
            "a bad restart policy",
            with(idle_pod("bad"), "/spec/restartPolicy", json!("Sometimes")),
            "spec.restartPolicy",
        ),
        (
            "a bad pull policy",
            in_container("imagePullPolicy", json!("Often")),
            "spec.containers[0].imagePullPolicy",
        ),
        (
            "twice the same container",
            with(idle_pod("bad"), "/spec/containers", json!([container, container])),
            "spec.containers[1].name",
        ),
        (
            "a request above its limit",
            in_container(
                "resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            ),
            "spec.containers[0].resources.requests",
        ),
        (
            "a mount without its volume",
            in_container("volumeMounts", json!([{"name": "data", "mountPath": "/data"}])),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            "a bad label",
            with(idle_pod("bad"), "/metadata/labels", json!({"a": "b c"})),
            "metadata.labels",
        ),
        (
            "a bad port",
            in_container("ports", json!([{"containerPort": 70000}])),
            "spec.containers[0].ports[0].containerPort",
        ),
    ] {
        let answer = expect.answer(what, api.post(pods, &pod)?, 422, "Invalid");
        expect.field(what, &answer, "/details/kind", "Pod");
        let causes = answer
            .at("/details/causes")
            .as_array()
            .cloned()
            .unwrap_or_default();
        let named = causes.iter().any(|cause| cause["field"] == field);
        expect.holds(what, &answer, named, &format!("a cause names {field}"));
    }
    let quantity = in_container("resources", json!({"limits": {"memory": "12 parsecs"}}));
    expect.answer("a bad quantity", api.post(pods, &quantity)?, 400, "BadRequest");
    let number = with(
        idle_pod("bad"),
        "/spec/terminationGracePeriodSeconds",
        json!("soon"),
    );
    expect.answer(
        "a string for a number",
        api.post(pods, &number)?,
        400,
        "BadRequest",
    );
    let unknown = with(idle_pod("bad"), "/spec/containrs", json!([]));
    let strict = expect.answer(
        "an unknown field, strictly",
        api.post(&format!("{pods}?fieldValidation=Strict"), &unknown)?,
        400,
        "BadRequest",
    );
    let message = strict.at("/message").as_str().unwrap_or_default();
    expect.holds(
        "an unknown field, strictly",
        &strict,
        message.contains(r#"unknown field "spec.containrs""#),
        "it names the field",
    );
    let ignored = with(idle_pod("loose"), "/spec/containrs", json!([]));
    let loose = expect.answer(
        "an unknown field, ignored",
        api.post(&format!("{pods}?fieldValidation=Ignore"), &ignored)?,
        201,
        "",
    );
    expect.field(
        "an unknown field, ignored",
        &loose,
        "/spec/containrs",
        Value::Null,
    );
    let account = with(idle_pod("bad"), "/spec/serviceAccountName", json!("nobody"));
    expect.answer(
        "an unknown service account",
        api.post(pods, &account)?,
        403,
        "Forbidden",
    );
    Ok(())
}

pub(super) fn update(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let pods = core(&ns, "pods");
    let made = api.post(&pods, &idle_pod("one"))?.ok()?.json;
    let path = format!("{pods}/one");

    let labelled = with(made.clone(), "/metadata/labels", json!({"app": "two"}));
    let updated = expect.answer("update labels", api.put(&path, &labelled)?, 200, "");
    expect.field("update labels", &updated, "/metadata/labels/app", "two");
    expect.holds(
        "update labels",
        &updated,
        updated.at("/metadata/resourceVersion") != &made["metadata"]["resourceVersion"],
        "the version is a new one",
    );
    let stale = expect.answer("a stale version", api.put(&path, &labelled)?, 409, "Conflict");
    expect.field("a stale version", &stale, "/details/name", "one");
    let unconditional = with(labelled.clone(), "/metadata/resourceVersion", Value::Null);
    expect.answer("no version overwrites", api.put(&path, &unconditional)?, 200, "");
    let same = expect.answer(
        "an update that changes nothing",
        api.put(&path, &unconditional)?,
        200,
        "",
    );
    let now = api.get(&path)?.ok()?;
    expect.field(
        "an update that changes nothing",
        &same,
        "/metadata/resourceVersion",
        now.at("/metadata/resourceVersion").clone(),
    );

    let renamed = with(now.json.clone(), "/metadata/name", json!("other"));
    expect.answer(
        "another name in the body",
        api.put(&path, &renamed)?,
        400,
        "BadRequest",
    );
    let uid = with(
        now.json.clone(),
        "/metadata/uid",
        json!("00000000-0000-0000-0000-000000000000"),
    );
    expect.answer("another uid", api.put(&path, &uid)?, 409, "Conflict");
    let changed = with(now.json.clone(), "/spec/terminationGracePeriodSeconds", json!(7));
    expect.answer(
        "the spec may not change",
        api.put(&path, &changed)?,
        422,
        "Invalid",
    );
    let image = with(now.json.clone(), "/spec/containers/0/image", json!("busybox:2"));
    let image = expect.answer("but an image may", api.put(&path, &image)?, 200, "");
    expect.field("but an image may", &image, "/metadata/generation", 2);

    let status = with(
        image.json.clone(),
        "/status",
        json!({"phase": "Running", "message": "by PUT"}),
    );
    let ignored = expect.answer("status through the pod", api.put(&path, &status)?, 200, "");
    expect.field(
        "status through the pod is ignored",
        &ignored,
        "/status/phase",
        "Pending",
    );
    let both = with(
        with(ignored.json.clone(), "/status/phase", json!("Running")),
        "/metadata/labels",
        json!({"app": "x"}),
    );
    let set = expect.answer(
        "status through its subresource",
        api.put(&format!("{path}/status"), &both)?,
        200,
        "",
    );
    expect.field("status through its subresource", &set, "/status/phase", "Running");
    let read = expect.answer("read a status", api.get(&format!("{path}/status"))?, 200, "");
    expect.field("read a status", &read, "/kind", "Pod");
    let conditions = json!({"status": {"conditions": [{"type": "kip.elotl.co/test", "status": "True"}]}});
    let patched = expect.answer(
        "patch a status",
        api.patch(&format!("{path}/status"), patch::STRATEGIC, &conditions)?,
        200,
        "",
    );
    expect.field(
        "patch a status",
        &patched,
        "/status/conditions/0/type",
        "kip.elotl.co/test",
    );
    expect.field(
        "patch a status keeps the rest",
        &patched,
        "/status/phase",
        "Running",
    );
    let nowhere = with(idle_pod("nope"), "/metadata/name", json!("nope"));
    expect.answer(
        "update what is not there",
        api.put(&format!("{pods}/nope"), &nowhere)?,
        404,
        "NotFound",
    );
    expect.verdict()
}

pub(super) fn binding(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let pods = core(&ns, "pods");
    api.post(&pods, &idle_pod("bound"))?.ok()?;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "no-such-node"},
    });
    let path = format!("{pods}/bound");
    let bound = expect.answer("bind", api.post(&format!("{path}/binding"), &binding)?, 201, "");
    expect.field("bind", &bound, "/kind", "Status");
    expect.field("bind", &bound, "/status", "Success");
    let pod = expect.answer("bound", api.get(&path)?, 200, "");
    expect.field("bound", &pod, "/spec/nodeName", "no-such-node");
    let conditions = pod
        .at("/status/conditions")
        .as_array()
        .cloned()
        .unwrap_or_default();
    let scheduled = conditions
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["status"] == "True");
    expect.holds("bound", &pod, scheduled, "the condition PodScheduled is True");
    expect.answer(
        "bind twice",
        api.post(&format!("{path}/binding"), &binding)?,
        409,
        "Conflict",
    );
    let selected = api.get(&format!("{pods}?fieldSelector=spec.nodeName%3Dno-such-node"))?;
    let selected = expect.answer("select by node", selected, 200, "");
    expect.field("select by node", &selected, "/items/0/metadata/name", "bound");
    let mut other = binding.clone();
    expect.answer(
        "a binding of another name",
        api.post(&format!("{pods}/nope/binding"), &other)?,
        400,
        "BadRequest",
    );
    other["metadata"]["name"] = json!("nope");
    expect.answer(
        "bind nothing",
        api.post(&format!("{pods}/nope/binding"), &other)?,
        404,
        "NotFound",
    );

    api.post(&pods, &idle_pod("evicted"))?.ok()?;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": ns}});
    let evicted = expect.answer(
        "evict",
        api.post(&format!("{pods}/evicted/eviction"), &eviction)?,
        201,
        "",
    );
    expect.field("evict", &evicted, "/status", "Success");
    expect.answer(
        "an evicted pod on no node is gone",
        api.get(&format!("{pods}/evicted"))?,
        404,
        "NotFound",
    );
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nope", "namespace": ns}});
    expect.answer(
        "evict nothing",
        api.post(&format!("{pods}/nope/eviction"), &eviction)?,
        404,
        "NotFound",
    );

    // A pod on a node waits for its kubelet; only force takes it away at once.
    let deleted = expect.answer("delete a bound pod", api.delete(&path)?, 200, "");
    expect.field("delete a bound pod", &deleted, "/kind", "Pod");
    expect.field(
        "delete a bound pod",
        &deleted,
        "/metadata/deletionGracePeriodSeconds",
        30,
    );
    expect.holds(
        "delete a bound pod",
        &deleted,
        deleted.at("/metadata/deletionTimestamp").is_string(),
        "it is marked",
    );
    expect.answer("it waits for its kubelet", api.get(&path)?, 200, "");
    expect.answer(
        "by force",
        api.delete_with(&path, &json!({"gracePeriodSeconds": 0}))?,
        200,
        "",
    );
    expect.answer("by force", api.get(&path)?, 404, "NotFound");
    expect.verdict()
}

//! Deletion, and the smaller resources a node and its pods need.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::patch;
use super::pods::idle_pod;
use super::{Expectations, core};

pub(super) fn deletion(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let maps = core(&ns, "configmaps");
    let map = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    let made = api.post(&maps, &map("m", json!({})))?.ok()?;
    let path = format!("{maps}/m");
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    expect.answer("another uid", api.delete_with(&path, &wrong)?, 409, "Conflict");
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    expect.answer(
        "another version",
        api.delete_with(&path, &wrong)?,
        409,
        "Conflict",
    );
    let dry = expect.answer("a dry run", api.delete(&format!("{path}?dryRun=All"))?, 200, "");
    expect.field("a dry run", &dry, "/status", "Success");
    let right = json!({"preconditions": {"uid": made.at("/metadata/uid")}});
    let gone = expect.answer("delete", api.delete_with(&path, &right)?, 200, "");
    expect.field("delete", &gone, "/kind", "Status");
    expect.field("delete", &gone, "/status", "Success");
    expect.field("delete", &gone, "/details/name", "m");
    expect.field("delete", &gone, "/details/uid", made.at("/metadata/uid").clone());
    expect.answer("deleted", api.get(&path)?, 404, "NotFound");

    let mut held = map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["kip.elotl.co/test"]);
    api.post(&maps, &held)?.ok()?;
    let path = format!("{maps}/held");
    let marked = expect.answer("delete what a finalizer holds", api.delete(&path)?, 200, "");
    expect.field("delete what a finalizer holds", &marked, "/kind", "ConfigMap");
    expect.holds(
        "delete what a finalizer holds",
        &marked,
        marked.at("/metadata/deletionTimestamp").is_string(),
        "it is marked",
    );
    let first = marked.at("/metadata/deletionTimestamp").clone();
    let twice = expect.answer("delete it twice", api.delete(&path)?, 200, "");
    expect.field(
        "delete it twice keeps the time",
        &twice,
        "/metadata/deletionTimestamp",
        first,
    );
    let another = json!({"metadata": {"finalizers": ["kip.elotl.co/test", "kip.elotl.co/late"]}});
    expect.answer(
        "no finalizer can be added late",
        api.patch(&path, patch::MERGE, &another)?,
        422,
        "Invalid",
    );
    let released = json!({"metadata": {"finalizers": []}});
    expect.answer("let it go", api.patch(&path, patch::MERGE, &released)?, 200, "");
    expect.answer("it is gone", api.get(&path)?, 404, "NotFound");

    for (name, tier) in [("a", "old"), ("b", "old"), ("c", "new")] {
        api.post(&maps, &map(name, json!({"tier": tier})))?.ok()?;
    }
    let many = api.delete(&format!("{maps}?labelSelector=tier%3Dold"))?;
    let many = expect.answer("delete many", many, 200, "");
    expect.field("delete many", &many, "/kind", "ConfigMapList");
    let left = api.get(&format!("{maps}?labelSelector=tier"))?.ok()?;
    expect.field(
        "delete many leaves the others",
        &left,
        "/items/0/metadata/name",
        "c",
    );
    expect.field("delete many leaves the others", &left, "/items/1", Value::Null);

    let pods = core(&ns, "pods");
    api.post(&pods, &idle_pod("p"))?.ok()?;
    let pod = expect.answer("a pod on no node", api.delete(&format!("{pods}/p"))?, 200, "");
    expect.field("a pod on no node", &pod, "/kind", "Pod");
    expect.answer(
        "a pod on no node goes at once",
        api.get(&format!("{pods}/p"))?,
        404,
        "NotFound",
    );
    expect.verdict()
}

pub(super) fn config(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let (maps, secrets) = (core(&ns, "configmaps"), core(&ns, "secrets"));
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "data": {"no good": "x"}});
    expect.answer("a bad key", api.post(&maps, &bad)?, 422, "Invalid");
    let fixed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fixed"}, "immutable": true, "data": {"a": "1"}});
    expect.answer("immutable", api.post(&maps, &fixed)?, 201, "");
    let change = api.patch(
        &format!("{maps}/fixed"),
        patch::MERGE,
        &json!({"data": {"a": "2"}}),
    )?;
    expect.answer("an immutable map stays", change, 422, "Invalid");

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": "hush"}});
    let made = expect.answer("secret", api.post(&secrets, &secret)?, 201, "");
    expect.field("secret", &made, "/type", "Opaque");
    expect.field("text is encoded", &made, "/data/word", "aHVzaA==");
    expect.field("text is not kept", &made, "/stringData", Value::Null);
    let bad = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bad"}, "data": {"word": "not base64!"}});
    expect.answer("not base64", api.post(&secrets, &bad)?, 400, "BadRequest");
    let docker = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "d"}, "type": "kubernetes.io/dockerconfigjson"});
    expect.answer(
        "a registry secret without its key",
        api.post(&secrets, &docker)?,
        422,
        "Invalid",
    );
    let kind = api.patch(&format!("{secrets}/s"), patch::MERGE, &json!({"type": "other"}))?;
    expect.answer("the type stays", kind, 422, "Invalid");

    let services = core(&ns, "services");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let made = expect.answer("service", api.post(&services, &service)?, 201, "");
    expect.field("service", &made, "/spec/type", "ClusterIP");
    expect.field("service", &made, "/spec/ports/0/protocol", "TCP");
    expect.field("service", &made, "/spec/ports/0/targetPort", 80);
    expect.field("service", &made, "/spec/sessionAffinity", "None");
    expect.holds(
        "service",
        &made,
        made.at("/spec/clusterIP").is_string(),
        "it has an address",
    );
    expect.verdict()
}

pub(super) fn node_objects(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let name = format!("{ns}-node");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"type": "test"}},
        "spec": {"taints": [{"key": "kip.elotl.co/test", "effect": "NoSchedule"}]}});
    expect.answer("node", api.post("/api/v1/nodes", &node)?, 201, "");
    let path = format!("/api/v1/nodes/{name}");
    let status = json!({"status": {"capacity": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True", "reason": "Test"}]}});
    let patched = expect.answer(
        "node status",
        api.patch(&format!("{path}/status"), patch::STRATEGIC, &status)?,
        200,
        "",
    );
    expect.field("node status", &patched, "/status/capacity/cpu", "4");
    let more = json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "False"}]}});
    let more = expect.answer(
        "conditions merge by type",
        api.patch(&format!("{path}/status"), patch::STRATEGIC, &more)?,
        200,
        "",
    );
    let conditions = more.at("/status/conditions").as_array().map_or(0, Vec::len);
    expect.holds(
        "conditions merge by type",
        &more,
        conditions == 2,
        "both conditions are there",
    );
    expect.answer("delete the node", api.delete(&path)?, 200, "");

    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{ns}/leases");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let made = expect.answer("lease", api.post(&leases, &lease)?, 201, "");
    expect.field("lease", &made, "/spec/renewTime", "2026-01-01T00:00:00.000000Z");
    let mut renewed = made.json.clone();
    renewed["spec"]["renewTime"] = json!("2026-01-01T00:00:10.000000Z");
    expect.answer("renew", api.put(&format!("{leases}/l"), &renewed)?, 200, "");
    expect.answer(
        "renew on a stale version",
        api.put(&format!("{leases}/l"), &renewed)?,
        409,
        "Conflict",
    );
    let mut negative = lease.clone();
    negative["metadata"]["name"] = json!("negative");
    negative["spec"]["leaseDurationSeconds"] = json!(-1);
    expect.answer(
        "a negative duration",
        api.post(&leases, &negative)?,
        422,
        "Invalid",
    );

    let events = core(&ns, "events");
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Test", "count": 1,
        "message": "said", "involvedObject": {"kind": "Pod", "namespace": ns, "name": "p", "uid": "u-1"},
        "source": {"component": "kip"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"});
    expect.answer("event", api.post(&events, &event)?, 201, "");
    let selected = api.get(&format!("{events}?fieldSelector=involvedObject.name%3Dp"))?;
    let selected = expect.answer("events of an object", selected, 200, "");
    expect.field("events of an object", &selected, "/items/0/reason", "Test");
    let none = api
        .get(&format!("{events}?fieldSelector=involvedObject.name%3Dother"))?
        .ok()?;
    expect.field("events of another object", &none, "/items", json!([]));
    let mut elsewhere = event.clone();
    elsewhere["involvedObject"]["namespace"] = json!("other");
    elsewhere["metadata"]["name"] = json!("elsewhere");
    expect.answer(
        "an event of another namespace",
        api.post(&events, &elsewhere)?,
        422,
        "Invalid",
    );

    let accounts = core(&ns, "serviceaccounts");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let token = expect.answer(
        "token",
        api.post(&format!("{accounts}/default/token"), &request)?,
        201,
        "",
    );
    expect.holds(
        "token",
        &token,
        token.at("/status/token").is_string(),
        "there is a token",
    );
    expect.holds(
        "token",
        &token,
        token.at("/status/expirationTimestamp").is_string(),
        "and the time it ends",
    );
    expect.answer(
        "a token for nobody",
        api.post(&format!("{accounts}/nobody/token"), &request)?,
        404,
        "NotFound",
    );
    let short = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 10}});
    expect.answer(
        "too short a token",
        api.post(&format!("{accounts}/default/token"), &short)?,
        422,
        "Invalid",
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.at("/status/token")}});
    let known = expect.answer(
        "review",
        api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review)?,
        201,
        "",
    );
    expect.field("review", &known, "/status/authenticated", true);
    expect.field(
        "review",
        &known,
        "/status/user/username",
        format!("system:serviceaccount:{ns}:default"),
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "nonsense"}});
    let unknown = expect.answer(
        "review nonsense",
        api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review)?,
        201,
        "",
    );
    expect.holds(
        "review nonsense",
        &unknown,
        unknown.at("/status/authenticated") != true,
        "it is not authenticated",
    );
    expect.verdict()
}

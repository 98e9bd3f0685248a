//! What clients ask first, and how the server says no.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::Request;
use super::{Expectations, core};

pub(super) fn discovery(world: &mut World) -> Result<()> {
    let (api, mut expect) = (world.api.clone(), Expectations::default());
    for path in ["/healthz", "/readyz", "/livez"] {
        let answer = expect.answer("health", api.get(path)?, 200, "");
        expect.holds("health", &answer, answer.text == "ok", "the body is `ok`");
    }
    let version = expect.answer("version", api.get("/version")?, 200, "");
    expect.field("version", &version, "/major", "1");
    expect.holds(
        "version",
        &version,
        version.at("/gitVersion").is_string(),
        "gitVersion is there",
    );
    let core_versions = expect.answer("core versions", api.get("/api")?, 200, "");
    expect.field("core versions", &core_versions, "/kind", "APIVersions");
    expect.field("core versions", &core_versions, "/versions", json!(["v1"]));
    let groups = expect.answer("groups", api.get("/apis")?, 200, "");
    expect.field("groups", &groups, "/kind", "APIGroupList");
    let names: Vec<&Value> = groups
        .at("/groups")
        .as_array()
        .into_iter()
        .flatten()
        .map(|group| &group["name"])
        .collect();
    for group in ["apiextensions.k8s.io", "coordination.k8s.io"] {
        expect.holds(
            "groups",
            &groups,
            names.iter().any(|name| **name == group),
            &format!("{group} is served"),
        );
    }
    let resources = expect.answer("resources", api.get("/api/v1")?, 200, "");
    expect.field("resources", &resources, "/kind", "APIResourceList");
    expect.field("resources", &resources, "/groupVersion", "v1");
    let find = |name: &str| {
        resources
            .at("/resources")
            .as_array()
            .into_iter()
            .flatten()
            .find(|resource| resource["name"] == name)
            .cloned()
    };
    let pods = find("pods").unwrap_or_default();
    expect.holds(
        "pods",
        &resources,
        pods["namespaced"] == true && pods["kind"] == "Pod",
        "pods are namespaced Pods",
    );
    expect.holds(
        "pods",
        &resources,
        pods["shortNames"] == json!(["po"]),
        "the short name is `po`",
    );
    for verb in [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ] {
        let has = pods["verbs"]
            .as_array()
            .is_some_and(|verbs| verbs.iter().any(|v| v == verb));
        expect.holds("pods", &resources, has, &format!("pods know the verb {verb}"));
    }
    for name in [
        "pods/status",
        "pods/binding",
        "pods/eviction",
        "pods/log",
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "nodes",
        "nodes/status",
        "events",
        "configmaps",
        "secrets",
        "services",
        "namespaces",
        "serviceaccounts",
        "serviceaccounts/token",
    ] {
        expect.holds(
            "resources",
            &resources,
            find(name).is_some(),
            &format!("{name} is served"),
        );
    }
    let nodes = find("nodes").unwrap_or_default();
    expect.holds(
        "nodes",
        &resources,
        nodes["namespaced"] == false,
        "nodes are cluster-scoped",
    );
    let old = Request::new("GET", "/openapi/v2").header("Accept: application/json");
    let old = expect.answer("the old schema", api.send(&old)?, 200, "");
    expect.field("the old schema", &old, "/swagger", "2.0");
    let leases = expect.answer("leases", api.get("/apis/coordination.k8s.io/v1")?, 200, "");
    expect.field("leases", &leases, "/groupVersion", "coordination.k8s.io/v1");
    let group = expect.answer("one group", api.get("/apis/apiextensions.k8s.io")?, 200, "");
    expect.field("one group", &group, "/kind", "APIGroup");
    expect.field(
        "one group",
        &group,
        "/preferredVersion/groupVersion",
        "apiextensions.k8s.io/v1",
    );
    expect.verdict()
}

pub(super) fn errors(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let pods = core(&ns, "pods");

    let missing = expect.answer("no such pod", api.get(&format!("{pods}/nope"))?, 404, "NotFound");
    expect.field("no such pod", &missing, "/message", r#"pods "nope" not found"#);
    expect.field("no such pod", &missing, "/details/name", "nope");
    expect.field("no such pod", &missing, "/details/kind", "pods");
    expect.field("no such pod", &missing, "/apiVersion", "v1");
    let missing = expect.answer(
        "delete no such pod",
        api.delete(&format!("{pods}/nope"))?,
        404,
        "NotFound",
    );
    expect.field("delete no such pod", &missing, "/details/kind", "pods");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/nope";
    let missing = expect.answer("no such lease", api.get(lease)?, 404, "NotFound");
    expect.field(
        "no such lease",
        &missing,
        "/message",
        r#"leases.coordination.k8s.io "nope" not found"#,
    );
    expect.field("no such lease", &missing, "/details/group", "coordination.k8s.io");

    expect.answer("no such resource", api.get(&core(&ns, "podz"))?, 404, "");
    expect.answer("no such group", api.get("/apis/nope.example.com/v1")?, 404, "");
    expect.answer("no such path", api.get("/nope")?, 404, "");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    expect.answer(
        "POST to a name",
        api.post(&format!("{}/a", core(&ns, "configmaps")), &body)?,
        405,
        "MethodNotAllowed",
    );
    expect.answer(
        "DELETE a status",
        api.delete(&format!("{pods}/nope/status"))?,
        405,
        "MethodNotAllowed",
    );

    let maps = core(&ns, "configmaps");
    let send = |media_type: &str, body: &str| api.send(&Request::new("POST", &maps).body(media_type, body));
    expect.answer("not JSON", send("application/json", "{")?, 400, "BadRequest");
    expect.answer(
        "an unknown media type",
        send("text/plain", "{}")?,
        415,
        "UnsupportedMediaType",
    );
    expect.answer(
        "no kind",
        send("application/json", r#"{"metadata": {"name": "a"}}"#)?,
        201,
        "",
    );
    let other = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}"#;
    expect.answer(
        "another kind",
        send("application/json", other)?,
        400,
        "BadRequest",
    );
    let elsewhere =
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}}"#;
    expect.answer(
        "another namespace",
        send("application/json", elsewhere)?,
        400,
        "BadRequest",
    );
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: b\n";
    let made = expect.answer("YAML", send("application/yaml", yaml)?, 201, "");
    expect.field("YAML", &made, "/data/a", "b");
    let lost = core("no-such-namespace", "configmaps");
    let lost = expect.answer("no such namespace", api.post(&lost, &body)?, 404, "NotFound");
    expect.field("no such namespace", &lost, "/details/kind", "namespaces");

    let nobody = api.send(&Request::new("GET", &pods).anonymous())?;
    expect.answer("no credentials", nobody, 403, "Forbidden");
    let stranger = Request::new("GET", &pods)
        .anonymous()
        .header("Authorization: Bearer nonsense");
    expect.answer("a wrong token", api.send(&stranger)?, 401, "Unauthorized");
    expect.answer(
        "no acceptable form",
        api.send(&Request::new("GET", &pods).header("Accept: image/png"))?,
        406,
        "NotAcceptable",
    );
    expect.answer(
        "an unknown patch",
        api.send(&Request::new("PATCH", &format!("{maps}/a")).body("application/json", "{}"))?,
        415,
        "UnsupportedMediaType",
    );
    expect.verdict()
}

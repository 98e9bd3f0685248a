//! JSON, merge and strategic-merge patches, and server-side apply.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::{Answer, Api, Request, patch};
use super::pods::idle_pod;
use super::{Expectations, core};

pub(super) fn patches(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let maps = core(&ns, "configmaps");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}});
    api.post(&maps, &map)?.ok()?;
    let path = format!("{maps}/m");

    let merged = api.patch(&path, patch::MERGE, &json!({"data": {"a": null, "c": "3"}}))?;
    let merged = expect.answer("merge", merged, 200, "");
    expect.field("merge", &merged, "/data", json!({"b": "2", "c": "3"}));
    let operations = json!([
        {"op": "test", "path": "/data/b", "value": "2"},
        {"op": "replace", "path": "/data/b", "value": "two"},
        {"op": "remove", "path": "/data/c"},
    ]);
    let patched = expect.answer("JSON patch", api.patch(&path, patch::JSON, &operations)?, 200, "");
    expect.field("JSON patch", &patched, "/data", json!({"b": "two"}));
    let wrong = json!([{"op": "test", "path": "/data/b", "value": "no"}]);
    expect.answer(
        "a test that fails",
        api.patch(&path, patch::JSON, &wrong)?,
        422,
        "Invalid",
    );
    let missing = json!([{"op": "remove", "path": "/data/none"}]);
    expect.answer(
        "remove what is not there",
        api.patch(&path, patch::JSON, &missing)?,
        422,
        "Invalid",
    );
    expect.answer(
        "a patch of the wrong form",
        api.patch(&path, patch::JSON, &json!({"a": 1}))?,
        400,
        "BadRequest",
    );
    let malformed = api.send(&Request::new("PATCH", &path).body(patch::MERGE, "{"))?;
    expect.answer("a patch that is no JSON", malformed, 400, "BadRequest");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"z": "z"}});
    expect.answer(
        "a patch with a stale version",
        api.patch(&path, patch::MERGE, &stale)?,
        409,
        "Conflict",
    );
    expect.answer(
        "patch nothing",
        api.patch(&format!("{maps}/none"), patch::MERGE, &json!({}))?,
        404,
        "NotFound",
    );
    let before = api.get(&path)?.ok()?;
    let same = expect.answer(
        "a patch that changes nothing",
        api.patch(&path, patch::MERGE, &json!({}))?,
        200,
        "",
    );
    expect.field(
        "a patch that changes nothing",
        &same,
        "/metadata/resourceVersion",
        before.at("/metadata/resourceVersion").clone(),
    );

    let pods = core(&ns, "pods");
    let mut pod = idle_pod("p");
    pod["spec"]["containers"] = json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]);
    api.post(&pods, &pod)?.ok()?;
    let by_name = json!({"spec": {"containers": [{"name": "b", "image": "b:2"}]}});
    let path = format!("{pods}/p");
    let strategic = expect.answer(
        "strategic merge",
        api.patch(&path, patch::STRATEGIC, &by_name)?,
        200,
        "",
    );
    expect.field(
        "strategic merge keeps the others",
        &strategic,
        "/spec/containers/0/image",
        "a:1",
    );
    expect.field(
        "strategic merge finds by name",
        &strategic,
        "/spec/containers/1/image",
        "b:2",
    );
    expect.answer(
        "a merge patch replaces lists",
        api.patch(&path, patch::MERGE, &by_name)?,
        422,
        "Invalid",
    );
    let finalizers = json!({"metadata": {"finalizers": ["kip.elotl.co/one"]}});
    expect.answer(
        "add a finalizer",
        api.patch(&path, patch::STRATEGIC, &finalizers)?,
        200,
        "",
    );
    let removal = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["kip.elotl.co/one"]}});
    let removed = expect.answer(
        "remove from a list",
        api.patch(&path, patch::STRATEGIC, &removal)?,
        200,
        "",
    );
    expect.field(
        "remove from a list",
        &removed,
        "/metadata/finalizers",
        Value::Null,
    );
    expect.verdict()
}

fn apply_as(api: &Api, manager: &str, path: &str, body: &Value, force: bool) -> Result<Answer> {
    api.patch(
        &format!("{path}?fieldManager={manager}&force={force}"),
        patch::APPLY,
        body,
    )
}

pub(super) fn apply(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let path = format!("{}/m", core(&ns, "configmaps"));
    let body = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});

    let one = apply_as(&api, "one", &path, &body(json!({"a": "1", "b": "2"})), false)?;
    let one = expect.answer("apply creates", one, 201, "");
    expect.field("apply creates", &one, "/metadata/managedFields/0/manager", "one");
    expect.field(
        "apply creates",
        &one,
        "/metadata/managedFields/0/operation",
        "Apply",
    );
    let again = apply_as(&api, "one", &path, &body(json!({"a": "1", "b": "2"})), false)?;
    let again = expect.answer("apply again", again, 200, "");
    expect.field(
        "apply again changes nothing",
        &again,
        "/metadata/resourceVersion",
        one.at("/metadata/resourceVersion").clone(),
    );
    let two = apply_as(&api, "two", &path, &body(json!({"c": "3"})), false)?;
    let two = expect.answer("another manager adds", two, 200, "");
    expect.field(
        "another manager adds",
        &two,
        "/data",
        json!({"a": "1", "b": "2", "c": "3"}),
    );
    let conflict = apply_as(&api, "two", &path, &body(json!({"a": "9", "c": "3"})), false)?;
    let conflict = expect.answer("a field of someone else", conflict, 409, "Conflict");
    expect.field(
        "a field of someone else",
        &conflict,
        "/details/causes/0/reason",
        "FieldManagerConflict",
    );
    expect.field(
        "a field of someone else",
        &conflict,
        "/details/causes/0/field",
        ".data.a",
    );
    let forced = apply_as(&api, "two", &path, &body(json!({"a": "9", "c": "3"})), true)?;
    let forced = expect.answer("by force", forced, 200, "");
    expect.field("by force", &forced, "/data/a", "9");
    let dropped = apply_as(&api, "one", &path, &body(json!({})), false)?;
    let dropped = expect.answer("what one drops goes", dropped, 200, "");
    expect.field(
        "what one drops goes, what two owns stays",
        &dropped,
        "/data",
        json!({"a": "9", "c": "3"}),
    );
    let nobody = api.patch(&path, patch::APPLY, &body(json!({})))?;
    expect.answer("apply by nobody", nobody, 422, "Invalid");
    let managed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "managedFields": [{"manager": "x"}]}});
    expect.answer(
        "apply with managed fields",
        apply_as(&api, "one", &path, &managed, false)?,
        400,
        "BadRequest",
    );
    expect.verdict()
}

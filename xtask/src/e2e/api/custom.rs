//! Custom resources: established, validated by their schema, pruned, with a status of their own.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::{Request, patch};
use super::Expectations;
use crate::daemon::wait_until;

pub(super) fn custom_resources(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let group = format!("{ns}.example.com");
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wi"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 10},
                        "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    }},
                    "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                }}},
            }],
        },
    });
    let path = format!("{definitions}/widgets.{group}");
    expect.answer("define", api.post(definitions, &definition)?, 201, "");
    wait_until(
        "the custom resource to be established",
        Duration::from_secs(20),
        || {
            let answer = api.get(&path)?;
            let conditions = answer
                .at("/status/conditions")
                .as_array()
                .cloned()
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
                .then_some(()))
        },
    )?;
    let mut wrong = definition.clone();
    wrong["metadata"]["name"] = json!("gadgets.example.com");
    expect.answer(
        "a name that is not plural.group",
        api.post(definitions, &wrong)?,
        422,
        "Invalid",
    );

    let widgets = format!("/apis/{group}/v1/namespaces/{ns}/widgets");
    let list = wait_until(
        "the custom resource to be served",
        Duration::from_secs(20),
        || {
            let answer = api.get(&widgets)?;
            Ok((answer.code == 200).then_some(answer))
        },
    )?;
    expect.field("list", &list, "/kind", "WidgetList");
    let discovery = expect.answer("discovery", api.get(&format!("/apis/{group}/v1"))?, 200, "");
    expect.field("discovery", &discovery, "/resources/0/name", "widgets");
    let widget = |name: &str, spec: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": name}, "spec": spec});
    let spec = json!({"size": 3, "nonsense": true, "free": {"any": "thing"}});
    let made = expect.answer("create", api.post(&widgets, &widget("w", spec))?, 201, "");
    expect.field("a default is filled in", &made, "/spec/colour", "red");
    expect.field(
        "what the schema does not know is pruned",
        &made,
        "/spec/nonsense",
        Value::Null,
    );
    expect.field("unless it says otherwise", &made, "/spec/free/any", "thing");
    expect.field("create", &made, "/metadata/generation", 1);
    for (what, spec, field) in [
        ("a value too large", json!({"size": 11}), "spec.size"),
        ("a value of another type", json!({"size": "three"}), "spec.size"),
        ("a missing value", json!({}), "spec.size"),
        (
            "a value not in the list",
            json!({"size": 1, "colour": "blue"}),
            "spec.colour",
        ),
    ] {
        let answer = expect.answer(what, api.post(&widgets, &widget("bad", spec))?, 422, "Invalid");
        expect.field(what, &answer, "/details/causes/0/field", field);
    }
    let strict = widget("strict", json!({"size": 1, "nonsense": true}));
    expect.answer(
        "strictly",
        api.post(&format!("{widgets}?fieldValidation=Strict"), &strict)?,
        400,
        "BadRequest",
    );

    let path_one = format!("{widgets}/w");
    let ignored = api.patch(&path_one, patch::MERGE, &json!({"status": {"phase": "Up"}}))?;
    let ignored = expect.answer("status through the object", ignored, 200, "");
    expect.field(
        "status through the object is ignored",
        &ignored,
        "/status",
        Value::Null,
    );
    let set = api.patch(
        &format!("{path_one}/status"),
        patch::MERGE,
        &json!({"status": {"phase": "Up"}, "spec": {"size": 9}}),
    )?;
    let set = expect.answer("status through its subresource", set, 200, "");
    expect.field("status through its subresource", &set, "/status/phase", "Up");
    expect.field("and nothing but the status", &set, "/spec/size", 3);
    expect.field("a status is no new generation", &set, "/metadata/generation", 1);
    let grown = expect.answer(
        "grow",
        api.patch(&path_one, patch::MERGE, &json!({"spec": {"size": 4}}))?,
        200,
        "",
    );
    expect.field(
        "a new spec is a new generation",
        &grown,
        "/metadata/generation",
        2,
    );
    let strategic = api.patch(&path_one, patch::STRATEGIC, &json!({"spec": {"size": 5}}))?;
    expect.answer("no strategic merge", strategic, 415, "UnsupportedMediaType");
    let applied = widget("applied", json!({"size": 2}));
    let applied = api.patch(
        &format!("{widgets}/applied?fieldManager=one"),
        patch::APPLY,
        &applied,
    )?;
    expect.answer("apply", applied, 201, "");
    let stale = api.put(&path_one, &made.json)?;
    expect.answer("a stale version", stale, 409, "Conflict");
    let table = Request::new("GET", &widgets).header("Accept: application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = expect.answer("a table", api.send(&table)?, 200, "");
    expect.field("a table", &table, "/columnDefinitions/1/name", "Size");
    expect.field("a table", &table, "/rows/1/cells/1", 4);
    expect.answer("delete", api.delete(&path_one)?, 200, "");
    expect.answer("undefine", api.delete(&path)?, 200, "");
    wait_until("the custom resource to be gone", Duration::from_secs(20), || {
        Ok((api.get(&path)?.code == 404 && api.get(&widgets)?.code == 404).then_some(()))
    })?;
    expect.verdict()
}

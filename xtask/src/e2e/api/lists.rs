//! Lists: selectors, pages, tables.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::{Answer, Request};
use super::pods::idle_pod;
use super::{Expectations, core};

fn names(answer: &Answer) -> Vec<String> {
    let items = answer.at("/items").as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

pub(super) fn lists(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let pods = core(&ns, "pods");
    let empty = expect.answer("nothing", api.get(&pods)?, 200, "");
    expect.field("nothing", &empty, "/kind", "PodList");
    expect.field("nothing", &empty, "/items", json!([]));
    expect.holds(
        "nothing",
        &empty,
        empty.at("/metadata/resourceVersion").is_string(),
        "the list has a version",
    );
    for (name, tier) in [("a", "web"), ("b", "web"), ("c", "db"), ("d", "cache"), ("e", "")] {
        let mut pod = idle_pod(name);
        pod["metadata"]["labels"] = if tier.is_empty() {
            json!({})
        } else {
            json!({"tier": tier})
        };
        api.post(&pods, &pod)?.ok()?;
    }
    let all = expect.answer("all", api.get(&pods)?, 200, "");
    expect.holds(
        "all",
        &all,
        names(&all) == ["a", "b", "c", "d", "e"],
        "in the order of their names",
    );
    expect.field("items carry no kind", &all, "/items/0/kind", Value::Null);
    for (selector, want) in [
        ("tier%3Dweb", vec!["a", "b"]),
        ("tier%3D%3Dweb", vec!["a", "b"]),
        ("tier!%3Dweb", vec!["c", "d", "e"]),
        ("tier", vec!["a", "b", "c", "d"]),
        ("!tier", vec!["e"]),
        ("tier%20in%20(web,db)", vec!["a", "b", "c"]),
        ("tier%20notin%20(web,db)", vec!["d", "e"]),
        ("tier%3Dweb,tier!%3Dweb", vec![]),
    ] {
        let found = expect.answer(
            selector,
            api.get(&format!("{pods}?labelSelector={selector}"))?,
            200,
            "",
        );
        expect.holds(
            selector,
            &found,
            names(&found) == want,
            &format!("labels select {want:?}"),
        );
    }
    for (selector, want) in [
        ("metadata.name%3Dc", vec!["c"]),
        ("metadata.name!%3Dc", vec!["a", "b", "d", "e"]),
        ("status.phase%3DPending", vec!["a", "b", "c", "d", "e"]),
        ("status.phase%3DRunning", vec![]),
        ("spec.nodeName%3D", vec!["a", "b", "c", "d", "e"]),
        ("metadata.name%3Dc,status.phase%3DPending", vec!["c"]),
    ] {
        let found = expect.answer(
            selector,
            api.get(&format!("{pods}?fieldSelector={selector}"))?,
            200,
            "",
        );
        expect.holds(
            selector,
            &found,
            names(&found) == want,
            &format!("fields select {want:?}"),
        );
    }
    expect.answer(
        "a bad label selector",
        api.get(&format!("{pods}?labelSelector=a%20b"))?,
        400,
        "BadRequest",
    );
    expect.answer(
        "an unknown field",
        api.get(&format!("{pods}?fieldSelector=spec.nope%3D1"))?,
        400,
        "BadRequest",
    );

    let first = expect.answer("a page", api.get(&format!("{pods}?limit=2"))?, 200, "");
    expect.holds("a page", &first, names(&first) == ["a", "b"], "it has two");
    expect.field("a page", &first, "/metadata/remainingItemCount", 3);
    let token = first
        .at("/metadata/continue")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let second = expect.answer(
        "the next page",
        api.get(&format!("{pods}?limit=2&continue={token}"))?,
        200,
        "",
    );
    expect.holds(
        "the next page",
        &second,
        names(&second) == ["c", "d"],
        "it has the next two",
    );
    expect.field(
        "the next page is of the same moment",
        &second,
        "/metadata/resourceVersion",
        first.at("/metadata/resourceVersion").clone(),
    );
    let token = second
        .at("/metadata/continue")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let last = expect.answer(
        "the last page",
        api.get(&format!("{pods}?limit=2&continue={token}"))?,
        200,
        "",
    );
    expect.holds("the last page", &last, names(&last) == ["e"], "it has the rest");
    expect.holds(
        "the last page",
        &last,
        matches!(last.at("/metadata/continue"), Value::Null),
        "nothing follows",
    );
    expect.answer(
        "a bad continue token",
        api.get(&format!("{pods}?limit=2&continue=nonsense"))?,
        400,
        "BadRequest",
    );

    let table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let pods_table = expect.answer(
        "a table",
        api.send(&Request::new("GET", &pods).header(table))?,
        200,
        "",
    );
    expect.field("a table", &pods_table, "/kind", "Table");
    expect.field("a table", &pods_table, "/apiVersion", "meta.k8s.io/v1");
    let columns: Vec<Value> = pods_table
        .at("/columnDefinitions")
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| c["name"].clone())
        .collect();
    let want = [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP",
        "Node",
        "Nominated Node",
        "Readiness Gates",
    ];
    expect.holds(
        "a table",
        &pods_table,
        columns == want,
        &format!("its columns are {want:?}"),
    );
    expect.field("a table", &pods_table, "/rows/0/cells/0", "a");
    expect.field("a table", &pods_table, "/rows/0/cells/1", "0/1");
    expect.field("a table", &pods_table, "/rows/0/cells/2", "Pending");
    expect.field(
        "a table",
        &pods_table,
        "/rows/0/object/kind",
        "PartialObjectMetadata",
    );
    let metadata = "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let metadata = expect.answer(
        "only metadata",
        api.send(&Request::new("GET", &pods).header(metadata))?,
        200,
        "",
    );
    expect.field("only metadata", &metadata, "/kind", "PartialObjectMetadataList");
    expect.field("only metadata", &metadata, "/items/0/spec", Value::Null);
    let everywhere = expect.answer("all namespaces", api.get("/api/v1/pods?limit=500")?, 200, "");
    expect.field("all namespaces", &everywhere, "/kind", "PodList");
    expect.verdict()
}

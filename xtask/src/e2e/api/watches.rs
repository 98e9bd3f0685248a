//! Watches: every change once, in order, from the version asked for.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::World;
use super::super::client::{Answer, patch};
use super::{Expectations, core};

/// What a watch said: type, name.
fn said(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    answer
        .text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|event| (text(&event["type"]), text(&event["object"]["metadata"]["name"])))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned()))
        .collect()
}

pub(super) fn watches(world: &mut World) -> Result<()> {
    let (api, ns, mut expect) = (world.api.clone(), world.namespace()?, Expectations::default());
    let maps = core(&ns, "configmaps");
    let map = |name: &str, label: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"w": label}}});
    let start = api
        .get(&maps)?
        .ok()?
        .at("/metadata/resourceVersion")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    api.post(&maps, &map("a", "yes"))?.ok()?;
    api.post(&maps, &map("b", "no"))?.ok()?;
    api.patch(&format!("{maps}/a"), patch::MERGE, &json!({"data": {"k": "v"}}))?
        .ok()?;
    api.patch(
        &format!("{maps}/b"),
        patch::MERGE,
        &json!({"metadata": {"labels": {"w": "yes"}}}),
    )?
    .ok()?;
    api.patch(
        &format!("{maps}/a"),
        patch::MERGE,
        &json!({"metadata": {"labels": {"w": "no"}}}),
    )?
    .ok()?;
    api.delete(&format!("{maps}/b"))?.ok()?;

    let watch = |query: &str| api.get(&format!("{maps}?watch=1&timeoutSeconds=1&{query}"));
    let from = expect.answer("watch", watch(&format!("resourceVersion={start}"))?, 200, "");
    let want = pairs(&[
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("MODIFIED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]);
    let heard: Vec<_> = said(&from)
        .into_iter()
        .filter(|(_, name)| name != "kube-root-ca.crt")
        .collect();
    expect.holds("watch", &from, heard == want, &format!("it said {want:?}"));
    let selected = watch(&format!("resourceVersion={start}&labelSelector=w%3Dyes"))?;
    let selected = expect.answer("watch what is selected", selected, 200, "");
    let want = pairs(&[
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("DELETED", "b"),
    ]);
    let heard = said(&selected);
    expect.holds(
        "watch what is selected",
        &selected,
        heard == want,
        &format!("it said {want:?}"),
    );
    let one = watch(&format!(
        "resourceVersion={start}&fieldSelector=metadata.name%3Db"
    ))?;
    let one = expect.answer("watch one", one, 200, "");
    let want = pairs(&[("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]);
    let heard = said(&one);
    expect.holds("watch one", &one, heard == want, &format!("it said {want:?}"));

    let now = expect.answer("watch from now", watch("labelSelector=w")?, 200, "");
    let heard = said(&now);
    expect.holds(
        "watch from now",
        &now,
        heard == pairs(&[("ADDED", "a")]),
        "it starts with what is there",
    );
    let listing =
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=w";
    let listing = expect.answer("watch instead of list", watch(listing)?, 200, "");
    let bookmark = listing
        .text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .any(|event| {
            event["type"] == "BOOKMARK"
                && event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
        });
    expect.holds(
        "watch instead of list",
        &listing,
        bookmark,
        "a bookmark ends what was there",
    );
    let single = api.get(&format!("{maps}/a?watch=1&timeoutSeconds=1"))?;
    expect.answer("watch by name answers", single, 200, "");
    expect.verdict()
}

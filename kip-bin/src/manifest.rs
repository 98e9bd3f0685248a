//! Reads manifests: YAML or JSON, one or several documents, from files or stdin.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// All objects of some files; `-` is stdin. Lists are taken apart.
///
/// # Errors
/// Naming the file and the document that cannot be read.
pub(crate) fn read(paths: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let text = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read stdin")?;
            text
        } else {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        };
        let found = parse(&text).with_context(|| format!("in {}", path.display()))?;
        if found.is_empty() {
            bail!("{} holds no object", path.display());
        }
        objects.extend(found);
    }
    Ok(objects)
}

fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (i, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let number = i + 1;
        let value = Value::deserialize(document)
            .with_context(|| format!("document {number} is neither YAML nor JSON"))?;
        if value.is_null() {
            continue;
        }
        if value.get("kind").and_then(Value::as_str).is_none() {
            bail!("document {number} has no kind: every object needs apiVersion and kind");
        }
        match value.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(value),
        }
    }
    Ok(objects)
}

/// The pod an object is or makes, with a name people know it by. None for objects that make no pods.
///
/// # Errors
/// When it is no pod although it says so: the field is named.
pub(crate) fn pod_of(object: &Value) -> anyhow::Result<Option<(String, Pod)>> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or_default();
    let name = text("/metadata/name")
        .or_else(|| text("/metadata/generateName"))
        .unwrap_or("unnamed");
    let namespace = text("/metadata/namespace").unwrap_or("default");
    let template = match kind {
        "Pod" => object.clone(),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            object.pointer("/spec/template").cloned().unwrap_or_default()
        }
        "CronJob" => object
            .pointer("/spec/jobTemplate/spec/template")
            .cloned()
            .unwrap_or_default(),
        _ => return Ok(None),
    };
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = name.into();
    metadata["namespace"] = namespace.into();
    let pod = json!({"metadata": metadata, "spec": template.get("spec")});
    let shown = if kind == "Pod" {
        format!("{namespace}/{name}")
    } else {
        format!("{namespace}/{}/{name}", kind.to_lowercase())
    };
    let pod = serde_json::from_value(pod).with_context(|| format!("{shown} is no valid pod"))?;
    Ok(Some((shown, pod)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_in_whatever_makes_them() {
        let text = "
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c}]}
---
---
kind: List
items:
- {kind: CronJob, metadata: {name: b, namespace: n}, spec: {jobTemplate: {spec: {template: {spec: {containers: []}}}}}}
- {kind: Service, metadata: {name: c}}
";
        let found: Vec<_> = parse(text)
            .unwrap()
            .iter()
            .filter_map(|object| pod_of(object).unwrap())
            .collect();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["default/a", "n/cronjob/b"]);
        assert_eq!(found[0].1.spec.as_ref().unwrap().containers[0].name, "c");
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        assert!(parse("a: [").unwrap_err().to_string().contains("document 1"));
        assert!(
            parse("kind: A\n---\nfoo: bar")
                .unwrap_err()
                .to_string()
                .contains("document 2 has no kind")
        );
        let error = pod_of(&json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": 1}}))
            .unwrap_err();
        assert!(error.to_string().contains("default/a"), "{error}");
    }
}

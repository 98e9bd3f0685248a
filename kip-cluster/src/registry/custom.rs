//! Turn a CustomResourceDefinition into the resource types it defines.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{ALL_VERBS, Resource, Source, Subresource};
use crate::object;
use crate::schema::cel::Rules;
use crate::schema::{Node, Shape, definition};

/// The schema of one version of a custom resource.
#[derive(Debug)]
pub(crate) struct CustomSchema {
    /// `openAPIV3Schema` as written.
    pub(crate) raw: Value,
    pub(crate) node: Node,
    /// Its `x-kubernetes-validations`.
    pub(crate) rules: Rules,
    pub(crate) columns: Vec<PrinterColumn>,
}

/// One of `additionalPrinterColumns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// The resource types a definition defines: one for each served version.
pub(crate) fn resources_of(crd: &Value) -> Vec<Resource> {
    let text = |path: &[&str]| object::str_at(crd, path).unwrap_or("").to_owned();
    let texts = |path: &[&str]| -> Vec<String> {
        object::list_at(crd, path)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    if object::condition(crd, "Established") != Some("True") {
        return Vec::new();
    }
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    object::list_at(crd, &["spec", "versions"])
        .iter()
        .filter(|version| version.get("served").and_then(Value::as_bool).unwrap_or(false))
        .map(|version| {
            let has_status = object::at(version, &["subresources", "status"]).is_some();
            let kind = text(&["spec", "names", "kind"]);
            let subresources = if has_status {
                let verbs = &["get", "patch", "update"];
                vec![Subresource {
                    name: "status",
                    kind: kind.clone(),
                    kind_version: None,
                    verbs,
                }]
            } else {
                Vec::new()
            };
            let selectable = object::list_at(version, &["selectableFields"])
                .iter()
                .filter_map(|field| field.get("jsonPath").and_then(Value::as_str))
                .map(|path| path.trim_start_matches('.').to_owned())
                .collect();
            Resource {
                group: group.clone(),
                version: version
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .to_owned(),
                plural: plural.clone(),
                singular: text(&["spec", "names", "singular"]),
                kind,
                list_kind: text(&["spec", "names", "listKind"]),
                short_names: texts(&["spec", "names", "shortNames"]),
                categories: texts(&["spec", "names", "categories"]),
                namespaced: text(&["spec", "scope"]) == "Namespaced",
                verbs: ALL_VERBS,
                subresources,
                selectable,
                table: format!("{group}/{plural}"),
                source: Source::Custom(Arc::new(read_schema(version))),
                has_status,
                counts_generation: true,
                returns_deleted: false,
            }
        })
        .collect()
}

fn read_schema(version: &Value) -> CustomSchema {
    let raw = object::at(version, &["schema", "openAPIV3Schema"])
        .cloned()
        .unwrap_or_else(|| json!({"type": "object"}));
    let mut node = Node::read(&raw);
    // These belong to every object, whatever the definition says of them.
    if let Some(meta) = definition("io.k8s.api.core.v1.Pod").and_then(|pod| pod.member("metadata")) {
        if !matches!(node.shape, Shape::Object(_)) {
            node.shape = Shape::Object(std::collections::BTreeMap::new());
        }
        if let Shape::Object(members) = &mut node.shape {
            members.insert("metadata".into(), meta.clone());
            for name in ["apiVersion", "kind"] {
                members.insert(
                    name.into(),
                    Node {
                        shape: Shape::String,
                        keep_unknown: false,
                        ..Node::ANY
                    },
                );
            }
        }
    }
    let columns = object::list_at(version, &["additionalPrinterColumns"])
        .iter()
        .map(|column| {
            let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            PrinterColumn {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: text("description"),
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
                path: text("jsonPath"),
            }
        })
        .collect();
    let rules = Rules::of(&raw);
    CustomSchema {
        raw,
        node,
        rules,
        columns,
    }
}

/// Sorts versions as Kubernetes prefers them: `v2`, `v1`, `v1beta2`, `v1alpha1`, then anything else by name.
pub(super) fn version_rank(version: &str) -> (u8, Reverse<u8>, Reverse<u64>, Reverse<u64>, String) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..end].parse().ok()?;
        let (stage, minor) = match &rest[end..] {
            "" => (3, 0),
            other if other.starts_with("beta") => (2, other[4..].parse().ok()?),
            other if other.starts_with("alpha") => (1, other[5..].parse().ok()?),
            _ => return None,
        };
        Some((0, Reverse(stage), Reverse(major), Reverse(minor), String::new()))
    };
    parse().unwrap_or((1, Reverse(0), Reverse(0), Reverse(0), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, `kubectl get widgets` asks for an alpha version although a stable one is served.
    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "foo", "v1beta1", "v1", "v2", "v1beta2", "v10"];
        versions.sort_by_key(|version| version_rank(version));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }
}

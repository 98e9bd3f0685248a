//! Hold the schemas of Kubernetes' own kinds: the text in the binary, the trees made on first use.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Node;

static TEXT: &str = include_str!("../../schema/kubernetes.json");

#[derive(Deserialize)]
struct File {
    #[serde(borrow)]
    definitions: HashMap<&'static str, &'static RawValue>,
}

struct Entry {
    raw: &'static RawValue,
    node: OnceLock<Node>,
}

fn entries() -> &'static HashMap<&'static str, Entry> {
    static ENTRIES: OnceLock<HashMap<&'static str, Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let file: File = match serde_json::from_str(TEXT) {
            Ok(file) => file,
            // The file is part of this crate and a test reads every definition of it.
            Err(error) => unreachable!("schema/kubernetes.json: {error}"),
        };
        file.definitions
            .into_iter()
            .map(|(name, raw)| {
                (
                    name,
                    Entry {
                        raw,
                        node: OnceLock::new(),
                    },
                )
            })
            .collect()
    })
}

/// The schema of a definition by its full name (`io.k8s.api.core.v1.Pod`).
pub(crate) fn definition(name: &str) -> Option<&'static Node> {
    let entry = entries().get(name)?;
    Some(entry.node.get_or_init(|| {
        let node = serde_json::from_str(entry.raw.get()).map_or(Node::ANY, |schema| Node::read(&schema));
        match name {
            // Free-form JSON, whatever the published type says.
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
            | "io.k8s.apimachinery.pkg.runtime.RawExtension"
            | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => Node::ANY,
            _ => node,
        }
    }))
}

/// The published text of a definition and its full name.
pub(crate) fn raw_definition(name: &str) -> Option<(&'static str, &'static RawValue)> {
    entries()
        .get_key_value(name)
        .map(|(name, entry)| (*name, entry.raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ListType, Shape};

    /// Broken, the server's first request ends in a panic.
    #[test]
    fn every_definition_reads_and_every_reference_resolves() {
        fn walk(node: &Node) {
            match &node.shape {
                Shape::Reference(name) => assert!(definition(name).is_some(), "{name}"),
                Shape::Object(members) => members.values().for_each(walk),
                Shape::Map(node) | Shape::List(node) => walk(node),
                _ => {}
            }
        }
        entries().keys().for_each(|name| walk(definition(name).unwrap()));
    }

    /// Broken, two containers become one, or `kubectl apply` replaces lists it should merge.
    #[test]
    fn merge_keys_are_known() {
        let spec = definition("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = spec.member("containers").unwrap();
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        assert_eq!(containers.list, ListType::Map(["name".to_owned()].into()));
        let ports = containers.element().member("ports").unwrap();
        assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
        assert!(spec.member("volumes").unwrap().retain_keys);
    }
}

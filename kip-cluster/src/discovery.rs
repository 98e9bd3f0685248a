//! Tell clients what is served: the classic discovery documents and the aggregated one.

use serde_json::{Value, json};

use crate::registry::{Registry, Resource, Subresource, group_version};
use crate::schema::{Node, Shape};

/// The Kubernetes version whose behaviour and schemas are served.
pub(crate) const VERSION: &str = "v1.37.2";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37", "minCompatibilityMajor": "1", "minCompatibilityMinor": "36", "gitVersion": format!("{VERSION}+kip-cluster"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub(crate) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub(crate) fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry)
        .map(|(name, versions)| group(name, versions, false))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(crate) fn one_group(registry: &Registry, name: &str) -> Option<Value> {
    named_groups(registry)
        .find(|(group, _)| *group == name)
        .map(|(name, versions)| group(name, versions, true))
}

fn named_groups(registry: &Registry) -> impl Iterator<Item = (&String, &Vec<String>)> {
    registry.groups().filter(|(name, _)| !name.is_empty())
}

fn group(name: &str, versions: &[String], whole: bool) -> Value {
    let entry = |version: &String| json!({"groupVersion": group_version(name, version), "version": version});
    let mut group = json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    });
    if whole {
        group["kind"] = "APIGroup".into();
        group["apiVersion"] = "v1".into();
    }
    group
}

/// `/api/v1` and `/apis/{group}/{version}`; `None` when it is not served.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in registry.of(group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for sub in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if let Some((group, version)) = sub.kind_version {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = group_version(group, version);
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

/// `/api` (core group only) or `/apis` (all others) in the aggregated form of `apidiscovery.k8s.io/v2`.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = registry
                        .of(name, version)
                        .map(|r| aggregated_resource(r))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let own = |kind: &str| json!({"group": resource.group, "version": resource.version, "kind": kind});
    let sub_entry = |sub: &Subresource| {
        let kind = match sub.kind_version {
            Some((group, version)) => json!({"group": group, "version": version, "kind": sub.kind}),
            None => own(&sub.kind),
        };
        json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
    };
    let mut entry = json!({
        "resource": resource.plural, "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        entry["subresources"] = resource.subresources.iter().map(sub_entry).collect();
    }
    entry
}

/// Every definition a node leads to, itself included.
pub(crate) fn reachable(node: &Node, names: &mut std::collections::BTreeSet<String>) {
    match &node.shape {
        Shape::Reference(name) if names.insert(name.to_string()) => reachable(node.resolve(), names),
        Shape::Object(members) => members.values().for_each(|node| reachable(node, names)),
        Shape::Map(node) | Shape::List(node) => reachable(node, names),
        Shape::Quantity => {
            names.insert("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned());
        }
        _ => {}
    }
}

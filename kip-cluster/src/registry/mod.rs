//! Know which resource types are served: Kubernetes' own from a table, custom ones as their definitions come and go.

mod builtin;
mod custom;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::schema::{Node, definition};

pub(crate) use custom::CustomSchema;
use custom::resources_of;

/// Verbs of a full resource, in the order discovery lists them.
pub(crate) const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A part of an object that is read or written by its own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) kind: String,
    /// Group and version of `kind` where they are not the resource's own.
    pub(crate) kind_version: Option<(&'static str, &'static str)>,
    pub(crate) verbs: &'static [&'static str],
}

/// Where the schema of a resource comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A definition of the built-in schema file, by its full name.
    Builtin(String),
    Custom(Arc<CustomSchema>),
}

/// One served resource type in one version.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) subresources: Vec<Subresource>,
    /// Field selector paths beyond `metadata.name` and `metadata.namespace`.
    pub(crate) selectable: Vec<String>,
    /// The store's table; versions of one resource share it.
    pub(crate) table: String,
    pub(crate) source: Source,
    /// Whether spec and status are written by separate paths.
    pub(crate) has_status: bool,
    /// Whether `metadata.generation` is counted.
    pub(crate) counts_generation: bool,
    /// A removal answers with the removed object rather than with a `Status`.
    pub(crate) returns_deleted: bool,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.source, Source::Custom(_))
    }

    /// The schema of the whole object.
    pub(crate) fn node(&self) -> &Node {
        match &self.source {
            Source::Builtin(name) => definition(name).unwrap_or(&Node::ANY),
            Source::Custom(schema) => &schema.node,
        }
    }
}

/// `v1` for the core group, `group/version` otherwise.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// All served resource types at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    /// By group, version, plural.
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// Versions of custom groups and of Kubernetes' own, most preferred first.
    versions: BTreeMap<String, Vec<String>>,
}

impl Registry {
    /// What is served before any CustomResourceDefinition exists.
    pub(crate) fn builtin() -> Self {
        let mut registry = Self::default();
        builtin::resources()
            .into_iter()
            .for_each(|resource| registry.add(resource));
        registry
    }

    /// The built-in resources and those of these CustomResourceDefinitions.
    pub(crate) fn with_definitions<'a>(definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut registry = Self::builtin();
        definitions
            .flat_map(resources_of)
            .for_each(|resource| registry.add(resource));
        registry
    }

    fn add(&mut self, resource: Resource) {
        let versions = self.versions.entry(resource.group.clone()).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version.clone());
            versions.sort_by_key(|version| custom::version_rank(version));
        }
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.resources.insert(key, Arc::new(resource));
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The resource whose objects a table holds (in its most preferred version).
    pub(crate) fn of_table(&self, table: &str) -> Option<&Arc<Resource>> {
        self.resources.values().find(|resource| resource.table == table)
    }

    /// Groups with their versions, most preferred first; the core group is the empty one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.versions.iter()
    }

    /// The resources of one group version, by plural name.
    pub(crate) fn of(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let range = (group.to_owned(), version.to_owned(), String::new())..;
        self.resources
            .range(range)
            .take_while(move |((g, v, _), _)| g == group && v == version)
            .map(|(_, resource)| resource)
    }
}

//! One schema node, reduced to what the server acts on.

use std::collections::BTreeMap;

use serde_json::Value;

const REFERENCE: &str = "#/components/schemas/";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// What kind of value a node describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Anything goes, nothing is known of it.
    Any,
    /// Another definition, by name.
    Reference(Box<str>),
    /// An object with named members.
    Object(BTreeMap<Box<str>, Node>),
    /// An object whose members all have one shape.
    Map(Box<Node>),
    List(Box<Node>),
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Quantity,
}

/// How the elements of a list are told apart when two lists are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    /// Elements are objects, told apart by these members.
    Map(Box<[String]>),
}

/// A schema node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    pub(crate) list: ListType,
    /// The object is one value for server-side apply.
    pub(crate) atomic: bool,
    /// Strategic merge: elements of the list are merged by this member (empty: by value).
    pub(crate) merge_key: Option<Box<str>>,
    /// Strategic merge: `$retainKeys` is understood.
    pub(crate) retain_keys: bool,
    /// Members without a schema are kept.
    pub(crate) keep_unknown: bool,
    /// The object is a whole Kubernetes object (`apiVersion`, `kind`, `metadata` are allowed).
    pub(crate) embedded: bool,
}

impl Node {
    pub(crate) const ANY: Self = Self {
        shape: Shape::Any,
        list: ListType::Atomic,
        atomic: false,
        merge_key: None,
        retain_keys: false,
        keep_unknown: true,
        embedded: false,
    };

    /// Reads an OpenAPI v3 schema, of Kubernetes itself or of a CustomResourceDefinition.
    pub(crate) fn read(schema: &Value) -> Self {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or("");
        let strategy = text("x-kubernetes-patch-strategy");
        let merges = strategy.split(',').any(|word| word == "merge");
        let keep_unknown = flag("x-kubernetes-preserve-unknown-fields");
        let shape = read_shape(
            schema,
            flag("x-kubernetes-int-or-string") || text("format") == "int-or-string",
        );
        Self {
            keep_unknown: keep_unknown || shape == Shape::Any,
            shape,
            list: read_list_type(schema, merges),
            atomic: text("x-kubernetes-map-type") == "atomic",
            merge_key: merges.then(|| text("x-kubernetes-patch-merge-key").into()),
            retain_keys: strategy.split(',').any(|word| word == "retainKeys"),
            embedded: flag("x-kubernetes-embedded-resource"),
        }
    }

    /// The node itself, or the definition it refers to.
    pub(crate) fn resolve(&self) -> &Self {
        match &self.shape {
            Shape::Reference(name) => super::definition(name).unwrap_or(&Self::ANY),
            _ => self,
        }
    }

    /// The node of a member, if the schema knows it.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match &self.resolve().shape {
            Shape::Object(members) => members.get(name),
            Shape::Map(value) => Some(value),
            _ => None,
        }
    }

    /// The node of a list's elements; [`Node::ANY`] if this is no list.
    pub(crate) fn element(&self) -> &Self {
        match &self.resolve().shape {
            Shape::List(element) => element,
            _ => &Self::ANY,
        }
    }
}

fn read_shape(schema: &Value, int_or_string: bool) -> Shape {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.trim_start_matches(REFERENCE);
        return if name == QUANTITY {
            Shape::Quantity
        } else {
            Shape::Reference(name.into())
        };
    }
    if int_or_string {
        return Shape::IntOrString;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Shape::String,
        Some("integer") => Shape::Integer,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        Some("array") => Shape::List(Box::new(schema.get("items").map_or(Node::ANY, Node::read))),
        Some("object") => match (schema.get("properties"), schema.get("additionalProperties")) {
            (Some(Value::Object(members)), _) => Shape::Object(
                members
                    .iter()
                    .map(|(name, node)| (name.as_str().into(), Node::read(node)))
                    .collect(),
            ),
            (_, Some(node @ Value::Object(_))) => Shape::Map(Box::new(Node::read(node))),
            (_, Some(Value::Bool(true))) => Shape::Map(Box::new(Node::ANY)),
            _ => Shape::Object(BTreeMap::new()),
        },
        _ => Shape::Any,
    }
}

fn read_list_type(schema: &Value, merges: bool) -> ListType {
    let keys: Box<[String]> = match schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        Some(keys) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => schema
            .get("x-kubernetes-patch-merge-key")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(keys),
        Some(_) => ListType::Atomic,
        None if merges && keys.is_empty() => ListType::Set,
        None if merges => ListType::Map(keys),
        None => ListType::Atomic,
    }
}

//! Publish the schemas of what is served, so that `kubectl explain`, `apply` and `--validate` can use them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::discovery::{VERSION, reachable};
use crate::registry::{Registry, Resource, Source};
use crate::schema::{definition, raw_definition};

/// The path of a group version under `/openapi/v3/`.
fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Media type of `/openapi/v2` as clients ask for it: the document as a protobuf message.
pub(crate) const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as it is answered: an `@` is not allowed in a media type, and Go's parser refuses it.
pub(crate) const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2` without a definition: what `kubectl apply` needs to look at before it takes a `List` apart. What is in
/// the list is then checked by the server, by `/openapi/v3`.
pub(crate) fn v2() -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": {}})
}

/// The same as a protobuf message: field 1 `swagger`, field 2 `info` with 1 `title` and 2 `version`.
pub(crate) fn v2_protobuf() -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        // One byte holds the length of each of these short texts.
        let length = u8::try_from(bytes.len()).unwrap_or(0);
        [&[tag, length], bytes].concat()
    };
    let info = [field(0x0a, b"Kubernetes"), field(0x12, VERSION.as_bytes())].concat();
    [field(0x0a, b"2.0"), field(0x12, &info)].concat()
}

/// `/openapi/v3`: one entry for each group version, with a hash that changes when its document does.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = path_of(group, version);
            let mut hash = Sha256::new();
            hash.update(VERSION);
            for resource in registry.of(group, version) {
                hash.update(&resource.plural);
                if let Source::Custom(schema) = &resource.source {
                    hash.update(schema.raw.to_string());
                }
            }
            let hash = hash.finalize().iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02X}");
                text
            });
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/{path}`; `None` when no such group version is served.
pub(crate) fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        _ => return None,
    };
    let resources: Vec<_> = registry.of(group, version).collect();
    if resources.is_empty() {
        return None;
    }
    let (mut paths, mut schemas, mut names) = (Map::new(), Map::new(), BTreeSet::new());
    for resource in resources {
        let schema_name = match &resource.source {
            Source::Builtin(name) => {
                names.insert(name.clone());
                if let Some(node) = definition(name) {
                    reachable(node, &mut names);
                }
                name.clone()
            }
            Source::Custom(schema) => {
                let name = custom_name(resource);
                schemas.insert(name.clone(), custom_schema(resource, &schema.raw));
                if let Some(meta) = definition(OBJECT_META) {
                    names.insert(OBJECT_META.to_owned());
                    reachable(meta, &mut names);
                }
                name
            }
        };
        add_paths(&mut paths, resource, &schema_name);
    }
    for name in names {
        let schema = raw_definition(&name).and_then(|(_, raw)| serde_json::from_str(raw.get()).ok());
        schemas.insert(name, schema.unwrap_or(Value::Null));
    }
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn kind_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn custom_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

fn custom_schema(resource: &Resource, raw: &Value) -> Value {
    let mut schema = raw.clone();
    let members = crate::object::child(&mut schema, "properties");
    for name in ["apiVersion", "kind"] {
        members.insert(name.to_owned(), json!({"type": "string"}));
    }
    members.insert(
        "metadata".to_owned(),
        json!({"$ref": format!("#/components/schemas/{OBJECT_META}")}),
    );
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(resource)]);
    schema
}

/// The operations `kubectl` looks up: where a kind is written, and that `fieldValidation` is understood there.
fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, schema: &str) {
    let prefix = if resource.group.is_empty() {
        "/api/v1".to_owned()
    } else {
        format!("/apis/{}", resource.api_version())
    };
    let collection = if resource.namespaced {
        format!("{prefix}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{prefix}/{}", resource.plural)
    };
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let writing = [
        parameter("dryRun"),
        parameter("fieldManager"),
        parameter("fieldValidation"),
    ];
    let operation = |action: &str, parameters: &[Value]| {
        json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind_of(resource),
            "parameters": parameters, "responses": {"200": {"description": "OK", "content": content}},
        })
    };
    let has = |verb: &str| resource.verbs.contains(&verb);
    let (mut whole, mut single) = (Map::new(), Map::new());
    for (verb, method, action) in [
        ("create", "post", "post"),
        ("list", "get", "list"),
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ] {
        if has(verb) {
            let target = if matches!(verb, "create" | "list") {
                &mut whole
            } else {
                &mut single
            };
            let parameters = if matches!(verb, "create" | "update" | "patch") {
                &writing[..]
            } else {
                &[]
            };
            target.insert(method.to_owned(), operation(action, parameters));
        }
    }
    paths.insert(collection.clone(), whole.into());
    if !single.is_empty() {
        paths.insert(format!("{collection}/{{name}}"), single.into());
    }
}

//! What makes a CustomResourceDefinition usable.

use serde_json::Value;

use super::names::is_dns_subdomain;
use crate::object;
use crate::status::Problem;

/// The problems of a definition.
pub(super) fn validate(crd: &Value, problems: &mut Vec<Problem>) {
    let text = |path: &[&str]| object::str_at(crd, path).unwrap_or("");
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    for (field, value) in [
        ("spec.group", group),
        ("spec.scope", text(&["spec", "scope"])),
        ("spec.names.plural", plural),
        ("spec.names.kind", text(&["spec", "names", "kind"])),
    ] {
        if value.is_empty() {
            problems.push(Problem::required(field, ""));
        }
    }
    let name = object::name(crd);
    let wanted = format!("{plural}.{group}");
    if !group.is_empty() && !plural.is_empty() && name != wanted {
        problems.push(Problem::invalid(
            "metadata.name",
            &name.into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if !group.is_empty() && (!is_dns_subdomain(group) || !group.contains('.')) {
        problems.push(Problem::invalid(
            "spec.group",
            &group.into(),
            "should be a domain with at least one dot",
        ));
    }
    let scope = text(&["spec", "scope"]);
    if !scope.is_empty() && !matches!(scope, "Namespaced" | "Cluster") {
        problems.push(Problem::unsupported(
            "spec.scope",
            &scope.into(),
            &["Cluster", "Namespaced"],
        ));
    }
    if object::str_at(crd, &["spec", "conversion", "strategy"]) == Some("Webhook") {
        let why = "conversion webhooks are not served here; use the strategy None";
        problems.push(Problem::invalid(
            "spec.conversion.strategy",
            &"Webhook".into(),
            why,
        ));
    }
    versions(object::list_at(crd, &["spec", "versions"]), problems);
}

fn versions(versions: &[Value], problems: &mut Vec<Problem>) {
    let flag = |version: &Value, name: &str| version.get(name).and_then(Value::as_bool).unwrap_or(false);
    if versions.iter().filter(|version| flag(version, "storage")).count() != 1 {
        let value = versions
            .iter()
            .filter_map(|version| version.get("name").cloned())
            .collect();
        let why = "must have exactly one version marked as storage version";
        problems.push(Problem::invalid("spec.versions", &value, why));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        match object::at(version, &["schema", "openAPIV3Schema"]) {
            None => problems.push(Problem::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            )),
            Some(schema) => structural(schema, &format!("{path}.schema.openAPIV3Schema"), true, problems),
        }
    }
}

/// A structural schema names the type of everything it describes.
fn structural(schema: &Value, path: &str, top: bool, problems: &mut Vec<Problem>) {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("");
    if top && kind != "object" {
        problems.push(Problem::invalid(
            format!("{path}.type"),
            &kind.into(),
            "must be object at the root",
        ));
    } else if kind.is_empty()
        && !flag("x-kubernetes-int-or-string")
        && !flag("x-kubernetes-preserve-unknown-fields")
    {
        problems.push(Problem::required(
            format!("{path}.type"),
            "must not be empty for specified object fields",
        ));
    }
    let known = ["", "object", "array", "string", "integer", "number", "boolean"];
    if !known.contains(&kind) {
        problems.push(Problem::unsupported(
            format!("{path}.type"),
            &kind.into(),
            &known[1..],
        ));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        problems.push(Problem::invalid(format!("{path}.pattern"), &pattern.into(), &why));
    }
    for (name, schema) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        structural(schema, &format!("{path}.properties[{name}]"), false, problems);
    }
    if let Some(schema) = schema
        .get("additionalProperties")
        .filter(|schema| schema.is_object())
    {
        structural(schema, &format!("{path}.additionalProperties"), false, problems);
    }
    match schema.get("items") {
        Some(schema) => structural(schema, &format!("{path}.items"), false, problems),
        None if kind == "array" => {
            problems.push(Problem::required(format!("{path}.items"), "must be specified"));
        }
        None => {}
    }
}

/// What must stay as it was created.
pub(super) fn immutable(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    for path in [
        &["spec", "group"][..],
        &["spec", "scope"],
        &["spec", "names", "kind"],
        &["spec", "names", "plural"],
    ] {
        if object::at(old, path) != object::at(new, path) {
            let value = object::at(new, path).cloned().unwrap_or(Value::Null);
            problems.push(Problem::invalid(path.join("."), &value, "field is immutable"));
        }
    }
}

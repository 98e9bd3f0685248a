//! Names, labels, keys and ports: the rules many kinds share.

use serde_json::Value;

use crate::object;
use crate::registry::Resource;
use crate::status::Problem;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
     for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
     an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const DATA_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Whether `text` is an RFC 1123 label.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes.iter().all(|&byte| edge(byte) || byte == b'-')
}

/// Whether `text` is an RFC 1123 subdomain.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_dns_label(part) || (part.len() > 63 && is_dns_label(&part[..63])))
}

fn is_qualified_part(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes
            .iter()
            .all(|&byte| edge(byte) || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified_part(name),
        None => is_qualified_part(text),
    }
}

/// Name, labels, annotations and finalizers of any object.
pub(super) fn metadata(resource: &Resource, object: &Value, problems: &mut Vec<Problem>) {
    let name = object::name(object);
    if name.is_empty() {
        problems.push(Problem::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        let value = name.into();
        let rbac = resource.group == "rbac.authorization.k8s.io";
        let label = matches!(resource.table.as_str(), "/namespaces" | "/services");
        if rbac {
            if name.contains(['/', '%']) || name == "." || name == ".." {
                problems.push(Problem::invalid(
                    "metadata.name",
                    &value,
                    "may not contain '/' or '%'",
                ));
            }
        } else if label && !is_dns_label(name) {
            problems.push(Problem::invalid("metadata.name", &value, LABEL));
        } else if !label && !is_dns_subdomain(name) {
            problems.push(Problem::invalid("metadata.name", &value, SUBDOMAIN));
        }
    }
    let members = |field: &str| {
        object::at(object, &["metadata", field])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    for (key, value) in members("labels") {
        if !is_qualified(key) {
            problems.push(Problem::invalid(
                "metadata.labels",
                &key.as_str().into(),
                QUALIFIED,
            ));
        }
        let text = value.as_str().unwrap_or("");
        if !text.is_empty() && !is_qualified_part(text) {
            problems.push(Problem::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    let mut size = 0;
    for (key, value) in members("annotations") {
        if !is_qualified(&key.to_lowercase()) {
            problems.push(Problem::invalid(
                "metadata.annotations",
                &key.as_str().into(),
                QUALIFIED,
            ));
        }
        size += key.len() + value.as_str().unwrap_or("").len();
    }
    if size > 256 * 1024 {
        problems.push(Problem::invalid(
            "metadata.annotations",
            &size.into(),
            "may not be more than 262144 bytes",
        ));
    }
    for (index, finalizer) in object::list_at(object, &["metadata", "finalizers"])
        .iter()
        .enumerate()
    {
        let text = finalizer.as_str().unwrap_or("");
        if !is_qualified(text) {
            problems.push(Problem::invalid(
                format!("metadata.finalizers[{index}]"),
                finalizer,
                QUALIFIED,
            ));
        }
    }
}

/// A key of a ConfigMap's or Secret's data.
pub(super) fn data_key(field: &str, key: &str, problems: &mut Vec<Problem>) {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || key.len() > 253 || !key.chars().all(fine) || key == "." || key.starts_with("..") {
        problems.push(Problem::invalid(field, &key.into(), DATA_KEY));
    }
}

/// A port number.
pub(super) fn port(field: &str, value: Option<&Value>, problems: &mut Vec<Problem>) {
    match value {
        None => problems.push(Problem::required(field, "")),
        Some(value) if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) => {
            problems.push(Problem::invalid(
                field,
                value,
                "must be between 1 and 65535, inclusive",
            ));
        }
        Some(_) => {}
    }
}

/// A name inside an object (container, volume) that must be a label.
pub(super) fn label(field: &str, value: Option<&Value>, problems: &mut Vec<Problem>) {
    match value.and_then(Value::as_str) {
        None | Some("") => problems.push(Problem::required(field, "")),
        Some(text) if !is_dns_label(text) => problems.push(Problem::invalid(field, &text.into(), LABEL)),
        Some(_) => {}
    }
}

//! Read the object in a request's body and hold it against its schema.

use serde_json::Value;

use super::{Call, events};
use crate::object::{self, as_map};
use crate::registry::{Resource, Source};
use crate::schema::decode::{self, Decoded};
use crate::schema::{Findings, check_fields, protobuf};
use crate::status::{ApiError, ApiResult};

/// What is done about fields the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Call<'_> {
    pub(super) fn field_validation(&self) -> ApiResult<FieldValidation> {
        match self.query.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(ApiError::new(
                422,
                "Invalid",
                format!(
                    "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"{other}\": supported \
                     values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                ),
            )),
        }
    }

    /// The object in the body, checked, with the warnings to send along.
    pub(super) fn decode_object(&self) -> ApiResult<(Value, Vec<String>)> {
        let definition = match &self.resource.source {
            Source::Builtin(name) => name,
            Source::Custom(_) => "",
        };
        let decoded = self
            .decode_as(definition)?
            .map_err(|error| self.undecodable(&error))?;
        let mut object = decoded.value;
        if !object.is_object() {
            return Err(self.undecodable("expected a JSON object"));
        }
        check_kind(self.resource, &object)?;
        let warnings = self.check_object(&mut object, &decoded.duplicates)?;
        Ok((object, warnings))
    }

    /// The body in whatever form it was sent; 415 for a form that is not read here. `definition` is the full name of the
    /// kind it should be, which protobuf bodies need and custom resources do not have.
    pub(super) fn decode_as(&self, definition: &str) -> ApiResult<Result<Decoded, String>> {
        Ok(match self.content_type {
            "" | "application/json" => decode::json(&self.body).map_err(|error| error.to_string()),
            "application/yaml" => decode::yaml(&self.body),
            "application/vnd.kubernetes.protobuf" if !definition.is_empty() => {
                protobuf::decode(&self.body, definition).map(|value| Decoded {
                    value,
                    duplicates: Vec::new(),
                })
            }
            _ if definition.is_empty() => {
                return Err(ApiError::unsupported_media_type(
                    "application/json, application/yaml",
                ));
            }
            _ => {
                return Err(ApiError::unsupported_media_type(
                    "application/json, application/yaml, application/vnd.kubernetes.protobuf",
                ));
            }
        })
    }

    fn undecodable(&self, why: &str) -> ApiError {
        let Resource { kind, version, .. } = &**self.resource;
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    }

    /// Removes unknown fields, puts quantities in canonical form, stamps kind and version; turns what was wrong into
    /// warnings or an error, as the request wants it.
    pub(super) fn check_object(&self, object: &mut Value, duplicates: &[String]) -> ApiResult<Vec<String>> {
        let mode = self.field_validation()?;
        let Findings { unknown, wrong } = check_fields(object, self.resource.node());
        if let Some(wrong) = wrong
            && !self.resource.is_custom()
        {
            return Err(self.undecodable(&wrong));
        }
        let map = as_map(object);
        map.insert("kind".to_owned(), self.resource.kind.as_str().into());
        map.insert("apiVersion".to_owned(), self.resource.api_version().into());
        if self.resource.group == "events.k8s.io" {
            *object = events::to_stored(object.take());
        }
        check_bytes(self.resource, object).map_err(|why| self.undecodable(&why))?;
        let mut findings: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
        findings.extend(
            duplicates
                .iter()
                .map(|path| format!("duplicate field \"{path}\"")),
        );
        match mode {
            FieldValidation::Strict if !findings.is_empty() => {
                let text = format!("strict decoding error: {}", findings.join(", "));
                Err(self.undecodable(&text))
            }
            FieldValidation::Warn => Ok(findings),
            FieldValidation::Ignore | FieldValidation::Strict => Ok(Vec::new()),
        }
    }

    /// The name changes are recorded under in `managedFields`.
    pub(super) fn field_manager(&self) -> &str {
        match self.query.get("fieldManager") {
            "" => match self.user_agent.split('/').next().unwrap_or("") {
                "" => "unknown",
                name => name,
            },
            name => name,
        }
    }
}

/// What is published as bytes must be base64.
fn check_bytes(resource: &Resource, object: &Value) -> Result<(), String> {
    use base64::Engine as _;
    let field = match resource.table.as_str() {
        "/secrets" => "data",
        "/configmaps" => "binaryData",
        _ => return Ok(()),
    };
    for value in object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(_, value)| value)
    {
        let text = value.as_str().unwrap_or("");
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
                    format!("illegal base64 data at input byte {at}")
                }
                _ => format!("illegal base64 data at input byte {}", text.len()),
            })?;
    }
    Ok(())
}

/// The body must be of the kind and version of the path, if it says what it is.
fn check_kind(resource: &Resource, object: &Value) -> ApiResult<()> {
    let (kind, version) = (
        object::str_at(object, &["kind"]).unwrap_or(""),
        object::str_at(object, &["apiVersion"]).unwrap_or(""),
    );
    let expected = resource.api_version();
    if resource.is_custom() && (kind.is_empty() || version.is_empty()) {
        return Err(ApiError::bad_request(
            "Object 'Kind' is missing in the body, or its 'apiVersion' is",
        ));
    }
    if (!kind.is_empty() && kind != resource.kind) || (!version.is_empty() && version != expected) {
        let version = if version.is_empty() { &expected } else { version };
        let kind = if kind.is_empty() { &resource.kind } else { kind };
        let group_kind = |version: &str, kind: &str| match version.split_once('/') {
            Some((group, version)) => format!("{group}/{version}, Kind={kind}"),
            None => format!("/{version}, Kind={kind}"),
        };
        if kind == resource.kind {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: the object in the data ({}) is not of the expected kind ({})",
            version.rsplit('/').next().unwrap_or(version),
            resource.kind,
            group_kind(version, kind),
            group_kind(&expected, &resource.kind),
        )));
    }
    Ok(())
}

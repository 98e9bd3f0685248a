//! Make answers: JSON, lists, tables, and the form the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::{Value, json};

use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};
use crate::store::Object;
use crate::table;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Reply = Response<Body>;

/// A body of known bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer of JSON.
pub(crate) fn json_reply(code: u16, value: &impl Serialize) -> Reply {
    typed_reply(
        code,
        "application/json",
        serde_json::to_vec(value).unwrap_or_default(),
    )
}

/// An answer of text.
pub(crate) fn text_reply(code: u16, text: impl Into<String>) -> Reply {
    typed_reply(code, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn typed_reply(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// The answer to a failed request.
pub(crate) fn error_reply(error: &ApiError) -> Reply {
    let mut reply = json_reply(error.code, &error.to_status());
    if error.code == 429 {
        reply
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// Adds one `Warning` header for each text, as `kubectl` prints them.
pub(crate) fn warn(reply: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            reply.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// The form an answer is wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Table,
    /// Only `metadata`.
    Partial,
}

impl Form {
    /// The first form of the `Accept` header that can be given; 406 when there is none.
    pub(crate) fn of(accept: &str) -> ApiResult<Self> {
        if accept.trim().is_empty() {
            return Ok(Self::Whole);
        }
        for offer in accept.split(',') {
            let mut parts = offer.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let parameter = |name: &str| {
                offer
                    .split(';')
                    .filter_map(|part| part.trim().split_once('='))
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| v)
            };
            match (parameter("as"), parameter("v")) {
                (None, _) => return Ok(Self::Whole),
                (Some("Table"), Some("v1")) => return Ok(Self::Table),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                    return Ok(Self::Partial);
                }
                _ => {}
            }
        }
        Err(ApiError::not_acceptable())
    }
}

/// One object, stamped with kind and version of the resource it is read through.
pub(crate) struct Stamped<'a> {
    pub(crate) object: &'a Value,
    pub(crate) resource: &'a Resource,
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.resource.kind)?;
        map.serialize_entry("apiVersion", &self.resource.api_version())?;
        serialize_members(&mut map, self.object)?;
        map.end()
    }
}

fn serialize_members<M: serde::ser::SerializeMap>(map: &mut M, object: &Value) -> Result<(), M::Error> {
    for (name, value) in object.as_object().into_iter().flatten() {
        if name != "kind" && name != "apiVersion" {
            map.serialize_entry(name, value)?;
        }
    }
    Ok(())
}

/// An element of a list of Kubernetes' own kinds: there kind and version are said once, by the list.
struct Bare<'a>(&'a Value);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_members(&mut map, self.0)?;
        map.end()
    }
}

/// Turns a stored object into what the resource's version of the API shows.
pub(crate) fn shown(resource: &Resource, object: &Object) -> Object {
    if resource.group == "events.k8s.io" {
        Arc::new(crate::api::events::to_new(object))
    } else {
        Arc::clone(object)
    }
}

/// The `metadata` of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMeta {
    pub(crate) version: u64,
    pub(crate) next: String,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    pub(crate) fn to_json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.version.to_string()});
        if !self.next.is_empty() {
            meta["continue"] = self.next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

/// Only kind, version and metadata of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
           "metadata": object.get("metadata").cloned().unwrap_or(Value::Null)})
}

/// An answer of one object.
pub(crate) fn object_reply(
    code: u16,
    resource: &Resource,
    object: &Object,
    form: Form,
    include: &str,
) -> Reply {
    let object = shown(resource, object);
    match form {
        Form::Whole => json_reply(
            code,
            &Stamped {
                object: &object,
                resource,
            },
        ),
        Form::Partial => json_reply(code, &partial(&object)),
        Form::Table => {
            let meta = json!({"resourceVersion": crate::object::meta_str(&object, "resourceVersion")});
            json_reply(code, &table::table(resource, &[object], meta, include))
        }
    }
}

/// An answer of a list.
pub(crate) fn list_reply(
    resource: &Resource,
    objects: &[Object],
    meta: &ListMeta,
    form: Form,
    include: &str,
) -> Reply {
    #[derive(Serialize)]
    struct List<'a, T> {
        kind: &'a str,
        #[serde(rename = "apiVersion")]
        api_version: &'a str,
        metadata: Value,
        items: Vec<T>,
    }
    let objects: Vec<Object> = objects.iter().map(|object| shown(resource, object)).collect();
    let (kind, api_version, metadata) = (
        resource.list_kind.as_str(),
        &*resource.api_version(),
        meta.to_json(),
    );
    match form {
        Form::Whole if resource.is_custom() => {
            let items = objects
                .iter()
                .map(|object| Stamped { object, resource })
                .collect();
            json_reply(
                200,
                &List {
                    kind,
                    api_version,
                    metadata,
                    items,
                },
            )
        }
        Form::Whole => {
            let items = objects.iter().map(|object| Bare(object)).collect();
            json_reply(
                200,
                &List {
                    kind,
                    api_version,
                    metadata,
                    items,
                },
            )
        }
        Form::Partial => {
            let items = objects.iter().map(|object| partial(object)).collect();
            let (kind, api_version) = ("PartialObjectMetadataList", "meta.k8s.io/v1");
            json_reply(
                200,
                &List {
                    kind,
                    api_version,
                    metadata,
                    items,
                },
            )
        }
        Form::Table => json_reply(200, &table::table(resource, &objects, metadata, include)),
    }
}

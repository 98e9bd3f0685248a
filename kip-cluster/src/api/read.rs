//! Answer get and list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::Call;
use super::respond::{ListMeta, Reply, list_reply, object_reply, shown};
use crate::object;
use crate::selector::{Fields, Labels};
use crate::status::{ApiError, ApiResult};
use crate::store::{Key, Object};

/// `GET` of one object.
pub(super) fn get(call: &Call<'_>) -> ApiResult<Reply> {
    let object = call.current()?;
    Ok(object_reply(
        200,
        call.resource,
        &object,
        call.form,
        call.query.get("includeObject"),
    ))
}

/// The selectors of a request.
pub(super) struct Selection {
    labels: Labels,
    fields: Fields,
}

impl Selection {
    pub(super) fn of(call: &Call<'_>) -> ApiResult<Self> {
        Ok(Self {
            labels: Labels::parse(call.query.get("labelSelector"))?,
            fields: Fields::parse(call.query.get("fieldSelector"), &call.resource.selectable)?,
        })
    }

    /// Whether an object, in the form its resource shows it, is chosen.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// Where the next page starts: after this key, in the state of this version.
struct Continue {
    version: u64,
    after: Key,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.version, "ns": self.after.namespace, "name": self.after.name});
        BASE64.encode(token.to_string())
    }

    fn decode(text: &str) -> ApiResult<Self> {
        let parse = || {
            let token: Value = serde_json::from_slice(&BASE64.decode(text).ok()?).ok()?;
            Some(Self {
                version: token.get("rv")?.as_u64()?,
                after: Key::new(token.get("ns")?.as_str()?, token.get("name")?.as_str()?),
            })
        };
        parse().ok_or_else(|| {
            ApiError::bad_request("continue key is not valid: it was not issued by this server")
        })
    }
}

/// Everything a list request chooses, and the version that is the state of.
pub(super) fn select(call: &Call<'_>) -> ApiResult<(Vec<Object>, ListMeta)> {
    let selection = Selection::of(call)?;
    let limit = call
        .query
        .number::<i64>("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let namespace = call.namespace();
    let store = &call.app.store;
    let table = &call.resource.table;
    let requested = match call.query.get("resourceVersion") {
        "" => None,
        text => Some(text.parse::<u64>().map_err(|_| {
            ApiError::bad_request(format!("invalid resource version: {}", bad_version(text)))
        })?),
    };
    let exact = call.query.get("resourceVersionMatch") == "Exact";
    let (version, mut objects) = match call.query.get("continue") {
        "" if exact && requested.is_some_and(|version| version > 0) => {
            let version = requested.unwrap_or(0);
            let gone = |_| ApiError::expired("The resourceVersion for the provided list is too old.");
            (version, store.list_at(table, namespace, version).map_err(gone)?)
        }
        "" => {
            let (version, objects) = store.list(table, namespace);
            if let Some(wanted) = requested.filter(|wanted| *wanted > version) {
                return Err(too_large(wanted, version));
            }
            (version, objects)
        }
        token => {
            let start = Continue::decode(token)?;
            let gone = |_| {
                ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new \
                     list without the continue parameter.",
                )
            };
            let mut objects = store.list_at(table, namespace, start.version).map_err(gone)?;
            objects.retain(|object| Key::of(object) > start.after);
            (start.version, objects)
        }
    };
    objects.retain(|object| selection.matches(&shown(call.resource, object)));
    let mut meta = ListMeta {
        version,
        ..ListMeta::default()
    };
    if let Some(limit) = limit.filter(|limit| objects.len() > *limit) {
        let selects =
            !call.query.get("labelSelector").is_empty() || !call.query.get("fieldSelector").is_empty();
        meta.remaining = (!selects).then_some(objects.len() - limit);
        objects.truncate(limit);
        if let Some(last) = objects.last() {
            meta.next = Continue {
                version,
                after: Key::of(last),
            }
            .encode();
        }
    }
    Ok((objects, meta))
}

/// Why a resource version cannot be read.
pub(super) fn bad_version(text: &str) -> String {
    format!(
        "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
    )
}

/// The version asked for does not exist yet.
pub(super) fn too_large(wanted: u64, current: u64) -> ApiError {
    let mut error = ApiError::new(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {wanted}, current: {current}"),
    );
    error.details = Some(Box::new(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1,
    })));
    error
}

/// `GET` of a collection.
pub(super) fn list(call: &Call<'_>) -> ApiResult<Reply> {
    let (objects, meta) = select(call)?;
    Ok(list_reply(
        call.resource,
        &objects,
        &meta,
        call.form,
        call.query.get("includeObject"),
    ))
}

impl Call<'_> {
    /// The namespace the request is about; `None` for cluster-scoped resources and for all namespaces.
    pub(super) fn namespace(&self) -> Option<&str> {
        (self.resource.namespaced && !self.target.namespace.is_empty())
            .then_some(self.target.namespace.as_str())
    }

    /// The key the request names.
    pub(super) fn key(&self) -> Key {
        let namespace = if self.resource.namespaced {
            self.target.namespace.as_str()
        } else {
            ""
        };
        Key::new(namespace, self.target.name.as_str())
    }

    /// The object the request names; 404 if there is none.
    pub(super) fn current(&self) -> ApiResult<Object> {
        self.app
            .store
            .get(&self.resource.table, &self.key())
            .ok_or_else(|| self.not_found())
    }

    pub(super) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, &self.target.name)
    }

    /// The object changed under the request.
    pub(super) fn modified(&self, object: &Value) -> ApiError {
        ApiError::modified(&self.resource.group, &self.resource.plural, object::name(object))
    }
}

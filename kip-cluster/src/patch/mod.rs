//! Change an object by a patch: JSON patch, merge patch, strategic merge patch.

mod strategic;

use serde_json::{Value, json};

use crate::schema::{Node, decode};
use crate::status::{ApiError, ApiResult};

/// The kinds of patch, told apart by the request's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// The kind a content type asks for; strategic merge only where the schema is Kubernetes' own.
    pub(crate) fn of(content_type: &str, custom: bool) -> ApiResult<Self> {
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if !custom => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ if custom => Err(ApiError::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            _ => Err(ApiError::unsupported_patch()),
        }
    }
}

/// What a patch made of an object.
#[derive(Debug)]
pub(crate) struct Patched {
    pub(crate) object: Value,
    /// Members written twice in the patch.
    pub(crate) duplicates: Vec<String>,
}

/// Applies a patch of any kind but [`PatchKind::Apply`] to a copy of `object`.
pub(crate) fn patch(object: &Value, node: &Node, kind: PatchKind, body: &[u8]) -> ApiResult<Patched> {
    let decoded = decode::json(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut result = object.clone();
    match kind {
        PatchKind::Json => json_patch(&mut result, decoded.value)?,
        PatchKind::Merge => {
            require_object(&decoded.value)?;
            json_patch::merge(&mut result, &decoded.value);
        }
        PatchKind::Strategic => {
            require_object(&decoded.value)?;
            strategic::merge(&mut result, decoded.value, node)?;
        }
        PatchKind::Apply => return Err(ApiError::internal("apply is no plain patch")),
    }
    Ok(Patched {
        object: result,
        duplicates: decoded.duplicates,
    })
}

fn require_object(patch: &Value) -> ApiResult<()> {
    if patch.is_object() {
        Ok(())
    } else {
        Err(ApiError::bad_request(
            "error decoding patch: expected a JSON object",
        ))
    }
}

/// More operations than this are refused, as kube-apiserver does.
const MAX_OPERATIONS: usize = 10_000;

fn json_patch(object: &mut Value, patch: Value) -> ApiResult<()> {
    let operations: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MAX_OPERATIONS {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.0.len()
            ),
        ));
    }
    json_patch::patch(object, &operations).map_err(|error| {
        tracing::debug!(%error, "JSON patch refused");
        let message = "the server rejected our request due to an error in our request";
        ApiError {
            details: Some(Box::new(json!({}))),
            ..ApiError::new(422, "Invalid", message)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", any_json(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        /// Broken, a retried merge patch changes the object a second time.
        #[test]
        fn merge_patch_is_idempotent(object in any_object(), change in any_object()) {
            let body = change.to_string();
            let once = patch(&object, &Node::ANY, PatchKind::Merge, body.as_bytes()).unwrap().object;
            let twice = patch(&once, &Node::ANY, PatchKind::Merge, body.as_bytes()).unwrap().object;
            prop_assert_eq!(&once, &twice);
            let empty = patch(&once, &Node::ANY, PatchKind::Merge, b"{}").unwrap().object;
            prop_assert_eq!(once, empty);
        }

        /// Broken, `kubectl patch` of a strategic patch without lists differs from what its merge twin does.
        #[test]
        fn without_a_schema_strategic_is_merge(object in any_object(), change in any_object()) {
            let body = change.to_string();
            let merged = patch(&object, &Node::ANY, PatchKind::Merge, body.as_bytes()).unwrap().object;
            let strategic = patch(&object, &Node::ANY, PatchKind::Strategic, body.as_bytes()).unwrap().object;
            prop_assert_eq!(merged, strategic);
        }
    }

    /// Broken, a failed `test` operation still changes the object.
    #[test]
    fn json_patches_are_all_or_nothing() {
        let object = json!({"a": 1});
        let ok = patch(
            &object,
            &Node::ANY,
            PatchKind::Json,
            br#"[{"op":"test","path":"/a","value":1},{"op":"add","path":"/b","value":2}]"#,
        );
        assert_eq!(ok.unwrap().object, json!({"a": 1, "b": 2}));
        let failed = patch(
            &object,
            &Node::ANY,
            PatchKind::Json,
            br#"[{"op":"test","path":"/a","value":2}]"#,
        );
        assert_eq!(failed.unwrap_err().code, 422);
        let nonsense = patch(&object, &Node::ANY, PatchKind::Json, b"{}");
        assert_eq!(nonsense.unwrap_err().code, 400);
    }
}

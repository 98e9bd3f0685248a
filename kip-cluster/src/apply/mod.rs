//! Server-side apply: know who set which field, merge what an applier sends, and refuse to take over unasked.

mod compare;
mod fieldset;
mod managers;
mod merge;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::schema::Node;
use crate::status::{ApiError, ApiResult};
use fieldset::FieldSet;
use managers::Managers;

/// Who writes, and in which role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    /// The subresource written through; empty for the object itself.
    pub(crate) subresource: &'a str,
    /// When.
    pub(crate) at: jiff::Timestamp,
}

/// The fields no manager owns: identity and bookkeeping.
const STRIPPED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// The field set of a value without [`STRIPPED`] fields.
fn stripped(mut set: FieldSet) -> FieldSet {
    for path in STRIPPED {
        set.remove_member(path);
    }
    set
}

/// Records an ordinary write in `metadata.managedFields` of `new`: what changed between `old` (nothing for a create)
/// and `new` now belongs to the writer.
pub(crate) fn record_update(old: Option<&Value>, new: &mut Value, node: &Node, writer: Writer<'_>) {
    if cleared(new) {
        // The client asked for the bookkeeping to be dropped; it starts again with the next write.
        crate::object::meta_mut(new).remove("managedFields");
        return;
    }
    let mut managers = Managers::read(old.unwrap_or(new));
    let empty = serde_json::json!({"metadata": {}, "spec": {}, "status": {}});
    let difference = compare::compare(old.unwrap_or(&empty), new, node);
    let changed = stripped(difference.changed);
    let removed = stripped(difference.removed);
    if !changed.is_empty() || !removed.is_empty() {
        managers.disown_others(writer, false, &changed.union(&removed));
        managers.update(writer, &changed, &removed);
    }
    managers.write(new);
}

/// `managedFields: [{}]` is how a client asks to forget all managers.
fn cleared(object: &Value) -> bool {
    crate::object::at(object, &["metadata", "managedFields"])
        .and_then(Value::as_array)
        .is_some_and(|list| list.len() == 1 && list[0].as_object().is_some_and(serde_json::Map::is_empty))
}

/// Merges an applied configuration into the live object (nothing when it is to be created).
///
/// Fails with 409 and one cause per field when another manager owns a field this would change, unless `force`.
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    node: &Node,
    writer: Writer<'_>,
    force: bool,
) -> ApiResult<Value> {
    if crate::object::at(config, &["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let empty = serde_json::json!({});
    let live_or_empty = live.unwrap_or(&empty);
    let mut managers = Managers::read(live_or_empty);
    let last = managers.applied(writer);
    let wanted = stripped(FieldSet::of(config, node));
    let mut merged = merge::merge(live_or_empty, config, node);
    managers.set_applied(writer, wanted.clone());
    if let Some(last) = last {
        let kept = managers.everything();
        merge::prune(&mut merged, &last, &kept, node);
    }
    let difference = compare::compare(live_or_empty, &merged, node);
    let changed = stripped(difference.changed);
    let removed = stripped(difference.removed);
    let conflicts = managers.conflicts(writer, &changed);
    if !conflicts.is_empty() && !force {
        return Err(conflict_error(&conflicts));
    }
    managers.disown_others(writer, true, &changed.union(&removed));
    managers.write(&mut merged);
    Ok(merged)
}

fn conflict_error(conflicts: &[(String, Vec<String>)]) -> ApiError {
    let total: usize = conflicts.iter().map(|(_, fields)| fields.len()).sum();
    let list = match conflicts {
        [(who, fields)] if fields.len() == 1 => format!("conflict with {who}: {}", fields[0]),
        [(who, fields)] => format!("conflicts with {who}:\n- {}", fields.join("\n- ")),
        many => {
            let texts = many
                .iter()
                .map(|(who, fields)| format!("conflicts with {who}:\n- {}", fields.join("\n- ")));
            texts.collect::<Vec<_>>().join("\n")
        }
    };
    let plural = if total == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {total} {plural}: {list}");
    let mut error = ApiError::new(409, "Conflict", message);
    for (who, fields) in conflicts {
        for field in fields {
            error = error.with_cause("FieldManagerConflict", &format!("conflict with {who}"), field);
        }
    }
    error
}

//! What is left over of the fake's instances: network interfaces and volumes that nobody uses.

use std::collections::BTreeMap;

use super::state::Answer;
use super::wire::{self, Params, element, set};

/// Things that nobody uses, by id, with their tags.
pub type LeftOver = BTreeMap<String, BTreeMap<String, String>>;

/// Answers DescribeNetworkInterfaces and DescribeVolumes.
pub(super) fn describe(things: &LeftOver, set_name: &str, id_name: &str, params: &Params) -> Answer {
    let filters = params.filters();
    let shown = things
        .iter()
        .filter(|(_, tags)| {
            filters.iter().all(|(name, patterns)| {
                let value = match name.as_str() {
                    "status" => Some("available"),
                    other => other
                        .strip_prefix("tag:")
                        .and_then(|key| tags.get(key))
                        .map(String::as_str),
                };
                value.is_some_and(|value| patterns.iter().any(|pattern| wire::matches(pattern, value)))
            })
        })
        .map(|(id, _)| element(id_name, id) + &element("status", "available"));
    Ok(set(set_name, shown))
}

/// Answers DeleteNetworkInterface.
pub(super) fn delete_interface(things: &mut LeftOver, params: &Params) -> Answer {
    let id = params.get("NetworkInterfaceId").unwrap_or_default();
    match things.remove(id) {
        Some(_) => Ok(element("return", "true")),
        None => Err((
            "InvalidNetworkInterfaceID.NotFound".to_owned(),
            format!("The networkInterface ID '{id}' does not exist"),
        )),
    }
}

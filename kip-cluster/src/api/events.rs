//! Events live in two groups under different names: translate between `v1` (as stored) and `events.k8s.io/v1`.

use serde_json::{Value, json};

use crate::object::as_map;

/// Stored name, name in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("apiVersion", "apiVersion"),
];

/// The `events.k8s.io/v1` form of a stored event.
pub(crate) fn to_new(event: &Value) -> Value {
    let mut event = event.clone();
    let map = as_map(&mut event);
    for (old, new) in NAMES {
        if let Some(value) = map.remove(old) {
            map.insert(new.to_owned(), value);
        }
    }
    for name in ["reportingController", "reportingInstance"] {
        if map.get(name).is_some_and(|value| value == "") {
            map.remove(name);
        }
    }
    map.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
    event
}

/// The stored form of an `events.k8s.io/v1` event.
pub(crate) fn to_stored(mut event: Value) -> Value {
    let map = as_map(&mut event);
    for (old, new) in NAMES {
        if let Some(value) = map.remove(new) {
            map.insert(old.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), json!("v1"));
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, `kubectl describe` (v1) does not show what a controller wrote through events.k8s.io.
    #[test]
    fn both_forms_say_the_same() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "regarding": {"name": "p"}, "note": "hello", "reportingController": "c",
                         "reason": "R", "metadata": {"name": "e"}});
        let stored = to_stored(new.clone());
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["message"], "hello");
        assert_eq!(to_new(&stored), new);
    }
}

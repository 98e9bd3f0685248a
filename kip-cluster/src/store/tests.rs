//! What a controller's cache rests on: a list plus the watch from its version is the next list.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object(name: u8, payload: u8) -> Value {
    json!({"metadata": {"namespace": "n", "name": format!("o{name}")}, "payload": payload})
}

fn as_map(objects: &[Object]) -> BTreeMap<Key, Object> {
    objects
        .iter()
        .map(|object| (Key::of(object), Arc::clone(object)))
        .collect()
}

fn replay(mut state: BTreeMap<Key, Object>, changes: &[Change]) -> BTreeMap<Key, Object> {
    for change in changes {
        let key = Key::of(&change.object);
        match change.kind {
            ChangeKind::Added | ChangeKind::Modified => state.insert(key, Arc::clone(&change.object)),
            ChangeKind::Deleted => state.remove(&key),
        };
    }
    state
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8),
    Replace(u8, u8),
    Remove(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u8, any::<u8>()).prop_map(|(name, payload)| Step::Create(name, payload)),
        (0..6_u8, any::<u8>()).prop_map(|(name, payload)| Step::Replace(name, payload)),
        (0..6_u8).prop_map(Step::Remove),
    ]
}

fn run(store: &Store, step: &Step) {
    let key = |name: u8| Key::new("n", format!("o{name}"));
    let version = |name: u8| {
        store
            .get("t", &key(name))
            .map_or(0, |object| object::version(&object))
    };
    // A refused commit is part of the game: the invariants must hold all the same.
    let _ = match step {
        Step::Create(name, payload) => store.create("t", object(*name, *payload)),
        Step::Replace(name, payload) => store.replace("t", version(*name), object(*name, *payload)),
        Step::Remove(name) => store.remove("t", &key(*name), version(*name)),
    };
}

proptest! {
    /// Broken, every informer-style cache drifts from the truth.
    #[test]
    fn list_plus_watch_is_the_next_list(before in prop::collection::vec(step(), 0..30), after in prop::collection::vec(step(), 0..30)) {
        let store = Store::new(100);
        before.iter().for_each(|step| run(&store, step));
        let (version, list) = store.list("t", None);
        after.iter().for_each(|step| run(&store, step));
        let changes = store.changes("t", version, usize::MAX).unwrap();
        prop_assert!(changes.windows(2).all(|pair| pair[0].version < pair[1].version));
        prop_assert_eq!(replay(as_map(&list), &changes), as_map(&store.list("t", None).1));
    }

    /// Broken, a paged list mixes two points in time.
    #[test]
    fn an_old_version_lists_as_it_was(before in prop::collection::vec(step(), 0..30), after in prop::collection::vec(step(), 0..30)) {
        let store = Store::new(100);
        before.iter().for_each(|step| run(&store, step));
        let (version, list) = store.list("t", Some("n"));
        after.iter().for_each(|step| run(&store, step));
        prop_assert_eq!(store.list_at("t", Some("n"), version).unwrap(), list);
    }

    /// Broken, a slow watcher silently misses changes instead of being told to list again.
    #[test]
    fn a_reader_behind_the_history_is_told(steps in prop::collection::vec(step(), 0..60), history in 1..8_usize) {
        let store = Store::new(history);
        let (version, list) = store.list("t", None);
        steps.iter().for_each(|step| run(&store, step));
        match store.changes("t", version, usize::MAX) {
            Ok(changes) => prop_assert_eq!(replay(as_map(&list), &changes), as_map(&store.list("t", None).1)),
            Err(gone) => prop_assert!(store.changes("t", gone.oldest, usize::MAX).is_ok()),
        }
    }
}

/// Broken, two controllers overwrite each other unseen.
#[test]
fn a_stale_write_is_refused() {
    let store = Store::new(10);
    let first = object::version(&store.create("t", object(1, 0)).unwrap());
    let second = object::version(&store.replace("t", first, object(1, 1)).unwrap());
    assert!(second > first);
    assert_eq!(store.replace("t", first, object(1, 2)), Err(Refused::Changed));
    assert_eq!(
        store.remove("t", &Key::new("n", "o1"), first),
        Err(Refused::Changed)
    );
    assert_eq!(store.create("t", object(1, 3)), Err(Refused::Exists));
    assert_eq!(store.remove("t", &Key::new("n", "o9"), 1), Err(Refused::Missing));
}

/// Broken, `kubectl get -n a` shows objects of namespace `ab`.
#[test]
fn a_namespace_is_not_a_prefix() {
    let store = Store::new(10);
    for namespace in ["a", "ab", "b"] {
        store
            .create("t", json!({"metadata": {"namespace": namespace, "name": "x"}}))
            .unwrap();
    }
    assert_eq!(store.list("t", Some("a")).1.len(), 1);
    assert_eq!(store.list("t", None).1.len(), 3);
    assert_eq!(store.contents("ab").len(), 1);
}

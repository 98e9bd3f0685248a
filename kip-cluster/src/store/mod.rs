//! Keep all objects under one growing version, and remember recent changes so that watches can replay them.
//!
//! The store is a set of tables, one per resource type. Every commit gets the next version of one counter that all
//! tables share, as etcd does it. A table keeps its last [`Store::new`]`(history)` changes; a reader that wants to
//! continue from before them is told so ([`Gone`]) and must list again. Watches hold no queue of their own: each reads
//! the log from its cursor when the table says it changed, so a slow one costs nothing and can never block a commit.

mod changes;
mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use changes::Changes;
pub(crate) use log::{Change, ChangeKind, Gone};
use serde_json::Value;

use crate::object;

/// An object as stored; shared, never changed in place.
pub(crate) type Object = Arc<Value>;

/// What names an object within its table. Cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of(object: &Value) -> Self {
        Self::new(object::namespace(object), object::name(object))
    }
}

/// Why a commit did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Create: the name is taken.
    Exists,
    /// Replace or remove: there is no such object.
    Missing,
    /// Replace or remove: the object is not at the expected version.
    Changed,
}

struct Table {
    objects: BTreeMap<Key, Object>,
    log: log::Log,
    changed: Changes,
}

impl Table {
    fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: log::Log::default(),
            changed: Changes::default(),
        }
    }
}

struct Inner {
    version: u64,
    tables: BTreeMap<Arc<str>, Table>,
}

/// All objects of the cluster. Every method is synchronous, short, and safe to call from any thread.
pub(crate) struct Store {
    inner: RwLock<Inner>,
    history: usize,
    changed: Changes,
}

impl Store {
    /// An empty store that keeps the last `history` changes of each table (at least one).
    pub(crate) fn new(history: usize) -> Self {
        let inner = RwLock::new(Inner {
            version: 1,
            tables: BTreeMap::new(),
        });
        Self {
            inner,
            history: history.max(1),
            changed: Changes::default(),
        }
    }

    // A panic while the lock is held cannot leave a half-made commit (nothing between the steps can panic), so a
    // poisoned lock is as good as a sound one.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the last commit.
    pub(crate) fn version(&self) -> u64 {
        self.read().version
    }

    pub(crate) fn get(&self, table: &str, key: &Key) -> Option<Object> {
        self.read().tables.get(table)?.objects.get(key).cloned()
    }

    /// Every object of a table (of one namespace of it), in order of namespace and name, and the version they are at.
    pub(crate) fn list(&self, table: &str, namespace: Option<&str>) -> (u64, Vec<Object>) {
        let inner = self.read();
        let objects = inner
            .tables
            .get(table)
            .map_or_else(Vec::new, |table| in_namespace(&table.objects, namespace));
        (inner.version, objects)
    }

    /// What [`Store::list`] answered when the store was at `version`.
    pub(crate) fn list_at(
        &self,
        table: &str,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Vec<Object>, Gone> {
        let inner = self.read();
        let Some(table) = inner.tables.get(table) else {
            return Ok(Vec::new());
        };
        let mut objects = table.objects.clone();
        for change in table.log.after(version)?.iter().rev() {
            match &change.previous {
                Some(previous) => objects.insert(Key::of(previous), Arc::clone(previous)),
                None => objects.remove(&Key::of(&change.object)),
            };
        }
        Ok(in_namespace(&objects, namespace))
    }

    /// Adds an object; its `metadata.resourceVersion` is set to the commit's version.
    pub(crate) fn create(&self, table: &str, object: Value) -> Result<Object, Refused> {
        let key = Key::of(&object);
        let mut inner = self.write();
        if inner
            .tables
            .get(table)
            .is_some_and(|table| table.objects.contains_key(&key))
        {
            return Err(Refused::Exists);
        }
        Ok(self.commit(&mut inner, table, key, Some(object)))
    }

    /// Replaces the object of the same name, if it is at version `expected`.
    pub(crate) fn replace(&self, table: &str, expected: u64, object: Value) -> Result<Object, Refused> {
        let key = Key::of(&object);
        let mut inner = self.write();
        check(&inner, table, &key, expected)?;
        Ok(self.commit(&mut inner, table, key, Some(object)))
    }

    /// Removes an object, if it is at version `expected`; returns its last state, at the version of the removal.
    pub(crate) fn remove(&self, table: &str, key: &Key, expected: u64) -> Result<Object, Refused> {
        let mut inner = self.write();
        check(&inner, table, key, expected)?;
        Ok(self.commit(&mut inner, table, key.clone(), None))
    }

    fn commit(&self, inner: &mut Inner, table: &str, key: Key, object: Option<Value>) -> Object {
        inner.version += 1;
        let version = inner.version;
        let name: Arc<str> = match inner.tables.get_key_value(table) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(table),
        };
        let table = inner.tables.entry(name).or_insert_with(Table::new);
        let previous = table.objects.get(&key).cloned();
        let kind = match (&previous, &object) {
            (_, None) => ChangeKind::Deleted,
            (None, Some(_)) => ChangeKind::Added,
            (Some(_), Some(_)) => ChangeKind::Modified,
        };
        let gone = object.is_none();
        let mut value = object
            .or_else(|| previous.as_deref().cloned())
            .unwrap_or(Value::Null);
        object::meta_mut(&mut value).insert("resourceVersion".to_owned(), version.to_string().into());
        let object = Arc::new(value);
        if gone {
            table.objects.remove(&key);
        } else {
            table.objects.insert(key, Arc::clone(&object));
        }
        table.log.push(
            Change {
                version,
                kind,
                object: Arc::clone(&object),
                previous,
            },
            self.history,
        );
        table.changed.tell();
        self.changed.tell();
        object
    }

    /// The changes of a table after `version`, oldest first, at most `limit` of them.
    pub(crate) fn changes(&self, table: &str, version: u64, limit: usize) -> Result<Vec<Change>, Gone> {
        let inner = self.read();
        let Some(table) = inner.tables.get(table) else {
            return Ok(Vec::new());
        };
        Ok(table
            .log
            .after(version)?
            .into_iter()
            .take(limit)
            .cloned()
            .collect())
    }

    /// Says when a table changed.
    pub(crate) fn subscribe(&self, table: &str) -> Changes {
        let mut inner = self.write();
        inner
            .tables
            .entry(Arc::from(table))
            .or_insert_with(Table::new)
            .changed
            .clone()
    }

    /// Says when anything changed.
    pub(crate) fn subscribe_all(&self) -> Changes {
        self.changed.clone()
    }

    /// The names of all tables that hold an object of `namespace`, with those objects.
    pub(crate) fn contents(&self, namespace: &str) -> Vec<(String, Object)> {
        let inner = self.read();
        let tables = inner.tables.iter();
        tables
            .flat_map(|(name, table)| {
                let objects = in_namespace(&table.objects, Some(namespace));
                objects.into_iter().map(move |object| (name.to_string(), object))
            })
            .collect()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

fn check(inner: &Inner, table: &str, key: &Key, expected: u64) -> Result<(), Refused> {
    let current = inner
        .tables
        .get(table)
        .and_then(|table| table.objects.get(key))
        .ok_or(Refused::Missing)?;
    if object::version(current) == expected {
        Ok(())
    } else {
        Err(Refused::Changed)
    }
}

fn in_namespace(objects: &BTreeMap<Key, Object>, namespace: Option<&str>) -> Vec<Object> {
    match namespace {
        None => objects.values().cloned().collect(),
        Some(namespace) => objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect(),
    }
}

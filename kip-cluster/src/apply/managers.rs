//! The list of managers in `metadata.managedFields` and what each owns.

use serde_json::{Value, json};

use super::Writer;
use super::fieldset::FieldSet;
use crate::object;

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    applied: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

impl Entry {
    fn is(&self, writer: Writer<'_>, applied: bool) -> bool {
        self.name == writer.manager
            && self.applied == applied
            && self.subresource == writer.subresource
            && (applied || self.api_version == writer.api_version)
    }
}

/// Everybody who owns a field of one object.
#[derive(Debug, Default)]
pub(super) struct Managers(Vec<Entry>);

/// At most this many managers by update; older ones are merged into one, as kube-apiserver does it.
const MAX_UPDATERS: usize = 10;

impl Managers {
    pub(super) fn read(object: &Value) -> Self {
        let entries = object::list_at(object, &["metadata", "managedFields"]);
        let text =
            |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let read = |entry: &Value| Entry {
            name: text(entry, "manager"),
            applied: text(entry, "operation") == "Apply",
            api_version: text(entry, "apiVersion"),
            subresource: text(entry, "subresource"),
            time: text(entry, "time"),
            fields: entry.get("fieldsV1").map(FieldSet::from_json).unwrap_or_default(),
        };
        Self(entries.iter().map(read).collect())
    }

    pub(super) fn write(mut self, object: &mut Value) {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.merge_old_updaters();
        let mut list: Vec<Value> = Vec::new();
        for entry in &self.0 {
            let mut value = json!({
                "manager": entry.name, "operation": if entry.applied { "Apply" } else { "Update" },
                "apiVersion": entry.api_version, "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json(),
            });
            for (name, text) in [("time", &entry.time), ("subresource", &entry.subresource)] {
                if !text.is_empty() {
                    value[name] = text.as_str().into();
                }
            }
            list.push(value);
        }
        let meta = object::meta_mut(object);
        if list.is_empty() {
            meta.remove("managedFields");
        } else {
            meta.insert("managedFields".to_owned(), list.into());
        }
    }

    fn merge_old_updaters(&mut self) {
        self.0.sort_by(|a, b| {
            b.applied
                .cmp(&a.applied)
                .then_with(|| a.time.cmp(&b.time))
                .then_with(|| a.name.cmp(&b.name))
        });
        while self.0.iter().filter(|entry| !entry.applied).count() > MAX_UPDATERS {
            let Some(first) = self.0.iter().position(|entry| !entry.applied) else {
                return;
            };
            let old = self.0.remove(first);
            if let Some(next) = self.0.get_mut(first) {
                next.name = "ancient-changes".to_owned();
                next.fields = next.fields.union(&old.fields);
            }
        }
    }

    /// What the writer applied before.
    pub(super) fn applied(&self, writer: Writer<'_>) -> Option<FieldSet> {
        self.0
            .iter()
            .find(|entry| entry.is(writer, true))
            .map(|entry| entry.fields.clone())
    }

    pub(super) fn set_applied(&mut self, writer: Writer<'_>, fields: FieldSet) {
        let previous = self
            .0
            .iter()
            .position(|entry| entry.is(writer, true))
            .map(|index| self.0.remove(index));
        let unchanged = previous.as_ref().is_some_and(|entry| entry.fields == fields);
        let time = previous
            .filter(|_| unchanged)
            .map_or_else(|| crate::ids::timestamp(writer.at), |entry| entry.time);
        self.0.push(Entry {
            name: writer.manager.to_owned(),
            applied: true,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time,
            fields,
        });
    }

    /// Gives changed fields to the writer (by update) and takes removed ones from it.
    pub(super) fn update(&mut self, writer: Writer<'_>, changed: &FieldSet, removed: &FieldSet) {
        let index = self.0.iter().position(|entry| entry.is(writer, false));
        let own = index.map(|index| self.0.remove(index).fields).unwrap_or_default();
        self.0.push(Entry {
            name: writer.manager.to_owned(),
            applied: false,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: crate::ids::timestamp(writer.at),
            fields: own.difference(removed).union(changed),
        });
    }

    /// Takes fields from everybody but the writer in this role.
    pub(super) fn disown_others(&mut self, writer: Writer<'_>, applied: bool, fields: &FieldSet) {
        for entry in self.0.iter_mut().filter(|entry| !entry.is(writer, applied)) {
            entry.fields = entry.fields.difference(fields);
        }
    }

    /// All fields anybody owns.
    pub(super) fn everything(&self) -> FieldSet {
        self.0
            .iter()
            .fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Who else owns one of these fields, in words, with the fields.
    pub(super) fn conflicts(&self, writer: Writer<'_>, changed: &FieldSet) -> Vec<(String, Vec<String>)> {
        let others = self.0.iter().filter(|entry| !entry.is(writer, true));
        others
            .filter_map(|entry| {
                let fields = entry.fields.intersection(changed).paths();
                if fields.is_empty() {
                    return None;
                }
                let mut who = format!("\"{}\"", entry.name);
                if !entry.subresource.is_empty() {
                    who.push_str(&format!(" with subresource \"{}\"", entry.subresource));
                }
                if !entry.applied {
                    who.push_str(&format!(" using {}", entry.api_version));
                }
                Some((who, fields))
            })
            .collect()
    }
}

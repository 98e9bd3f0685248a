//! Reads a YAML or JSON document key by key and remembers every problem with its path, instead of stopping at the first.
//!
//! Scalars are coerced the way the old Kip did: an unquoted account number or `true` is fine where text is expected, and quoted numbers
//! are fine where numbers are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use kip_core::model::Bytes;
use secrecy::SecretString;
use serde_norway::Value;

use super::problem::Problem;

/// What templates of the old Kip put where a value is to be filled in.
const FILL_IN: &str = "FILL_IN";

/// Collects problems and warnings while a document is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Findings {
    /// Something that must be changed.
    pub(crate) fn problem(&self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    /// Something that has no effect.
    pub(crate) fn warning(&self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    /// Problems, then warnings.
    pub(crate) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }
}

/// One mapping of the document. Keys that are asked for are known; [`finish`](Self::finish) reports the others.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    path: String,
    entries: BTreeMap<String, &'a Value>,
    known: RefCell<Vec<&'static str>>,
    all_known: Cell<bool>,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// Reads a value as a mapping. Null is an empty one.
    pub(crate) fn of(path: &str, value: &'a Value, findings: &'a Findings) -> Self {
        let mut entries = BTreeMap::new();
        match value {
            Value::Null => {}
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    match scalar(key) {
                        Some(key) => drop(entries.insert(key, value)),
                        None => findings.problem(path, "keys must be plain text"),
                    }
                }
            }
            other => findings.problem(path, format!("must be a mapping, not {}", kind(other))),
        }
        Self {
            path: path.to_owned(),
            entries,
            known: RefCell::default(),
            all_known: Cell::new(false),
            findings,
        }
    }

    /// The whole path of a key in this section.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports a problem with a key.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) {
        self.findings.problem(self.path(key), message);
    }

    /// A key's value; null counts as absent.
    fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        self.entries.get(key).copied().filter(|value| !value.is_null())
    }

    /// A section below, also when it is absent.
    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        static NOTHING: Value = Value::Null;
        let value = self.value(key).unwrap_or(&NOTHING);
        Section::of(&self.path(key), value, self.findings)
    }

    /// A section below, if the key is written at all, be it with nothing under it.
    pub(crate) fn section_if_present(&self, key: &'static str) -> Option<Section<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.entries.get(key).copied().filter(|value| !value.is_null())?;
        Some(Section::of(&self.path(key), value, self.findings))
    }

    /// Text.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        let text = self.scalar(key, "text")?;
        Some(text).filter(|text| !text.is_empty())
    }

    /// Text that is never printed.
    pub(crate) fn secret(&self, key: &'static str) -> Option<SecretString> {
        self.text(key).map(SecretString::from)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.parsed(key, "true or false", |text| match text {
            "true" | "True" | "TRUE" | "yes" | "on" => Some(true),
            "false" | "False" | "FALSE" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// A number in thousandths, written with at most three decimals: `3.5` is 3500.
    pub(crate) fn thousandths(&self, key: &'static str, most: u64) -> Option<u64> {
        let what = format!("a number from 0 to {most} with at most three decimals");
        self.parsed(key, &what, |text| {
            thousandths(text).filter(|n| *n <= most.saturating_mul(1000))
        })
    }

    /// An amount of money in millionths, written in whole units with at most six decimals.
    pub(crate) fn micros(&self, key: &'static str) -> Option<u64> {
        self.parsed(key, "a price in dollars such as 0.0052", micros)
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.parsed(key, &names.join(" or "), |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
        })
    }

    /// Whether a key has a value, good or bad.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| !value.is_null())
    }

    /// A duration such as `90s`, `2m` or `1h30m`; a bare number is seconds.
    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as 90s or 2m", duration)
    }

    /// An amount of bytes, as a Kubernetes quantity: `5Gi`, `500M`.
    pub(crate) fn bytes(&self, key: &'static str) -> Option<Bytes> {
        self.parsed(key, "a quantity such as 5Gi", bytes)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &'static str) -> Vec<String> {
        let path = self.path(key);
        match self.value(key) {
            None => Vec::new(),
            Some(Value::Sequence(items)) => items
                .iter()
                .enumerate()
                .filter_map(|(i, item)| self.checked(&format!("{path}[{i}]"), item, "text"))
                .collect(),
            Some(other) => {
                self.findings
                    .problem(path, format!("must be a list of text, not {}", kind(other)));
                Vec::new()
            }
        }
    }

    /// A mapping of text to text with free keys.
    pub(crate) fn map(&self, key: &'static str) -> BTreeMap<String, String> {
        let section = self.section(key);
        section
            .entries
            .iter()
            .filter_map(|(name, value)| {
                let text = self.checked(&section.path(name), value, "text")?;
                Some((name.clone(), text))
            })
            .collect()
    }

    /// A mapping of free keys to sections.
    pub(crate) fn section_map(&self, key: &'static str) -> BTreeMap<String, Section<'a>> {
        let section = self.section(key);
        section
            .entries
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    Section::of(&section.path(name), value, self.findings),
                )
            })
            .collect()
    }

    /// All keys with their values, for a reader with rules of its own. They count as known.
    pub(crate) fn take_all(&self) -> Vec<(String, &'a Value)> {
        self.all_known.set(true);
        self.entries
            .iter()
            .map(|(key, value)| (key.clone(), *value))
            .collect()
    }

    /// A key of the old Kip that has no effect any more. What is under it is not looked at.
    pub(crate) fn obsolete(&self, key: &'static str, instead: &str) {
        if self.value(key).is_some() {
            self.no_effect(key, instead);
        }
    }

    /// The same for a list that asks for nothing while it is empty.
    pub(crate) fn obsolete_unless_empty(&self, key: &'static str, instead: &str) {
        match self.value(key) {
            None => {}
            Some(Value::Sequence(items)) if items.is_empty() => {}
            Some(_) => self.no_effect(key, instead),
        }
    }

    /// Says that a key, which may be any, has no effect.
    pub(crate) fn no_effect(&self, key: &str, instead: &str) {
        self.findings
            .warning(self.path(key), format!("has no effect: {instead}"));
    }

    /// Reports every key nobody asked for.
    pub(crate) fn finish(self) {
        if self.all_known.get() {
            return;
        }
        let known = self.known.borrow();
        for key in self.entries.keys().filter(|key| !known.contains(&key.as_str())) {
            let near = known
                .iter()
                .filter(|candidate| is_near(key, candidate))
                .min_by_key(|candidate| candidate.len().abs_diff(key.len()));
            let message = match near {
                Some(near) => format!("unknown key; did you mean {near}?"),
                None => {
                    let mut all: Vec<&str> = known.clone();
                    all.sort_unstable();
                    format!("unknown key; known here: {}", all.join(", "))
                }
            };
            self.findings.problem(self.path(key), message);
        }
    }

    fn scalar(&self, key: &'static str, what: &str) -> Option<String> {
        let value = self.value(key)?;
        self.checked(&self.path(key), value, what)
    }

    fn parsed<T>(&self, key: &'static str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.scalar(key, what)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.problem(key, format!("must be {what}, not {text:?}"));
        }
        parsed
    }

    fn checked(&self, path: &str, value: &Value, what: &str) -> Option<String> {
        match scalar(value) {
            Some(text) if text == FILL_IN => {
                self.findings.problem(
                    path,
                    "still says FILL_IN: put your value there, or remove the key",
                );
                None
            }
            Some(text) => Some(text),
            None => {
                self.findings
                    .problem(path, format!("must be {what}, not {}", kind(value)));
                None
            }
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// Whether two keys differ only in case, in `-` and `_`, or in at most two letters.
fn is_near(key: &str, candidate: &str) -> bool {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let (a, b) = (plain(key), plain(candidate));
    a == b || (a.len() > 3 && distance(&a, &b) <= 2)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn thousandths(text: &str) -> Option<u64> {
    decimal(text, 3)
}

fn micros(text: &str) -> Option<u64> {
    decimal(text, 6)
}

/// A decimal number with at most so many places, as a whole number of its last place.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > places || whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

/// A duration such as `90s`, `2m` or `1h30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

/// An amount of bytes, as a Kubernetes quantity without sign or exponent.
pub(crate) fn bytes(text: &str) -> Option<Bytes> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let factor: u64 = match suffix {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let amount = u128::from(thousandths(number)?) * u128::from(factor);
    u64::try_from(amount.div_ceil(1000)).ok().map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_durations_read_as_people_write_them() {
        assert_eq!(bytes("5Gi"), Some(Bytes::gib(5)));
        assert_eq!(bytes("1.5Gi"), Some(Bytes::mib(1536)));
        assert_eq!(bytes("10G"), Some(Bytes(10_000_000_000)));
        assert_eq!(bytes("0"), Some(Bytes(0)));
        assert_eq!(bytes("1Pi"), Some(Bytes(1 << 50)));
        for wrong in ["", "Gi", "-1", "1.2345", "5 Gi", "5X", "1e3", "99999999999999Ti"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "-1s", "soon"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_typo_is_recognized_so_the_user_need_not_look_it_up() {
        assert!(is_near("defaultInstancetype", "defaultInstanceType"));
        assert!(is_near("nametags", "nametag"));
        assert!(is_near("boot-image-spec", "bootImageSpec"));
        assert!(!is_near("zone", "region"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

//! Holds `docs/migrating-from-kip.md` against the code, row by row: whoever moves a cluster by that page must be able to believe it.

mod command;
mod config;
mod pods;
mod tags;

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/migrating-from-kip.md");

/// What the page says of something old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    Honoured,
    Differs,
    Warned,
    Refused,
    Unused,
}

/// One name of a row.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    now: Now,
    remark: String,
}

/// What the code does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// It has an effect.
    Taken,
    /// It has none, and these words say so.
    Warned(String),
    /// It is an error, with these words.
    Refused(String),
    /// It is accepted, and nothing shows that it has an effect.
    Unseen,
}

impl Row {
    /// What is wrong with the row when the code does this. None: nothing.
    fn contradicted(&self, found: &Found) -> Option<String> {
        let Self { name, now, remark } = self;
        let fits = match (now, found) {
            (Now::Honoured | Now::Differs, Found::Taken) | (Now::Unused, Found::Unseen) => true,
            (Now::Warned, Found::Warned(text)) | (Now::Refused, Found::Refused(text)) => is_helpful(text),
            _ => false,
        };
        if !fits {
            return Some(format!("{name}: the page says {now:?}, the code does {found:?}"));
        }
        (remark.is_empty() && *now != Now::Honoured)
            .then(|| format!("{name}: the page does not say why {now:?}"))
    }
}

/// Fails unless the code does what each row says.
fn check(rows: &[Row], does: impl Fn(&Row) -> Found) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| row.contradicted(&does(row)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a message says more than that something is wrong.
fn is_helpful(text: &str) -> bool {
    text.split_whitespace().count() >= 5
}

/// The lines between a heading and the next.
fn section(heading: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!("## {heading}");
    let mut lines = PAGE.lines();
    assert!(lines.any(|line| line == heading), "the page has no {heading:?}");
    lines.take_while(|line| !line.starts_with("## "))
}

/// The cells of each row of a section's table, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let rows: Vec<Vec<&str>> = section(heading)
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .skip(2)
        .collect();
    assert!(!rows.is_empty(), "{heading:?} has no table");
    rows
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of a section, one for each name.
fn rows(heading: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for cells in table(heading) {
        let [names, now, remark] = cells[..] else {
            panic!("{heading:?} has a row of another shape: {cells:?}");
        };
        let now = match now {
            "honoured" => Now::Honoured,
            "differs" => Now::Differs,
            "warned" => Now::Warned,
            "refused" => Now::Refused,
            "unused" => Now::Unused,
            other => panic!("{names}: {other:?} is no answer"),
        };
        rows.extend(quoted(names).map(|name| Row {
            name: name.to_owned(),
            now,
            remark: remark.to_owned(),
        }));
    }
    rows
}

/// Fails unless there is a row for each example and an example for each row.
fn assert_same<'a>(rows: &[Row], examples: impl IntoIterator<Item = &'a str>) {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let examples: BTreeSet<&str> = examples.into_iter().collect();
    let missing: Vec<_> = examples.difference(&names).collect();
    assert!(missing.is_empty(), "no row on the page: {missing:?}");
    let unchecked: Vec<_> = names.difference(&examples).collect();
    assert!(unchecked.is_empty(), "rows that nothing checks: {unchecked:?}");
    assert_eq!(rows.len(), names.len(), "a name has two rows");
}

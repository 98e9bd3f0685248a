//! The table of what each pod got: offering, price, and the time each stage took.

use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::command::read;
use crate::dev::Dev;
use crate::ui;

/// The stages, by the marks on a cell that end them.
const STAGES: [(&str, &str); 5] = [
    ("decided", "decidedAt"),
    ("launched", "launchedAt"),
    ("agent up", "connectedAt"),
    ("image", "imagesAt"),
    ("running", "runningAt"),
];

/// Prints one line per pod.
pub(super) fn table(dev: &Dev, pods: &[&str]) -> Result<()> {
    let seen = dev.cells_seen()?;
    let mut head = vec!["POD", "OFFERING", "PRICE/H"];
    head.extend(STAGES.iter().map(|(name, _)| *name));
    head.push("in all");
    let rows: Vec<Vec<String>> = pods.iter().map(|pod| row(&seen, pod)).collect();
    ui::table(&head, &rows);
    Ok(())
}

fn row(seen: &[Value], pod: &str) -> Vec<String> {
    // The last version that was seen has every mark that was ever set, unless the cell was gone before it was told.
    let versions: Vec<&Value> = seen
        .iter()
        .filter(|cell| find(cell, "name").any(|name| name == pod))
        .collect();
    let text = |key: &str| {
        versions.iter().rev().find_map(|cell| {
            find(cell, key).find_map(|value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
        })
    };
    let mut row = vec![
        pod.to_owned(),
        text("offering").unwrap_or_else(|| "none".into()),
        price(text("price")),
    ];
    let seen_at = text("seenAt").or_else(|| text("decidedAt"));
    let mut last = seen_at.as_deref().and_then(seconds);
    let first = last;
    for (_, mark) in STAGES {
        let at = text(mark).as_deref().and_then(seconds);
        row.push(match (last, at) {
            (Some(before), Some(at)) => milliseconds(at - before),
            _ => "-".into(),
        });
        last = at.or(last);
    }
    row.push(match (first, text("runningAt").as_deref().and_then(seconds)) {
        (Some(first), Some(running)) => milliseconds(running - first),
        _ => "-".into(),
    });
    row
}

fn price(value: Option<String>) -> String {
    value.map_or_else(
        || "-".into(),
        |price| {
            if price.starts_with('$') {
                price
            } else {
                format!("${price}")
            }
        },
    )
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.0} ms", (seconds * 1000.0).max(0.0))
}

/// Every value of a key, at whatever depth of an object.
pub(crate) fn find<'a>(value: &'a Value, key: &'a str) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    match value {
        Value::Object(map) => Box::new(
            map.get(key)
                .into_iter()
                .chain(map.values().flat_map(move |inner| find(inner, key))),
        ),
        Value::Array(list) => Box::new(list.iter().flat_map(move |inner| find(inner, key))),
        _ => Box::new(std::iter::empty()),
    }
}

/// The seconds of a day of an RFC 3339 time in UTC: enough for differences of a few seconds.
pub(crate) fn seconds(time: &str) -> Option<f64> {
    let clock = time.split_once('T')?.1.trim_end_matches('Z');
    let mut parts = clock.splitn(3, ':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Shows `kip get cells`.
pub(super) fn list(dev: &Dev) -> Result<()> {
    let mut kip = Command::new(&dev.program);
    kip.args(["get", "cells"]).envs(
        dev.kubectl(&[])
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    ui::command("kip get cells");
    ui::answer(&read(&mut kip)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_tells_the_time_of_each_stage() {
        let cell = json!({"metadata": {"name": "cell-1"}, "spec": {"pod": {"name": "web"}, "offering": "m.small", "price": "0.02"},
            "status": {"marks": {"decidedAt": "2026-01-01T10:00:00.000Z", "launchedAt": "2026-01-01T10:00:00.100Z",
                "connectedAt": "2026-01-01T10:00:00.400Z", "imagesAt": null, "runningAt": "2026-01-01T10:00:00.900Z"}}});
        assert_eq!(
            row(&[cell], "web"),
            [
                "web", "m.small", "$0.02", "0 ms", "100 ms", "300 ms", "-", "500 ms", "900 ms"
            ]
        );
    }
}

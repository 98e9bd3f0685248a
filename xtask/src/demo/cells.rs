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
        .filter(|cell| cell["spec"]["pod"]["name"] == pod)
        .collect();
    let Some(spec) = versions.last().map(|cell| &cell["spec"]) else {
        let mut row = vec![pod.to_owned(), "none".to_owned()];
        row.resize(STAGES.len() + 4, "-".to_owned());
        return row;
    };
    let at = |name: &str| versions.iter().rev().find_map(|cell| mark(cell, name));
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let price = text(&spec["price"]);
    let mut row = vec![
        pod.to_owned(),
        format!(
            "{} ({})",
            text(&spec["offering"]["instanceType"]),
            text(&spec["offering"]["capacityType"])
        ),
        if price.starts_with('$') {
            price
        } else {
            format!("${price}")
        },
    ];
    let first = at("seenAt").or_else(|| at("decidedAt"));
    let mut last = first;
    for (_, name) in STAGES {
        let now = at(name);
        row.push(match (last, now) {
            (Some(before), Some(now)) => milliseconds(now - before),
            _ => "-".into(),
        });
        last = now.or(last);
    }
    row.push(match (first, at("runningAt")) {
        (Some(first), Some(running)) => milliseconds(running - first),
        _ => "-".into(),
    });
    row
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.0} ms", (seconds * 1000.0).max(0.0))
}

/// When a cell reached a stage, in the seconds of its day; `None` when it has not.
pub(crate) fn mark(cell: &Value, name: &str) -> Option<f64> {
    let marks = [&cell["status"]["marks"][name], &cell["spec"][name]];
    marks.into_iter().find_map(Value::as_str).and_then(seconds)
}

/// The seconds of a day of an RFC 3339 time in UTC: enough for differences of a few seconds.
fn seconds(time: &str) -> Option<f64> {
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
        let cell = json!({
            "spec": {"pod": {"name": "web"}, "price": "0.02", "seenAt": "2026-01-01T09:59:59.900Z",
                "offering": {"instanceType": "local.small", "capacityType": "spot"}},
            "status": {"marks": {"decidedAt": "2026-01-01T10:00:00.000Z", "launchedAt": "2026-01-01T10:00:00.100Z",
                "connectedAt": "2026-01-01T10:00:00.400Z", "runningAt": "2026-01-01T10:00:00.900Z"}},
        });
        let want = [
            "web",
            "local.small (spot)",
            "$0.02",
            "100 ms",
            "100 ms",
            "300 ms",
            "-",
            "500 ms",
            "1000 ms",
        ];
        assert_eq!(row(std::slice::from_ref(&cell), "web"), want);
        assert_eq!(
            row(&[cell], "other")[1],
            "none",
            "a pod without a cell must not borrow another's"
        );
    }
}

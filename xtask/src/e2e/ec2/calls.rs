//! How often Kip called which action: what it costs of a rate that a whole account shares.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use base64::Engine as _;
use serde_json::Value;

use super::api::KEY;
use crate::command::{cmd, read};

/// Where calls are written down.
#[derive(Debug)]
pub(super) enum Source {
    /// A file of moto's recorder: one JSON object a line.
    Recording(PathBuf),
    /// Where the fake EC2 answers with its counts.
    Url(String),
}

/// One line: each action with its count, the most called first.
pub(super) fn report(source: &Source) -> Result<String> {
    let counts = match source {
        Source::Url(url) => counted(&read(&mut cmd(
            "curl",
            ["--silent", "--show-error", "--fail", url],
        ))?),
        Source::Recording(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            recorded(&text)
        }
    };
    let mut list: Vec<(String, usize)> = counts.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let words: Vec<String> = list
        .into_iter()
        .map(|(action, count)| format!("{action} {count}"))
        .collect();
    Ok(words.join(", "))
}

fn counted(text: &str) -> BTreeMap<String, usize> {
    text.lines()
        .filter_map(|line| {
            let (action, count) = line.split_once(' ')?;
            Some((action.to_owned(), count.parse().ok()?))
        })
        .collect()
}

/// Without the calls that are not Kip's.
fn recorded(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let Ok(call) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let by = call["headers"]["Authorization"].as_str().unwrap_or_default();
        if by.contains(KEY) {
            continue;
        }
        let body = call["body"].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap_or_else(|_| body.as_bytes().to_vec());
        let body = String::from_utf8_lossy(&bytes);
        if let Some(action) = body.split('&').find_map(|pair| pair.strip_prefix("Action=")) {
            *counts.entry(action.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kips_calls_are_counted_and_no_others_or_the_figure_would_mislead() {
        let line = |key: &str, body: &str| {
            let body = base64::engine::general_purpose::STANDARD.encode(body);
            serde_json::json!({"headers": {"Authorization": format!("Credential={key}/x")}, "body": body})
                .to_string()
        };
        let text = [
            line("AKIAKIP", "Action=RunInstances&Version=1"),
            line("AKIAKIP", "Version=1&Action=RunInstances"),
            line(KEY, "Action=DescribeInstances"),
        ]
        .join("\n");
        assert_eq!(recorded(&text), BTreeMap::from([("RunInstances".to_owned(), 2)]));
        assert_eq!(
            counted("DescribeInstances 3\n"),
            BTreeMap::from([("DescribeInstances".to_owned(), 3)])
        );
    }
}

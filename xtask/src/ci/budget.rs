//! For keeping kip-core cheap to embed: how many crates it brings, and which it must never bring.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::command::{cmd, read};
use crate::{paths, ui};

/// Features → the most crates, kip-core itself counted (design budgets; a change needs a decision record).
const BUDGETS: [(&str, &[&str], usize); 2] = [
    ("default", &[], 30),
    ("the heart alone", &["--no-default-features"], 22),
];

/// What an embedder with default features must not get.
const NEVER: [&str; 8] = [
    "axum",
    "h2",
    "hyper",
    "k8s-openapi",
    "kube",
    "prost",
    "rustls",
    "tonic",
];

/// Fails when a budget is exceeded.
pub(super) fn check() -> Result<()> {
    let mut problems = Vec::new();
    for (name, features, most) in BUDGETS {
        let crates = tree(features)?;
        ui::step(&format!(
            "kip-core, {name}: {} crates of at most {most}",
            crates.len()
        ));
        if crates.len() > most {
            problems.push(format!(
                "kip-core, {name}, brings {} crates; at most {most}: {crates:?}",
                crates.len()
            ));
        }
        let forbidden: Vec<&str> = NEVER
            .into_iter()
            .filter(|never| crates.iter().any(|name| name.split(' ').next() == Some(never)))
            .collect();
        if !forbidden.is_empty() {
            problems.push(format!("kip-core, {name}, brings {}", forbidden.join(", ")));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The crates kip-core brings, build dependencies and procedural macros included.
pub(crate) fn tree(features: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = cmd(
        "cargo",
        [
            "tree",
            "-p",
            "kip-core",
            "-e",
            "normal,build",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ],
    );
    let text = read(cargo.args(features).current_dir(paths::workspace()))?;
    let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(words)
        .collect())
}

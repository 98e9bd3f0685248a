//! What the programs weigh, and how many crates kip-core brings.

use std::path::Path;

use anyhow::{Context, Result};

use super::report::Report;
use crate::build::Release;
use crate::ci::crates_of_core;

pub(super) fn measure(programs: &Release, report: &mut Report) -> Result<()> {
    report.at_most("agent, stripped", megabytes(&programs.agent)?, 12.0, "MB");
    report.plain(
        "kip, stripped, only the local cloud",
        &format!("{:.1} MB", megabytes(&programs.kip)?),
    );
    for (what, features, budget) in [
        ("crates of kip-core, default", vec![], 30.0),
        (
            "crates of kip-core, heart alone",
            vec!["--no-default-features"],
            22.0,
        ),
    ] {
        let count = u32::try_from(crates_of_core(&features)?.len()).context("too many crates to count")?;
        report.at_most(what, f64::from(count), budget, "crates");
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a size in megabytes needs no more than three digits"
)]
fn megabytes(path: &Path) -> Result<f64> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    Ok(size as f64 / 1e6)
}

//! For the figures this project promises: measures them and writes `benches/README.md`, failing where a budget is
//! exceeded.

mod cri;
mod micro;
mod pods;
mod report;
mod sizes;

use anyhow::{Context, Result, bail};

use self::report::Report;
use crate::{build, interrupt, setup, ui};

/// Measures everything and writes the report.
pub(crate) fn run() -> Result<()> {
    let machine = setup::machine()?;
    let programs = build::release()?;
    let mut report = Report::new()?;
    ui::section("Crates and sizes");
    sizes::measure(&programs, &mut report)?;
    ui::section("Pods on kip dev");
    let folder = tempfile::Builder::new()
        .prefix("kip-bench-")
        .tempdir()
        .context("cannot make a folder")?;
    let mut dev = crate::dev::Dev::start(&machine, &programs, folder.path())?;
    let outcome = pods::measure(&mut dev, &mut report);
    interrupt::clear();
    let cloud = dev.cloud()?;
    let ended = dev.end();
    outcome?;
    ended?;
    cloud.prove_none_left()?;
    ui::section("A pod on a ready cell against the bare CRI calls");
    cri::measure(&machine, &mut report)?;
    ui::section("Placement and step");
    micro::measure(&mut report)?;
    let over = report.write()?;
    if !over.is_empty() {
        bail!("over budget: {}", over.join("; "));
    }
    Ok(())
}

//! For the figures this project promises: measures them and writes `benches/README.md`, failing where a budget is
//! exceeded.

mod micro;
mod pods;
mod report;
mod sizes;

use anyhow::{Context, Result, bail};

use self::report::Report;
use crate::{build, interrupt, leftovers, setup, ui};

/// Measures everything and writes the report.
pub(crate) fn run() -> Result<()> {
    let machine = setup::machine()?;
    let programs = build::release()?;
    let mut report = Report::new()?;
    ui::section("Crates and sizes");
    sizes::measure(&programs, &mut report)?;
    ui::section("Pods on kip dev");
    let before = leftovers::Machine::now()?;
    let folder = tempfile::Builder::new()
        .prefix("kip-bench-")
        .tempdir()
        .context("cannot make a folder")?;
    let mut dev = crate::dev::Dev::start(&machine, &programs, folder.path())?;
    let outcome = pods::measure(&mut dev, &mut report);
    interrupt::clear();
    let data = dev.data().to_owned();
    let ended = dev.end();
    outcome?;
    ended?;
    leftovers::prove_none(&before, &data)?;
    ui::section("A pod on a ready cell against the bare CRI calls");
    pods::against_cri(&machine, &mut report)?;
    ui::section("Placement and step");
    micro::measure(&mut report)?;
    let over = report.write()?;
    if !over.is_empty() {
        bail!("over budget: {}", over.join("; "));
    }
    Ok(())
}

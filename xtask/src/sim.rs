//! `cargo xtask sim`: the real driver in simulated worlds in which everything goes wrong, and the proof that they find defects.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cmd, run};
use crate::{paths, ui};

const MUTANTS: &str = "--mutants";

/// Builds the simulator in release mode, where two thousand stories take less than a minute, and runs it with these arguments, in the
/// caller's folder: that is where files they name are.
pub(crate) fn run_with(mutants: bool, args: &[String]) -> Result<()> {
    // After an argument of the simulator's it is read as one of them too.
    let mutants = mutants || args.iter().any(|arg| arg == MUTANTS);
    let program = build(mutants)?;
    let mut sim = cmd(program, args.iter().filter(|arg| *arg != MUTANTS));
    if mutants {
        sim.arg(MUTANTS);
    }
    ui::step("The real machine, planner and driver; everything around them is simulated, in virtual time.");
    run(&mut sim)
}

/// Mutants are compiled in by a `cfg` that nothing else sets, into a folder of their own: no other build ever sees them.
fn build(mutants: bool) -> Result<PathBuf> {
    let mut cargo = cmd("cargo", ["build", "--release", "-p", "kip-testkit"]);
    cargo.args(["--features", "sim", "--bin", "kip-sim"]);
    let mut folder = paths::target();
    if mutants {
        folder = folder.join("mutants");
        cargo.env("CARGO_TARGET_DIR", &folder);
        cargo.env("RUSTFLAGS", "--cfg kip_mutants");
    }
    run(cargo.current_dir(paths::workspace()))?;
    Ok(folder.join("release").join("kip-sim"))
}

//! For proving that the whole thing works: one list of named cases against a real control plane or the in-process one.

mod api;
mod client;
mod world;

use anyhow::{Result, bail};

pub(crate) use self::world::World;
use crate::cluster::Kind;
use crate::{interrupt, setup, ui};

/// One thing a user relies on.
pub(crate) struct Case {
    /// Says what holds when it passes.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut World) -> Result<()>,
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Only cases whose name contains this.
    pub(crate) only: Option<String>,
    /// Only the cases that need no cell, and no root.
    pub(crate) api_only: bool,
}

/// Runs the cases and prints those that passed. Fails when any did not.
pub(crate) fn run(kind: Kind, options: &Options) -> Result<()> {
    let machine = setup::machine()?;
    let mut world = World::start(kind, machine)?;
    let mut passed = Vec::new();
    let mut failed = Vec::new();
    for case in api::CASES {
        if options.only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        let begin = std::time::Instant::now();
        let outcome = world.case(case);
        interrupt::check()?;
        let took = ui::duration(begin.elapsed());
        match outcome {
            Ok(()) => {
                println!("PASS {}  ({took})", case.name);
                passed.push(case.name);
            }
            Err(error) => {
                ui::failed(&format!("{} ({took}): {error:#}", case.name));
                failed.push(case.name);
            }
        }
    }
    drop(world);
    println!("\npassed:");
    for name in &passed {
        println!("PASS {name}");
    }
    if !failed.is_empty() {
        bail!("{} of {} cases failed: {}", failed.len(), failed.len() + passed.len(), failed.join("; "));
    }
    Ok(())
}

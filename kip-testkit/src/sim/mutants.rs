//! Builds in one defect after the other, and looks for a seed that shows it. Compiled only with `--cfg kip_mutants`.

use kip_core::mutants::{ALL, choose};

use super::fleet::fleet;
use super::scenario::Scenario;

/// How one deliberate defect was found.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What the defect is called.
    pub name: String,
    /// What it does.
    pub does: &'static str,
    /// The first seed that showed it, and the rule it broke; None when none did.
    pub found: Option<(u64, &'static str)>,
    /// How many seeds were looked at.
    pub seeds: u64,
}

/// Looks for each defect in up to so many seeds.
pub fn hunt(seeds: u64, threads: usize, draw: impl Fn(u64) -> Scenario + Sync) -> Vec<Hunt> {
    let mut hunts = Vec::new();
    for (mutant, does) in ALL {
        choose(Some(*mutant));
        let fleet = fleet(0..seeds, threads, 1, &draw);
        let failure = fleet.failures.first();
        hunts.push(Hunt {
            name: format!("{mutant:?}"),
            does: does.trim(),
            found: failure.map(|failure| {
                let rule = failure
                    .violations
                    .first()
                    .map_or("panic", |violation| violation.rule);
                (failure.scenario.seed, rule)
            }),
            seeds: fleet.seeds,
        });
    }
    choose(None);
    hunts
}

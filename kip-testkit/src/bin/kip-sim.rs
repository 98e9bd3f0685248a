//! Runs simulated stories: `cargo xtask sim` builds and calls it.

#![expect(clippy::print_stdout, reason = "printing what it found is what it is for")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kip_testkit::sim::{Fleet, Outcome, Scenario, Side, fleet, from_seed, minimise, run, story};

/// Stories tried while one is made smaller.
const TRIES: usize = 600;

#[derive(Debug, Parser)]
#[command(
    name = "kip-sim",
    about = "Runs the real driver in simulated worlds in which everything goes wrong"
)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the story in this file.
    #[arg(long, conflicts_with = "seed")]
    file: Option<PathBuf>,
    /// Put the kubelet's own watcher, source and store over a simulated API server under the driver.
    #[arg(long)]
    api: bool,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Threads; default one a core.
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many broken stories.
    #[arg(long, default_value_t = 10)]
    enough: usize,
    /// Only count which rules are broken in which seeds.
    #[arg(long)]
    brief: bool,
    /// Show that deliberate defects are found. Only in a build with `--cfg kip_mutants`.
    #[arg(long)]
    mutants: bool,
    /// Write broken stories, made smaller, into this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Options {
    fn side(&self) -> Side {
        if self.api { Side::Api } else { Side::Traits }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match tell(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(options: &Options) -> Result<bool, String> {
    if let Some(path) = &options.file {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let scenario: Scenario =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(one(options, &scenario));
    }
    if let Some(seed) = options.seed {
        return Ok(one(options, &from_seed(seed, options.side())));
    }
    let threads = options
        .threads
        .or_else(|| std::thread::available_parallelism().map(usize::from).ok())
        .unwrap_or(1);
    if options.mutants {
        return mutants(options, threads);
    }
    let seeds = options.from..options.from + options.seeds;
    let fleet = fleet(seeds, threads, options.enough, |seed| {
        from_seed(seed, options.side())
    });
    if options.brief {
        count(&fleet);
    } else {
        for failure in &fleet.failures {
            broken(options, &failure.scenario)?;
        }
    }
    figures(&fleet);
    Ok(fleet.failures.is_empty())
}

fn one(options: &Options, scenario: &Scenario) -> bool {
    let outcome = run(scenario);
    if options.trace {
        for line in &outcome.trace {
            println!("{line}");
        }
    }
    if !outcome.violations.is_empty() {
        if !options.trace {
            println!("{}", story(scenario, &outcome));
        }
        for violation in &outcome.violations {
            println!("{}: {}", violation.rule, violation.text);
        }
    }
    last_line(1, outcome.launches, usize::from(!outcome.violations.is_empty()));
    outcome.violations.is_empty()
}

#[cfg(kip_mutants)]
fn mutants(options: &Options, threads: usize) -> Result<bool, String> {
    let hunts = kip_testkit::sim::hunt(options.seeds, threads, |seed| from_seed(seed, options.side()));
    for hunt in &hunts {
        match hunt.found {
            Some((seed, rule)) => println!("found      {:<26} seed {seed:>4}: {rule}", hunt.name),
            None => println!(
                "NOT FOUND  {:<26} in {} seeds. {}",
                hunt.name, hunt.seeds, hunt.does
            ),
        }
    }
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    println!("mutants: {found} of {} found", hunts.len());
    Ok(found == hunts.len())
}

#[cfg(not(kip_mutants))]
fn mutants(_: &Options, _: usize) -> Result<bool, String> {
    Err("this build has no deliberate defects: use `cargo xtask sim --mutants`".into())
}

fn count(fleet: &Fleet) {
    let mut seeds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for failure in &fleet.failures {
        if let Some(violation) = failure.violations.first() {
            seeds
                .entry(violation.rule)
                .or_default()
                .push(failure.scenario.seed);
        }
    }
    for (rule, seeds) in seeds {
        println!("{:>5} x {rule}: {:?}", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
}

/// Makes a broken story smaller, tells it, and keeps it.
fn broken(options: &Options, scenario: &Scenario) -> Result<(), String> {
    let outcome = run(scenario);
    let rule = outcome
        .violations
        .first()
        .map_or("panic", |violation| violation.rule);
    println!("seed {}: {rule}; looking for what matters ...", scenario.seed);
    let mut small = minimise(scenario, rule, TRIES);
    let outcome: Outcome = run(&small);
    println!("{}", story(&small, &outcome));
    if let Some(folder) = &options.keep {
        small.about = outcome.violations.first().map_or(String::new(), |violation| {
            format!("{}: {}", violation.rule, violation.text)
        });
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(format!("seed-{}-{}.json", scenario.seed, rule.replace(' ', "-")));
        let text = serde_json::to_string_pretty(&small).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        println!("kept as {}", path.display());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(fleet: &Fleet) {
    println!("faults that struck:");
    for (what, count) in &fleet.injected {
        println!("  {count:>8}  {what}");
    }
    let minutes = fleet.took.as_secs_f64() / 60.0;
    println!(
        "{} pods, {} instances, {} crashes, {:.1} virtual hours in {:.1} s: {:.0} seeds per minute",
        fleet.pods,
        fleet.instances,
        fleet.crashes,
        fleet.virtual_ms as f64 / 3_600_000.0,
        fleet.took.as_secs_f64(),
        fleet.seeds as f64 / minutes.max(f64::MIN_POSITIVE),
    );
    println!(
        "launch calls answered with no capacity per instance: {:.3}",
        fleet.wasted as f64 / (fleet.instances.max(1)) as f64
    );
    last_line(fleet.seeds, fleet.launches, fleet.failures.len());
}

fn last_line(seeds: u64, launches: u64, violations: usize) {
    println!("sim: {seeds} seeds, {launches} launches, {violations} violations");
}

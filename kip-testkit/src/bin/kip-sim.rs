//! Runs simulated stories: `cargo xtask sim` builds and calls it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use kip_testkit::sim::{Fleet, Outcome, Scenario, Side, fleet, from_seed, minimise, run, story};

/// Stories tried while one is made smaller.
const TRIES: usize = 600;

const AFTER_HELP: &str = "\
Examples:
  kip-sim --seeds 2000
  kip-sim --seeds 500 --api
  kip-sim --seed 42 --trace
  kip-sim --file story.json --keep out

Exit codes: 0 no rule was broken, or every defect was found; 1 otherwise, or it failed and stderr says why; 2 the command line is wrong.";

#[derive(Debug, Parser)]
#[command(
    name = "kip-sim",
    about = "Runs the real driver in simulated worlds in which everything goes wrong",
    after_help = AFTER_HELP,
    max_term_width = 120
)]
struct Options {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value = "2000", conflicts_with = "one")]
    seeds: NonZeroU64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 0, conflicts_with_all = ["one", "mutants"])]
    from: u64,
    /// Only this seed.
    #[arg(long, group = "one", conflicts_with = "mutants")]
    seed: Option<u64>,
    /// Only the story in this file.
    #[arg(long, group = "one", conflicts_with_all = ["api", "mutants"])]
    file: Option<PathBuf>,
    /// Put the kubelet's own watcher, source and store over a simulated API server under the driver.
    #[arg(long, conflicts_with = "mutants")]
    api: bool,
    /// Print everything that happens in the one story.
    #[arg(long, requires = "one")]
    trace: bool,
    /// Threads; default one a core.
    #[arg(long, value_name = "N", conflicts_with = "one")]
    threads: Option<NonZeroUsize>,
    /// Stop after so many broken stories.
    #[arg(long, value_name = "N", default_value = "10", conflicts_with_all = ["one", "mutants"])]
    enough: NonZeroUsize,
    /// Only count which rules are broken in which seeds.
    #[arg(long, conflicts_with_all = ["one", "mutants", "keep"])]
    brief: bool,
    /// Show that deliberate defects are found. Only in a build with `--cfg kip_mutants`.
    #[arg(long)]
    mutants: bool,
    /// Write broken stories, made smaller, into this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with = "mutants")]
    keep: Option<PathBuf>,
}

impl Options {
    fn side(&self) -> Side {
        if self.api { Side::Api } else { Side::Traits }
    }
}

/// Stdout. That nobody reads it any more (`... | head`) is no failure: what was found decides the exit code all the same.
#[derive(Debug, Default)]
struct Out {
    is_unread: bool,
}

impl Out {
    fn line(&mut self, text: impl Display) -> Result<(), String> {
        if self.is_unread {
            return Ok(());
        }
        match writeln!(io::stdout().lock(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_unread = true;
                Ok(())
            }
            written => written.map_err(|error| format!("stdout: {error}")),
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match tell(&options, &mut Out::default()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing can be done when stderr is gone.
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(options: &Options, out: &mut Out) -> Result<bool, String> {
    if let Some(path) = &options.file {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let scenario: Scenario =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        return one(options, &scenario, out);
    }
    if let Some(seed) = options.seed {
        return one(options, &from_seed(seed, options.side()), out);
    }
    let threads = options
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    if options.mutants {
        return mutants(options, threads, out);
    }
    let seeds = options.from..options.from.saturating_add(options.seeds.get());
    let fleet = fleet(seeds, threads, options.enough.get(), |seed| {
        from_seed(seed, options.side())
    });
    if options.brief {
        count(&fleet, out)?;
    } else {
        for failure in &fleet.failures {
            // Making a story smaller takes a while, and is for those who read or keep it.
            if !out.is_unread || options.keep.is_some() {
                let rule = failure
                    .violations
                    .first()
                    .map_or("panic", |violation| violation.rule);
                broken(&failure.scenario, rule, options.keep.as_deref(), out)?;
            }
        }
    }
    figures(&fleet, out)?;
    Ok(fleet.failures.is_empty())
}

fn one(options: &Options, scenario: &Scenario, out: &mut Out) -> Result<bool, String> {
    let outcome = run(scenario);
    if options.trace {
        for line in &outcome.trace {
            out.line(line)?;
        }
    }
    if let Some(first) = outcome.violations.first() {
        if options.keep.is_some() {
            broken(scenario, first.rule, options.keep.as_deref(), out)?;
        } else if !options.trace {
            out.line(story(scenario, &outcome))?;
        }
        for violation in &outcome.violations {
            out.line(format_args!("{}: {}", violation.rule, violation.text))?;
        }
    }
    let violations = usize::from(!outcome.violations.is_empty());
    last_line(1, outcome.launches, violations, out)?;
    Ok(violations == 0)
}

#[cfg(kip_mutants)]
fn mutants(options: &Options, threads: usize, out: &mut Out) -> Result<bool, String> {
    let seeds = options.seeds.get();
    let hunts = kip_testkit::sim::hunt(seeds, threads, |seed| from_seed(seed, options.side()));
    for hunt in &hunts {
        match hunt.found {
            Some((seed, rule)) => out.line(format_args!(
                "found      {:<26} seed {seed:>4}: {rule}",
                hunt.name
            ))?,
            None => out.line(format_args!(
                "NOT FOUND  {:<26} in {} seeds. {}",
                hunt.name, hunt.seeds, hunt.does
            ))?,
        }
    }
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    out.line(format_args!("mutants: {found} of {} found", hunts.len()))?;
    Ok(found == hunts.len())
}

#[cfg(not(kip_mutants))]
fn mutants(_: &Options, _: usize, _: &mut Out) -> Result<bool, String> {
    Err("this build has no deliberate defects: use `cargo xtask sim --mutants`".into())
}

fn count(fleet: &Fleet, out: &mut Out) -> Result<(), String> {
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
        let first = &seeds[..seeds.len().min(12)];
        out.line(format_args!("{:>5} x {rule}: {first:?}", seeds.len()))?;
    }
    Ok(())
}

/// Makes a story that breaks a rule smaller, tells it, and keeps it in the folder, if there is one.
fn broken(scenario: &Scenario, rule: &str, keep: Option<&Path>, out: &mut Out) -> Result<(), String> {
    out.line(format_args!(
        "seed {}: {rule}; looking for what matters ...",
        scenario.seed
    ))?;
    let mut small = minimise(scenario, rule, TRIES);
    let outcome: Outcome = run(&small);
    out.line(story(&small, &outcome))?;
    if let Some(folder) = keep {
        small.about = outcome.violations.first().map_or(String::new(), |violation| {
            format!("{}: {}", violation.rule, violation.text)
        });
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(format!("seed-{}-{}.json", scenario.seed, rule.replace(' ', "-")));
        let text = serde_json::to_string_pretty(&small).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        out.line(format_args!("kept as {}", path.display()))?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(fleet: &Fleet, out: &mut Out) -> Result<(), String> {
    out.line("faults that struck:")?;
    for (what, count) in &fleet.injected {
        out.line(format_args!("  {count:>8}  {what}"))?;
    }
    let minutes = fleet.took.as_secs_f64() / 60.0;
    out.line(format_args!(
        "{} pods, {} instances, {} crashes, {:.1} virtual hours in {:.1} s: {:.0} seeds per minute",
        fleet.pods,
        fleet.instances,
        fleet.crashes,
        fleet.virtual_ms as f64 / 3_600_000.0,
        fleet.took.as_secs_f64(),
        fleet.seeds as f64 / minutes.max(f64::MIN_POSITIVE),
    ))?;
    out.line(format_args!(
        "launch calls answered with no capacity per instance: {:.3}",
        fleet.wasted as f64 / (fleet.instances.max(1)) as f64
    ))?;
    last_line(fleet.seeds, fleet.launches, fleet.failures.len(), out)
}

fn last_line(seeds: u64, launches: u64, violations: usize, out: &mut Out) -> Result<(), String> {
    out.line(format_args!(
        "sim: {seeds} seeds, {launches} launches, {violations} violations"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(line: &str) -> bool {
        Options::try_parse_from(std::iter::once("kip-sim").chain(line.split_whitespace())).is_ok()
    }

    #[test]
    fn arguments_that_would_be_ignored_are_refused() {
        for line in [
            "--seeds 0",
            "--trace",
            "--seed 1 --seeds 2",
            "--seed 1 --from 2",
            "--seed 1 --file story.json",
            "--file story.json --api",
            "--file story.json --seeds 2",
            "--mutants --seed 1",
            "--mutants --file story.json",
            "--mutants --api",
            "--mutants --from 1",
            "--mutants --keep out",
            "--brief --keep out",
        ] {
            assert!(!takes(line), "{line}");
        }
        for line in [
            "",
            "--seeds 2000 --from 100 --api --threads 2 --enough 3 --keep out",
            "--seeds 20 --brief",
            "--seed 42 --api --trace --keep out",
            "--file story.json --trace --keep out",
            "--mutants --seeds 200 --threads 1",
        ] {
            assert!(takes(line), "{line}");
        }
    }
}

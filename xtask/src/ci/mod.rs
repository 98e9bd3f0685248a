//! For one answer to "may this be merged": every check, the cheap ones first, all of them even when one fails.

mod budget;
mod tidy;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) use self::budget::tree as crates_of_core;
use crate::cluster::Kind;
use crate::command::{cmd, run};
use crate::{build, demo, e2e, interrupt, paths, setup, sim, ui};

/// One check of the list.
struct Check {
    name: &'static str,
    run: fn() -> Result<()>,
}

/// The order is the order of cost, and of what compiles what: tests build the programs the end-to-end suites run, and
/// the release build of the demo, which shares nothing with them, comes last.
const CHECKS: &[Check] = &[
    Check {
        name: "tidy",
        run: tidy::check,
    },
    Check {
        name: "format",
        run: format,
    },
    Check {
        name: "dependency budget",
        run: budget::check,
    },
    Check {
        name: "licences, bans and sources",
        run: deny,
    },
    Check {
        name: "clippy",
        run: clippy,
    },
    Check {
        name: "documentation",
        run: documentation,
    },
    Check {
        name: "tests and the end-to-end suite on the in-process API",
        run: test,
    },
    Check {
        name: "the end-to-end suite on EC2's API",
        run: ec2,
    },
    Check {
        name: "the end-to-end suite on the real control plane",
        run: real,
    },
    Check {
        name: "the simulator",
        run: simulate,
    },
    Check {
        name: "the simulator's mutants",
        run: mutants,
    },
    Check {
        name: "the demo",
        run: demo::run,
    },
];

/// Runs every check whose name contains `only` and prints how long each took. Fails when any failed.
pub(crate) fn checks(only: &str) -> Result<()> {
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    let begin = Instant::now();
    let chosen: Vec<&Check> = CHECKS.iter().filter(|check| check.name.contains(only)).collect();
    if chosen.is_empty() {
        bail!(
            "no check is called {only:?}; there are: {}",
            CHECKS.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
        );
    }
    for check in chosen {
        let start = Instant::now();
        let outcome = ui::timed(check.name, check.run);
        interrupt::check()?;
        if let Err(error) = &outcome {
            eprintln!("error: {error:#}");
            failed.push(check.name);
        }
        rows.push(row(check.name, outcome.is_ok(), start.elapsed()));
    }
    ui::section("All checks");
    rows.push(row("in all", failed.is_empty(), begin.elapsed()));
    ui::table(&["CHECK", "OUTCOME", "TIME"], &rows);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn row(name: &str, passed: bool, took: Duration) -> Vec<String> {
    vec![
        name.to_owned(),
        if passed { "ok" } else { "FAILED" }.to_owned(),
        ui::duration(took),
    ]
}

/// What the README calls "every test": unit, property, integration and documentation tests, then the end-to-end suite
/// on the in-process API.
pub(crate) fn test() -> Result<()> {
    let machine = setup::machine()?;
    let mut cargo = cmd("cargo", ["test"]);
    cargo.args(build::WORKSPACE).current_dir(paths::workspace());
    // Tests of the EC2 backend start this one.
    cargo.env("KIP_TEST_MOTO", setup::moto::provide()?);
    // Tests that run real containers take the image from here.
    cargo
        .env("KIP_TEST_IMAGE_ARCHIVE", &machine.busybox)
        .env("KIP_TEST_KUBECTL", &machine.kubectl);
    run(&mut cargo)?;
    e2e::run(Kind::Embedded, &e2e::Options::default())
}

/// On moto, then on the fake EC2 with faults on. What they need was built for the tests.
fn ec2() -> Result<()> {
    let options = e2e::Options {
        cloud: e2e::Choice::Ec2,
        ..e2e::Options::default()
    };
    e2e::run(Kind::Embedded, &options)
}

fn real() -> Result<()> {
    e2e::run(Kind::Real, &e2e::Options::default())
}

/// Two thousand stories at the driver's edge, and some over the whole Kubernetes side.
fn simulate() -> Result<()> {
    sim::run_with(false, &["--seeds".to_owned(), "2000".to_owned()])?;
    sim::run_with(
        false,
        &["--api".to_owned(), "--seeds".to_owned(), "300".to_owned()],
    )
}

fn mutants() -> Result<()> {
    sim::run_with(true, &[])
}

fn format() -> Result<()> {
    run(cmd("cargo", ["fmt", "--all", "--check"]).current_dir(paths::workspace()))
}

fn deny() -> Result<()> {
    let program = setup::tools::cargo_deny()?;
    // Advisories are left out: see deny.toml.
    run(cmd(
        program,
        ["--log-level", "error", "check", "bans", "licenses", "sources"],
    )
    .current_dir(paths::workspace()))
}

/// Each set of features a user may choose. The whole workspace first: the others find their dependencies compiled.
const FEATURE_SETS: [&[&str]; 7] = [
    &["--workspace", "--all-targets", "--all-features"],
    &["-p", "kip-core", "--no-default-features"],
    &["-p", "kip-core"],
    &["-p", "kip-core", "--no-default-features", "--features", "kubelet"],
    &["-p", "kip-core", "--no-default-features", "--features", "cell"],
    &["-p", "kip-bin", "--no-default-features", "--features", "local"],
    &["-p", "kip-bin", "--no-default-features", "--features", "aws"],
];

fn clippy() -> Result<()> {
    for features in FEATURE_SETS {
        let mut cargo = cmd("cargo", ["clippy", "--quiet"]);
        // A library leaves the version of the Kubernetes API to its user: checked alone, it is told one here. With a version feature on,
        // which `kip-bin` and tests have, the variable would be an error.
        if features.contains(&"kubelet") {
            cargo.env("K8S_OPENAPI_ENABLED_VERSION", "1.37");
        }
        run(cargo
            .args(features)
            .args(["--", "-D", "warnings"])
            .current_dir(paths::workspace()))?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let mut cargo = cmd(
        "cargo",
        ["doc", "--quiet", "--no-deps", "--document-private-items"],
    );
    run(cargo
        .args(build::WORKSPACE)
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(paths::workspace()))
}

//! For proving that the whole thing works: one list of named cases against a real control plane or the in-process one.

mod api;
mod cells;
mod client;
mod controller;
mod controllers;
mod leader;
mod manifests;
mod pods;
mod recovery;
mod streams;
mod world;

use std::time::Instant;

use anyhow::{Result, bail};

pub(crate) use self::world::World;
use crate::cluster::Kind;
use crate::leftovers::LocalCloud;
use crate::{interrupt, setup, ui};

/// One thing a user relies on.
#[derive(Debug)]
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

/// Runs the cases and prints those that passed: first the list both control planes share, then what only a real one
/// has. Fails when any case did not pass, or when anything is left behind.
pub(crate) fn run(kind: Kind, options: &Options) -> Result<()> {
    let chosen = |lists: &[&'static [Case]]| -> Vec<&'static Case> {
        let wanted = |case: &&Case| {
            options
                .only
                .as_ref()
                .is_none_or(|only| case.name.contains(only.as_str()))
        };
        lists.iter().flat_map(|list| list.iter()).filter(wanted).collect()
    };
    let common = if options.api_only {
        chosen(&[api::CASES])
    } else {
        chosen(&[
            api::CASES,
            pods::CASES,
            streams::CASES,
            recovery::CASES,
            leader::CASES,
            cells::CASES,
        ])
    };
    let real_only = if options.api_only || kind != Kind::Real {
        Vec::new()
    } else {
        chosen(&[controllers::CASES])
    };
    if common.is_empty() && real_only.is_empty() {
        bail!(
            "no case's name contains {:?}",
            options.only.as_deref().unwrap_or_default()
        );
    }
    let begin = Instant::now();
    let needs_cells = common
        .iter()
        .chain(&real_only)
        .any(|case| !case.name.starts_with("api:"));
    let (mut passed, mut failed) = (Tally::default(), Vec::new());
    if needs_cells {
        let machine = setup::machine()?;
        let mut world = World::start(kind, &machine)?;
        let cloud = LocalCloud::of(world.controller()?.data())?;
        let outcome = perform(&mut world, &common, &real_only, &mut passed, &mut failed);
        world.end(&mut failed);
        drop(world);
        outcome?;
        if let Err(error) = cloud.prove_none_left() {
            ui::failed(&format!("{error:#}"));
            failed.push("nothing is left behind");
        }
    } else {
        let mut world = World::api_only(kind, &setup::kubectl::provide()?)?;
        perform(&mut world, &common, &real_only, &mut passed, &mut failed)?;
    }
    ui::section(&format!(
        "passed on the {kind} control plane in {}",
        ui::duration(begin.elapsed())
    ));
    passed.common.iter().for_each(|name| println!("PASS {name}"));
    if !passed.real_only.is_empty() {
        ui::section("passed besides, where there is a controller-manager and RBAC");
        passed.real_only.iter().for_each(|name| println!("PASS {name}"));
    }
    if !failed.is_empty() {
        bail!("{} cases failed: {}", failed.len(), failed.join("; "));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    common: Vec<&'static str>,
    real_only: Vec<&'static str>,
}

fn perform(
    world: &mut World,
    common: &[&'static Case],
    real_only: &[&'static Case],
    passed: &mut Tally,
    failed: &mut Vec<&'static str>,
) -> Result<()> {
    for (cases, tally) in [(common, &mut passed.common), (real_only, &mut passed.real_only)] {
        for case in cases {
            let begin = Instant::now();
            let outcome = world.case(case);
            interrupt::check()?;
            let took = ui::duration(begin.elapsed());
            match outcome {
                Ok(()) => {
                    println!("PASS {}  ({took})", case.name);
                    tally.push(case.name);
                }
                Err(error) => {
                    ui::failed(&format!("{} ({took}): {error:#}", case.name));
                    failed.push(case.name);
                    world.recover();
                }
            }
        }
    }
    Ok(())
}

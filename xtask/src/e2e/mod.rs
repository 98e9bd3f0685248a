//! For proving that the whole thing works: one list of named cases against a real control plane or the in-process one, on this machine
//! as a cloud; and a choice of them on EC2's API.

mod api;
mod cells;
mod client;
mod cloud;
mod controller;
mod controllers;
mod ec2;
mod leader;
mod manifests;
mod pods;
mod recovery;
mod streams;
mod world;

use std::time::Instant;

use anyhow::{Result, bail};

pub(crate) use self::cloud::{Choice, Cloud};
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
    /// Whose instances the pods run on.
    pub(crate) cloud: Choice,
}

/// Runs the cases and prints those that passed, on one cloud after the other: first the list both control planes share, then what
/// only a real one has. Fails when any case did not pass, or when anything is left behind.
pub(crate) fn run(kind: Kind, options: &Options) -> Result<()> {
    let mut failed = Vec::new();
    let mut played = false;
    for cloud in options.cloud.clouds() {
        let suite = Suite::of(kind, *cloud, options);
        if !suite.is_empty() {
            played = true;
            failed.extend(suite.play(kind, *cloud)?);
        }
    }
    if !played {
        bail!(
            "no case's name contains {:?}",
            options.only.as_deref().unwrap_or_default()
        );
    }
    if !failed.is_empty() {
        bail!("{} cases failed: {}", failed.len(), failed.join("; "));
    }
    Ok(())
}

/// The cases of one run.
#[derive(Debug)]
struct Suite {
    common: Vec<&'static Case>,
    real_only: Vec<&'static Case>,
}

impl Suite {
    fn of(kind: Kind, cloud: Cloud, options: &Options) -> Self {
        let chosen = |lists: &[&'static [Case]]| -> Vec<&'static Case> {
            let wanted = |case: &&Case| {
                options
                    .only
                    .as_ref()
                    .is_none_or(|only| case.name.contains(only.as_str()))
            };
            lists.iter().flat_map(|list| list.iter()).filter(wanted).collect()
        };
        if options.api_only {
            return Self {
                common: chosen(&[api::CASES]),
                real_only: Vec::new(),
            };
        }
        if cloud != Cloud::Local {
            let mut common = chosen(&[ec2::CASES]);
            let others = chosen(&[pods::CASES, streams::CASES, recovery::CASES]);
            common.extend(
                others
                    .into_iter()
                    .filter(|case| ec2::FROM_OTHERS.contains(&case.name)),
            );
            return Self {
                common,
                real_only: Vec::new(),
            };
        }
        Self {
            common: chosen(&[
                api::CASES,
                pods::CASES,
                streams::CASES,
                recovery::CASES,
                leader::CASES,
                cells::CASES,
            ]),
            real_only: if kind == Kind::Real {
                chosen(&[controllers::CASES])
            } else {
                Vec::new()
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.common.is_empty() && self.real_only.is_empty()
    }

    /// Runs them and tells which failed.
    fn play(&self, kind: Kind, cloud: Cloud) -> Result<Vec<&'static str>> {
        let begin = Instant::now();
        let mut all = self.common.iter().chain(&self.real_only);
        let needs_cells = all.any(|case| !case.name.starts_with("api:"));
        let (mut passed, mut failed) = (Tally::default(), Vec::new());
        let mut on = String::new();
        if needs_cells {
            on = format!(", on {cloud}");
            let machine = setup::machine()?;
            let mut world = World::start(kind, cloud, &machine)?;
            let cells = LocalCloud::of(world.controller()?.data())?;
            let outcome = perform(&mut world, self, &mut passed, &mut failed);
            world.end(&mut failed);
            drop(world);
            outcome?;
            if let Err(error) = cells.prove_none_left() {
                ui::failed(&format!("{error:#}"));
                failed.push("nothing is left behind");
            }
        } else {
            let mut world = World::api_only(kind, &setup::kubectl::provide()?)?;
            perform(&mut world, self, &mut passed, &mut failed)?;
        }
        ui::section(&format!(
            "passed on the {kind} control plane{on} in {}",
            ui::duration(begin.elapsed())
        ));
        passed.common.iter().for_each(|name| println!("PASS {name}"));
        if !passed.real_only.is_empty() {
            ui::section("passed besides, where there is a controller-manager and RBAC");
            passed.real_only.iter().for_each(|name| println!("PASS {name}"));
        }
        Ok(failed)
    }
}

#[derive(Debug, Default)]
struct Tally {
    common: Vec<&'static str>,
    real_only: Vec<&'static str>,
}

fn perform(
    world: &mut World,
    suite: &Suite,
    passed: &mut Tally,
    failed: &mut Vec<&'static str>,
) -> Result<()> {
    for (cases, tally) in [
        (&suite.common, &mut passed.common),
        (&suite.real_only, &mut passed.real_only),
    ] {
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

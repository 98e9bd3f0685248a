//! For the proof on real processes: controller, agents, containerds and whole cells are killed at random while real pods
//! come and go; then nothing may be left, and no pod may be lost or have run twice.

mod chance;
mod pods;
mod storm;
mod story;
mod witness;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use self::storm::Storm;
use self::witness::Journal;
use crate::cluster::Kind;
use crate::e2e::{Cloud, World};
use crate::leftovers::LocalCloud;
use crate::{interrupt, paths, setup, ui};

/// How long the process table may go without a look: two containers of one pod overlap for longer when something is wrong.
const BLIND: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// How long things are broken for.
    pub(crate) minutes: u64,
    /// What is drawn. Default: the time.
    pub(crate) seed: Option<u64>,
}

/// Runs a soak and prints how it ended. Fails, with the story of each pod it went wrong for, when anything did not hold.
pub(crate) fn run(options: Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(seed_of_now);
    let Options { minutes, .. } = options;
    let machine = setup::machine()?;
    let mut world = World::start(Kind::Embedded, Cloud::Local, &machine)?;
    let cloud = LocalCloud::of(world.controller()?.data())?;
    ui::section(&format!(
        "Soak: {minutes} minutes, seed {seed} (again: cargo xtask soak --minutes {minutes} --seed {seed})"
    ));
    let outcome = storm(&mut world, &cloud, minutes, seed);
    // Cleared whatever happened on it.
    interrupt::clear();
    let mut failed = Vec::new();
    world.end(&mut failed);
    let left = cloud.still_left();
    cloud.clear();
    let kept = keep(&world, seed);
    let end = outcome.and_then(|end| Ok((end, left?)));
    drop(world);
    let (end, mut left) = end.with_context(|| format!("seed {seed}; {kept}"))?;
    left.extend(end.leaked.iter().cloned());
    for line in &end.unseen {
        ui::failed(line);
    }
    left.extend(failed.iter().map(|what| format!("does not hold: {what}")));
    report(&end, &left, minutes);
    let line = format!(
        "soak: {minutes} minutes, {} pods, {}, {} leaked, {} lost, {} doubled",
        end.pods,
        end.kills,
        left.len(),
        end.lost.len(),
        end.doubled.len()
    );
    let all_well = left.is_empty() && end.lost.is_empty() && end.doubled.is_empty();
    if all_well && end.unseen.is_empty() {
        println!("{line}");
        return Ok(());
    }
    bail!("{line}\nseed {seed}; {kept}")
}

/// What a storm left.
#[derive(Debug)]
struct End {
    pods: usize,
    kills: storm::Kills,
    lost: Vec<String>,
    doubled: Vec<String>,
    /// What was there that had no reason to be any more, before the end.
    leaked: Vec<String>,
    /// The stories of the pods it went wrong for.
    stories: Vec<String>,
    /// What could have gone wrong without being seen.
    unseen: Vec<String>,
    journal: Journal,
}

fn storm(world: &mut World, cloud: &LocalCloud, minutes: u64, seed: u64) -> Result<End> {
    let log = world.folder().join("soak.log");
    let mut storm = Storm::new(world, seed)?;
    let outcome = storm
        .rage(Duration::from_secs(60 * minutes))
        .and_then(|()| storm.heal());
    let lines: String = storm
        .log
        .iter()
        .map(|(at, text)| format!("{:8.2} s  {text}\n", at.as_secs_f64()))
        .collect();
    fs::write(&log, lines).with_context(|| format!("cannot write {}", log.display()))?;
    let journal = storm.journal();
    let mut end = End {
        pods: storm.stories.len(),
        kills: storm.kills,
        lost: Vec::new(),
        doubled: Vec::new(),
        leaked: Vec::new(),
        stories: Vec::new(),
        unseen: Vec::new(),
        journal,
    };
    for story in &storm.stories {
        let verdict = story.verdict(&end.journal);
        if verdict.lost.is_empty() && verdict.doubled.is_empty() {
            continue;
        }
        let wrong = [&verdict.lost[..], &verdict.doubled[..]].concat().join("; ");
        end.stories.push(format!(
            "{} ({}): {wrong}\n{}",
            story.name,
            story.uid,
            story.lines(&end.journal).join("\n")
        ));
        if !verdict.lost.is_empty() {
            end.lost.push(story.name.clone());
        }
        if !verdict.doubled.is_empty() {
            end.doubled.push(story.name.clone());
        }
    }
    for story in &end.stories {
        ui::failed(story);
    }
    end.leaked.extend(outcome?.filter(|_| end.stories.is_empty()));
    // A search that finds nothing where there is something would find nothing in the end, and a witness that was not looking saw nothing.
    let running = cloud.processes()?.len();
    ui::step(&format!("{running} processes in cells before the end"));
    let lives = storm.stories.iter().filter(|story| !story.is_gone()).count();
    if running == 0 && lives > 0 {
        end.unseen.push(format!(
            "no process was found in any cell, though {lives} pods are there: what is left could not be found either"
        ));
    }
    if end.journal.largest_gap > BLIND {
        end.unseen.push(format!(
            "nobody looked at the processes for {}: a pod that ran twice meanwhile was not seen",
            ui::duration(end.journal.largest_gap)
        ));
    }
    Ok(end)
}

fn report(end: &End, left: &[String], minutes: u64) {
    for line in left {
        ui::failed(&format!("left: {line}"));
    }
    let storm::Kills {
        controllers,
        agents,
        containerds,
        cells,
    } = end.kills;
    let runs: usize = end.journal.runs.values().map(Vec::len).sum();
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    ui::table(
        &["SOAK", &format!("{minutes} minutes")],
        &[
            row("pods", end.pods.to_string()),
            row("containers seen to run", runs.to_string()),
            row("controllers killed", controllers.to_string()),
            row("agents killed", agents.to_string()),
            row("containerds killed", containerds.to_string()),
            row("cells killed", cells.to_string()),
            row("looks at the process table", end.journal.looks.to_string()),
            row(
                "longest time without a look",
                ui::duration(end.journal.largest_gap),
            ),
        ],
    );
}

/// Keeps the logs of a run where the next one does not remove them. Says where.
fn keep(world: &World, seed: u64) -> String {
    let folder = paths::target().join("soak").join(seed.to_string());
    let copied = fs::create_dir_all(&folder).and_then(|()| {
        for name in ["soak.log", "kip.log", "kip-cluster.log"] {
            let from = world.folder().join(name);
            if from.exists() {
                fs::copy(from, folder.join(name))?;
            }
        }
        Ok(())
    });
    match copied {
        Ok(()) => format!("the logs are in {}", folder.display()),
        Err(error) => format!(
            "the logs could not be kept in {}: {error}",
            Path::new(&folder).display()
        ),
    }
}

fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

//! For bad weather: pods come and go while what runs them is killed, one blow after another, as a seed has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::chance::Chance;
use super::pods::Kind;
use super::story::{Deletion, Story};
use super::witness::{Journal, Member, Witness, members};
use crate::e2e::World;
use crate::leftovers::LocalCloud;
use crate::{interrupt, ui};

/// Pods that want a cell at the same time, at most.
const CROWD: usize = 7;
/// Cells a pod may lose: after five in a row that never ran it, Kip rightly gives it up.
const STRIKES: usize = 2;
/// How long everything may take to be as it must once the faults have stopped. What takes longest: a pod that was deleted
/// by force while nobody watched leaves a cell that only sweeps find, half a minute apart, and twice after a grace.
const HEALING: Duration = Duration::from_secs(240);

/// What was killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kills {
    pub(super) controllers: usize,
    pub(super) agents: usize,
    pub(super) containerds: usize,
    pub(super) cells: usize,
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            controllers,
            agents,
            containerds,
            cells,
        } = self;
        let all = controllers + agents + containerds + cells;
        write!(
            f,
            "{all} kills (controller {controllers}, agent {agents}, containerd {containerds}, cells {cells})"
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum Blow {
    Create,
    Delete { forced: bool },
    Controller,
    Program(&'static str),
    Cell,
}

/// The pods, what was done to them, and what they stand on.
#[derive(Debug)]
pub(super) struct Storm<'a> {
    world: &'a mut World,
    cloud: LocalCloud,
    namespace: String,
    chance: Chance,
    pub(super) begin: Instant,
    pub(super) witness: Witness,
    pub(super) stories: Vec<Story>,
    pub(super) kills: Kills,
    /// When the controller, which was killed, is started again.
    controller_due: Option<Duration>,
    /// Everything that was done, in order.
    pub(super) log: Vec<(Duration, String)>,
}

impl<'a> Storm<'a> {
    pub(super) fn new(world: &'a mut World, seed: u64) -> Result<Self> {
        let cloud = LocalCloud::of(world.controller()?.data())?;
        let namespace = world.namespace()?;
        let begin = Instant::now();
        Ok(Self {
            witness: Witness::start(&cloud.group(), begin)?,
            world,
            cloud,
            namespace,
            chance: Chance::new(seed),
            begin,
            stories: Vec::new(),
            kills: Kills::default(),
            controller_due: None,
            log: Vec::new(),
        })
    }

    /// Blows for so long.
    pub(super) fn rage(&mut self, length: Duration) -> Result<()> {
        let mut next = Duration::ZERO;
        let mut minute = Duration::from_secs(60);
        while self.begin.elapsed() < length {
            self.attend()?;
            if self.begin.elapsed() >= next {
                self.blow()?;
                next = self.begin.elapsed() + self.chance.millis(100, 1600);
            }
            if self.begin.elapsed() >= minute {
                ui::step(&format!("{}: {}", ui::duration(minute), self.summary()));
                minute += Duration::from_secs(60);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Stops breaking things and waits until everything is as it must be. Returns what never becomes so.
    pub(super) fn heal(&mut self) -> Result<Option<String>> {
        if self.controller_due.take().is_some() {
            self.world.controller()?.start()?;
        }
        let start = Instant::now();
        loop {
            self.attend()?;
            let Some(unsettled) = self.unsettled() else {
                ui::ok(&format!(
                    "everything is as it must be {} after the last blow",
                    ui::duration(start.elapsed())
                ));
                return Ok(None);
            };
            if start.elapsed() > HEALING {
                ui::failed(&format!("{HEALING:?} after the last blow, {unsettled}"));
                return Ok(Some(unsettled));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What is not as it must be once the faults have stopped, the first of it.
    fn unsettled(&mut self) -> Option<String> {
        let journal = self.witness.journal();
        let members = members(&self.cloud.group());
        for story in &self.stories {
            if let Some(awaited) = story.awaited(&journal) {
                return Some(format!("pod {} {awaited}", story.name));
            }
            // What the API says must be true.
            let runs = members
                .iter()
                .filter(|member| member.pod.as_ref() == Some(&story.uid))
                .count();
            if story.kind == Kind::Web && story.deleted.is_none() && runs != 1 {
                return Some(format!(
                    "pod {} is ready, and {runs} processes of it run",
                    story.name
                ));
            }
        }
        let cells: BTreeSet<String> = members.into_iter().map(|member| member.cell).collect();
        cells.into_iter().find_map(|cell| {
            let needed = self
                .story_of(&cell)
                .is_some_and(|story| story.deleted.is_none() && !story.has_ended());
            (!needed).then(|| format!("cell {cell} runs for no pod that needs it"))
        })
    }

    pub(super) fn journal(&self) -> Journal {
        self.witness.journal()
    }

    /// The pods there are, in a few words.
    pub(super) fn summary(&self) -> String {
        let count = |wanted: fn(&Story) -> bool| self.stories.iter().filter(|story| wanted(story)).count();
        format!(
            "{} pods ({} running, {} ended, {} deleted), {}",
            self.stories.len(),
            count(|story| story.deleted.is_none() && story.last.phase == "Running"),
            count(|story| story.deleted.is_none() && story.has_ended()),
            count(|story| story.deleted.is_some()),
            self.kills
        )
    }

    /// Hears of every pod, and keeps up what is to be up.
    fn attend(&mut self) -> Result<()> {
        interrupt::check()?;
        self.world.cluster.check_alive()?;
        match self.controller_due {
            None => self
                .world
                .controller()?
                .check_alive()
                .context("the controller ended though nobody killed it")?,
            Some(due) if self.begin.elapsed() >= due => {
                self.controller_due = None;
                self.world.controller()?.start()?;
                self.tell("the controller is started".into());
            }
            Some(_) => {}
        }
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let list = self.world.api.get(&path)?.ok()?;
        let at = self.begin.elapsed();
        let empty = Vec::new();
        let items = list.at("/items").as_array().unwrap_or(&empty);
        let by_uid: BTreeMap<&str, &Value> = items
            .iter()
            .filter_map(|pod| Some((pod["metadata"]["uid"].as_str()?, pod)))
            .collect();
        for story in &mut self.stories {
            story.hear(at, by_uid.get(story.uid.as_str()).copied());
        }
        Ok(())
    }

    fn tell(&mut self, text: String) {
        self.log.push((self.begin.elapsed(), text));
    }

    fn blow(&mut self) -> Result<()> {
        let wanting = self
            .stories
            .iter()
            .filter(|story| story.deleted.is_none() && !story.has_ended() && !story.is_gone())
            .count();
        let up = usize::from(self.controller_due.is_none());
        let blows = [
            (if wanting < CROWD { 10 } else { 0 }, Blow::Create),
            (4, Blow::Delete { forced: false }),
            (1, Blow::Delete { forced: true }),
            (2 * up, Blow::Controller),
            (3, Blow::Program("kip-cell")),
            (3, Blow::Program("containerd")),
            (1, Blow::Cell),
        ];
        match self.chance.weighted(&blows).unwrap_or(Blow::Create) {
            Blow::Create => self.create(),
            Blow::Delete { forced } => self.delete(forced),
            Blow::Controller => self.kill_controller(),
            Blow::Program(program) => self.kill_program(program),
            Blow::Cell => self.kill_cell(),
        }
    }

    fn create(&mut self) -> Result<()> {
        let kind = Kind::draw(&mut self.chance);
        let name = format!("{}-{}", kind.word(), self.stories.len());
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let made = self.world.api.post(&path, &kind.manifest(&name))?.ok()?;
        let uid = made
            .at("/metadata/uid")
            .as_str()
            .context("a pod without a UID")?
            .to_owned();
        self.tell(format!("pod {name} ({uid}) is created"));
        self.stories
            .push(Story::new(self.begin.elapsed(), &name, &uid, kind));
        Ok(())
    }

    fn delete(&mut self, forced: bool) -> Result<()> {
        let there: Vec<usize> = (0..self.stories.len())
            .filter(|&index| self.stories[index].deleted.is_none() && !self.stories[index].is_gone())
            .collect();
        let Some(&index) = self.chance.one_of(&there) else {
            return Ok(());
        };
        let name = self.stories[index].name.clone();
        let path = format!("/api/v1/namespaces/{}/pods/{name}", self.namespace);
        // Before the call: the pod may be gone by the time it answers.
        let at = self.begin.elapsed();
        self.stories[index].deleted = Some(Deletion { at, forced });
        let how = if forced {
            "by force"
        } else {
            "with its grace period"
        };
        self.stories[index].note(at, format!("deleted {how}"));
        self.tell(format!("pod {name} is deleted {how}"));
        let answer = if forced {
            self.world
                .api
                .delete_with(&path, &json!({"gracePeriodSeconds": 0}))?
        } else {
            self.world.api.delete(&path)?
        };
        answer.ok().map(|_| ())
    }

    fn kill_controller(&mut self) -> Result<()> {
        self.world.controller()?.kill()?;
        self.kills.controllers += 1;
        let away = self.chance.millis(0, 6000);
        self.controller_due = Some(self.begin.elapsed() + away);
        self.tell(format!("the controller is killed for {}", ui::duration(away)));
        let at = self.begin.elapsed();
        for story in self.stories.iter_mut().filter(|story| !story.is_gone()) {
            story.note(
                at,
                format!("(the controller is killed for {})", ui::duration(away)),
            );
        }
        Ok(())
    }

    fn kill_program(&mut self, program: &str) -> Result<()> {
        let victims: Vec<Member> = members(&self.cloud.group())
            .into_iter()
            .filter(|member| member.program == program)
            .collect();
        let Some(victim) = self.chance.one_of(&victims) else {
            return Ok(());
        };
        end(victim)?;
        if program == "containerd" {
            self.kills.containerds += 1;
        } else {
            self.kills.agents += 1;
        }
        self.struck(
            &victim.cell,
            &format!("the {program} of cell {} is killed", victim.cell),
        );
        Ok(())
    }

    fn kill_cell(&mut self) -> Result<()> {
        let all = members(&self.cloud.group());
        let names: BTreeSet<String> = all.iter().map(|member| member.cell.clone()).collect();
        let mut cells = Vec::new();
        for cell in names {
            if self.story_of(&cell).is_some_and(|story| story.strikes < STRIKES) {
                cells.push(cell);
            }
        }
        let Some(cell) = self.chance.one_of(&cells).cloned() else {
            return Ok(());
        };
        // Counted before: what follows from it may be seen at once.
        if let Some(story) = self.story_of(&cell) {
            story.strikes += 1;
        }
        all.iter()
            .filter(|member| member.cell == cell)
            .try_for_each(end)?;
        self.kills.cells += 1;
        self.struck(&cell, &format!("cell {cell} is killed, all of it"));
        Ok(())
    }

    /// The pod an instance was launched for.
    fn story_of(&mut self, cell: &str) -> Option<&mut Story> {
        let uid = self.cloud.pod_of(cell)?;
        self.stories.iter_mut().find(|story| story.uid == uid)
    }

    fn struck(&mut self, cell: &str, text: &str) {
        let at = self.begin.elapsed();
        if let Some(story) = self.story_of(cell) {
            story.note(at, text);
        }
        self.tell(text.to_owned());
    }
}

/// SIGKILL. That it has ended already is as good.
fn end(member: &Member) -> Result<()> {
    match kill(Pid::from_raw(member.id.pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot kill {}", member.program)),
    }
}

//! Runs one story from its first moment to the last check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kip_core::driver::{DriverConfig, Kip, PodSource};
use kip_core::model::PodPhase;
use kip_core::plan::Policy;
use kip_core::provider::tags;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::api::SimApi;
use super::judge::{Judge, Violation};
use super::pods::{self, Audience, SimSource};
use super::port::{Port, PortClock};
use super::provider::SimCloud;
use super::rng::mix;
use super::runtime::SimHosts;
use super::scenario::{Fault, Foreign, Scenario, Side};
use super::store::SimStore;
use super::world::World;

/// How long the driver has, once faults stopped, to bring every pod where it belongs.
const SETTLE_MS: u64 = 45 * 60_000;
/// How long it then has to leave nothing behind.
const CLEAN_MS: u64 = 30 * 60_000;
/// How often the runner looks.
const LOOK_MS: u64 = 2_000;
/// How long a graceful shutdown may take: longer than the driver gives itself.
const SHUTDOWN: Duration = Duration::from_secs(120);

/// What became of one story.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What must not happen, and did. Empty is well.
    pub violations: Vec<Violation>,
    /// Everything that happened, line by line.
    pub trace: Vec<String>,
    /// Launch calls that reached the cloud.
    pub launches: u64,
    /// Of these, those answered that there is no capacity.
    pub wasted: u64,
    /// Instances made.
    pub instances: u64,
    /// Pods.
    pub pods: u64,
    /// Controllers that crashed.
    pub crashes: u64,
    /// Faults that struck, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// Virtual time from start to end.
    pub virtual_ms: u64,
}

/// Runs one story. The outcome is a pure function of the scenario: equal scenarios have equal traces, byte by byte.
///
/// # Panics
/// When no tokio runtime can be made.
pub fn run(scenario: &Scenario) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be made");
    runtime.block_on(async {
        let mut story = Story::new(Arc::new(scenario.clone()));
        story.tell().await;
        story.end()
    })
}

/// One thing that happens at its time whatever the controller does.
#[derive(Clone, Debug)]
enum Beat {
    Create(usize),
    Delete(usize),
    Force(usize),
    Crash { moments: u32, down_ms: u64 },
    Shutdown { down_ms: u64 },
    Cut { cut_ms: u64, overlap_ms: u64 },
    Reconnect { life: u32 },
    Retire { life: u32 },
    Start,
    Jump { by_ms: i64 },
    Plant(Foreign),
}

#[derive(Debug)]
struct Controller {
    port: Arc<Port>,
    task: JoinHandle<()>,
    shutdown: Option<oneshot::Sender<()>>,
}

struct Story {
    world: Arc<World>,
    audience: Arc<Audience>,
    /// What stands in for Kubernetes, where it is more than the audience.
    api: Option<SimApi>,
    beats: BTreeMap<(u64, usize), Beat>,
    order: usize,
    leader: Option<Controller>,
    /// Controllers that were cut off and are not gone yet.
    old: Vec<Controller>,
    /// For how long the leader is away after the crash it is armed for.
    down_ms: u64,
    lives: u32,
    crashes: u64,
}

impl Story {
    fn new(scenario: Arc<Scenario>) -> Self {
        let world = World::new(Arc::clone(&scenario));
        world.lock().judge = Judge::new(&scenario);
        let mut story = Self {
            world,
            audience: Arc::default(),
            api: None,
            beats: BTreeMap::new(),
            order: 0,
            leader: None,
            old: Vec::new(),
            down_ms: 0,
            lives: 0,
            crashes: 0,
        };
        for (n, pod) in scenario.pods.iter().enumerate() {
            story.plan(pod.create_ms, Beat::Create(n));
            if let Some((at, _)) = pod.delete {
                story.plan(at, Beat::Delete(n));
            }
            if let Some(at) = pod.force_ms {
                story.plan(at, Beat::Force(n));
            }
        }
        for fault in &scenario.faults {
            match *fault {
                Fault::Crash {
                    at_ms,
                    moments,
                    down_ms,
                } => story.plan(at_ms, Beat::Crash { moments, down_ms }),
                Fault::Shutdown { at_ms, down_ms } => story.plan(at_ms, Beat::Shutdown { down_ms }),
                Fault::SplitBrain {
                    at_ms,
                    cut_ms,
                    overlap_ms,
                } => story.plan(at_ms, Beat::Cut { cut_ms, overlap_ms }),
                Fault::ClockJump { at_ms, by_ms } => story.plan(at_ms, Beat::Jump { by_ms }),
                Fault::Plant { at_ms, kind } => story.plan(at_ms, Beat::Plant(kind)),
                Fault::Call { .. }
                | Fault::Watch { .. }
                | Fault::Outage { .. }
                | Fault::Dry { .. }
                | Fault::Instance { .. } => {}
            }
        }
        story
    }

    fn plan(&mut self, at_ms: u64, beat: Beat) {
        self.order += 1;
        self.beats.insert((at_ms, self.order), beat);
    }

    async fn tell(&mut self) {
        if self.world.scenario.side == Side::Api {
            self.api = Some(SimApi::new(&self.world).await);
        }
        self.start();
        let last_pod = self
            .world
            .scenario
            .pods
            .iter()
            .map(|pod| pod.create_ms)
            .max()
            .unwrap_or(0);
        let horizon = self.world.scenario.world.horizon_ms.max(last_pod + 1);
        if !self.live_until(horizon, |_| false).await && self.is_bad() {
            return;
        }
        self.calm().await;
        let settled = self
            .live_until(self.world.ms() + SETTLE_MS, Self::is_settled)
            .await;
        if self.is_bad() {
            return;
        }
        if !settled {
            for (name, why) in self.unsettled() {
                let text = format!("{} minutes after faults stopped, {why}", SETTLE_MS / 60_000);
                self.violate("stuck", vec![name], text);
            }
            return;
        }
        self.judge_ends();
        if self.world.scenario.faults.is_empty() {
            self.judge_ordinary_life();
        }
        self.world.note("everything is deleted");
        let names: Vec<String> = self
            .world
            .scenario
            .pods
            .iter()
            .map(|pod| pod.name.clone())
            .collect();
        for name in names {
            self.delete(&name, 30);
        }
        let clean = self
            .live_until(self.world.ms() + CLEAN_MS, |story| story.left().is_empty())
            .await;
        if !clean && !self.is_bad() {
            for (name, what) in self.left() {
                let text = format!(
                    "{} minutes after everything was deleted, {what}",
                    CLEAN_MS / 60_000
                );
                self.violate("left over", vec![name], text);
            }
        }
    }

    fn end(mut self) -> Outcome {
        let controllers: Vec<Controller> = self.leader.take().into_iter().chain(self.old.drain(..)).collect();
        for controller in controllers {
            controller.port.die();
            controller.task.abort();
        }
        let mut state = self.world.lock();
        Outcome {
            violations: std::mem::take(&mut state.judge.violations),
            trace: std::mem::take(&mut state.trace),
            launches: state.cloud.launches,
            wasted: state.cloud.wasted,
            instances: state.judge.made.values().map(|made| u64::from(*made)).sum(),
            pods: self.world.scenario.pods.len() as u64,
            crashes: self.crashes,
            injected: state.injected().clone(),
            virtual_ms: self.world.ms(),
        }
    }

    fn is_bad(&self) -> bool {
        !self.world.lock().judge.violations.is_empty()
    }

    fn violate(&self, rule: &'static str, about: Vec<String>, text: String) {
        let ms = self.world.ms();
        self.world.lock().violate(rule, ms, about, text);
    }

    /// Lives on until a time, or until `is_done`; answers whether it was done. Ends at once when a rule was broken.
    async fn live_until(&mut self, until: u64, is_done: impl Fn(&Self) -> bool) -> bool {
        loop {
            if self.is_bad() {
                return false;
            }
            if is_done(self) {
                return true;
            }
            let ms = self.world.ms();
            if ms >= until {
                return false;
            }
            while let Some(entry) = self.beats.first_entry()
                && entry.key().0 <= ms
            {
                let beat = entry.remove();
                self.perform(beat).await;
            }
            self.audience.show();
            let next = self.beats.keys().next().map_or(u64::MAX, |(at, _)| *at);
            let wake = next.min(until).min(ms + LOOK_MS);
            let tripped = match &self.leader {
                Some(leader) => {
                    let port = Arc::clone(&leader.port);
                    tokio::select! {
                        biased;
                        () = port.tripped.notified() => true,
                        () = self.world.sleep_until(wake) => false,
                    }
                }
                None => {
                    self.world.sleep_until(wake).await;
                    false
                }
            };
            if tripped {
                self.crash().await;
            }
        }
    }

    async fn perform(&mut self, beat: Beat) {
        let scenario = Arc::clone(&self.world.scenario);
        match beat {
            Beat::Create(n) => match &self.api {
                Some(api) => api.create(&scenario.pods[n]),
                None => pods::create(&self.world, &self.audience, &scenario.pods[n]),
            },
            Beat::Delete(n) => {
                let grace = scenario.pods[n].delete.map_or(30, |(_, grace)| grace);
                self.delete(&scenario.pods[n].name, grace);
            }
            Beat::Force(n) => match &self.api {
                Some(api) => api.force(&scenario.pods[n].name),
                None => pods::remove(&self.world, &self.audience, &scenario.pods[n].name),
            },
            Beat::Crash { moments, down_ms } => {
                if let Some(leader) = &self.leader {
                    leader.port.arm(moments);
                    self.down_ms = down_ms;
                }
            }
            Beat::Shutdown { down_ms } => self.shut_down(down_ms).await,
            Beat::Cut { cut_ms, overlap_ms } => {
                let Some(leader) = self.leader.take() else { return };
                self.world.lock().inject("split brain");
                self.world
                    .note(&format!("{} is cut off; another takes over", leader.port.name));
                leader.port.disarm();
                leader.port.cut(true);
                let (ms, life) = (self.world.ms(), leader.port.life);
                self.plan(ms + cut_ms, Beat::Reconnect { life });
                self.plan(ms + cut_ms + overlap_ms, Beat::Retire { life });
                self.old.push(leader);
                self.start();
            }
            Beat::Reconnect { life } => {
                if let Some(old) = self.old.iter().find(|old| old.port.life == life) {
                    self.world
                        .note(&format!("{} wakes up and acts on", old.port.name));
                    old.port.cut(false);
                    self.audience.catch_up();
                }
            }
            Beat::Retire { life } => {
                if let Some(at) = self.old.iter().position(|old| old.port.life == life) {
                    let old = self.old.remove(at);
                    self.world.note(&format!("{} is ended", old.port.name));
                    self.destroy(old).await;
                }
            }
            Beat::Start => {
                if self.leader.is_none() {
                    self.start();
                }
            }
            Beat::Jump { by_ms } => {
                if let Some(leader) = &self.leader {
                    leader.port.jump(by_ms);
                    self.world.lock().inject("clock jump");
                    self.world
                        .note(&format!("the clock of {} jumps by {by_ms} ms", leader.port.name));
                }
            }
            Beat::Plant(kind) => {
                let at = self.world.at(0);
                self.world.lock().plant(kind, at);
                self.world
                    .note(&format!("cloud: an instance that is not ours appears ({kind:?})"));
            }
        }
    }

    fn delete(&self, name: &str, grace_s: u32) {
        match &self.api {
            Some(api) => api.delete(name, grace_s),
            None => pods::delete(&self.world, &self.audience, name, grace_s),
        }
    }

    fn start(&mut self) {
        self.lives += 1;
        // Clocks differ by seconds, as they do.
        let skew = i64::from(self.lives % 5) * 700 - 1_400;
        let port = Port::new(Arc::clone(&self.world), self.lives, skew);
        self.world.note(&format!("{} starts", port.name));
        let mut config = DriverConfig::default();
        let grace = Duration::from_millis(self.world.scenario.world.list_lag_ms) + Duration::from_secs(30);
        config.policy = Policy::default().with_grace(grace);
        let builder = Kip::builder(Arc::new(SimCloud::new(Arc::clone(&port))))
            .identity(crate::samples::cluster(), crate::samples::node())
            .runtime(Arc::new(SimHosts {
                port: Arc::clone(&port),
            }))
            .clock(Arc::new(PortClock(Arc::clone(&port))))
            .config(config);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let task = match &self.api {
            Some(api) => api.start(&port, builder, stopped),
            None => {
                let source = SimSource::new(Arc::clone(&port), Arc::clone(&self.audience));
                let store = SimStore {
                    port: Arc::clone(&port),
                };
                let driver = builder
                    .source(Arc::clone(&source) as Arc<dyn PodSource>)
                    .store(Arc::new(store))
                    .build()
                    .expect("everything the builder needs is set above");
                let handle = driver.handle();
                let task = tokio::spawn(driver.run(async move {
                    // A dropped sender is a shutdown as well.
                    let _ = stopped.await;
                }));
                // The first list of pods takes its time.
                let (audience, port) = (Arc::clone(&self.audience), Arc::clone(&port));
                let wait = mix(self.world.scenario.seed ^ u64::from(port.life)) % 5_000;
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    port.link().await;
                    audience.join(source, handle);
                });
                task
            }
        };
        self.leader = Some(Controller {
            port,
            task,
            shutdown: Some(shutdown),
        });
    }

    async fn crash(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        self.crashes += 1;
        self.world.lock().inject("crash");
        self.world.note(&format!("{} crashes", leader.port.name));
        self.destroy(leader).await;
        let ms = self.world.ms();
        self.plan(ms + self.down_ms, Beat::Start);
    }

    async fn destroy(&self, controller: Controller) {
        controller.port.die();
        self.audience.leave(controller.port.life);
        controller.task.abort();
        // Cancelled, which is what was asked for.
        if let Err(error) = controller.task.await
            && error.is_panic()
        {
            self.violate(
                "panic",
                Vec::new(),
                format!("{} panicked: {error}", controller.port.name),
            );
        }
    }

    async fn shut_down(&mut self, down_ms: u64) {
        let Some(mut leader) = self.leader.take() else {
            return;
        };
        self.world.lock().inject("shutdown");
        self.world.note(&format!("{} is shut down", leader.port.name));
        leader.port.disarm();
        self.audience.leave(leader.port.life);
        if let Some(shutdown) = leader.shutdown.take() {
            let _ = shutdown.send(());
        }
        if tokio::time::timeout(SHUTDOWN, &mut leader.task).await.is_err() {
            let text = format!(
                "{} has not ended {} s after it was asked to",
                leader.port.name,
                SHUTDOWN.as_secs()
            );
            self.violate("does not shut down", Vec::new(), text);
        }
        self.destroy_quietly(leader);
        let ms = self.world.ms();
        self.plan(ms + down_ms, Beat::Start);
    }

    fn destroy_quietly(&self, controller: Controller) {
        controller.port.die();
        controller.task.abort();
    }

    /// Faults stop: one controller, nothing out of order, capacity for everybody.
    async fn calm(&mut self) {
        for old in std::mem::take(&mut self.old) {
            self.destroy(old).await;
        }
        self.beats
            .retain(|_, beat| matches!(beat, Beat::Delete(_) | Beat::Force(_) | Beat::Create(_)));
        if let Some(leader) = &self.leader {
            leader.port.disarm();
        }
        self.world.lock().is_calm = true;
        self.world.note("faults stop");
        self.world.changed.notify_waiters();
        let is_dead = self.leader.as_ref().is_none_or(|leader| leader.port.is_dead());
        if is_dead {
            if let Some(leader) = self.leader.take() {
                self.destroy(leader).await;
            }
            self.start();
        }
    }

    fn is_settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// What is not where it belongs, once faults stopped.
    fn unsettled(&self) -> Vec<(String, String)> {
        if self
            .beats
            .values()
            .any(|beat| matches!(beat, Beat::Delete(_) | Beat::Force(_) | Beat::Create(_)))
        {
            return vec![(String::new(), "pods are still to be created or deleted".into())];
        }
        let now = self.world.now();
        let mut state = self.world.lock();
        let mut unsettled = Vec::new();
        for (uid, pod) in &state.pods {
            let holder = state
                .cloud
                .machines
                .values()
                .any(|machine| machine.host.holds(uid));
            let waits_on_host =
                pod.plan.work.waits_as.is_some() && holder && pod.phase() == Some(PodPhase::Pending);
            let waits_for_size =
                pod.plan.never_fits() && pod.report.as_ref().is_some_and(|report| report.reason == "NoFit");
            let is_there = matches!(
                pod.phase(),
                Some(PodPhase::Running | PodPhase::Succeeded | PodPhase::Failed)
            );
            let why = pod.report.as_ref().map_or("nothing".to_owned(), |report| {
                format!("{:?} {} {}", report.phase, report.reason, report.message)
            });
            if let Some(deadline) = pod.deleted {
                let _ = deadline;
                unsettled.push((
                    uid.to_string(),
                    format!("{uid} is being deleted and still there ({why})"),
                ));
            } else if !(waits_on_host || waits_for_size || is_there) {
                unsettled.push((
                    uid.to_string(),
                    format!("{uid} neither runs nor has ended ({why})"),
                ));
            } else if pod.phase() == Some(PodPhase::Running) && !holder {
                unsettled.push((
                    uid.to_string(),
                    format!("{uid} is reported as running and no host has it"),
                ));
            } else if pod.phase() == Some(PodPhase::Running)
                && state
                    .cloud
                    .machines
                    .iter()
                    .any(|(id, machine)| machine.host.holds(uid) && machine.host.has_finished(id, now))
            {
                unsettled.push((
                    uid.to_string(),
                    format!("{uid} has ended and is reported as running"),
                ));
            } else if pod.plan.work.runs_ms.is_some() && pod.phase() == Some(PodPhase::Running) {
                unsettled.push((uid.to_string(), format!("{uid} still runs")));
            }
        }
        let ms = self.world.ms();
        for id in state.living(ms) {
            let machine = &state.cloud.machines[&id];
            let is_named = state.records.values().any(|record| {
                record.instance.as_ref() == Some(&id)
                    || record.replaces.as_ref().is_some_and(|old| old.instance == id)
                    || (record.instance.is_none() && machine.token() == Some(&record.token))
            });
            if !is_named && !machine.is_leaving() {
                let pod = machine.tag(tags::POD_UID).unwrap_or_default().to_owned();
                unsettled.push((
                    id.to_string(),
                    format!("{id} of {pod} lives and no record names it"),
                ));
            }
        }
        unsettled
    }

    /// What a pod that nobody harmed must have come to.
    fn judge_ends(&self) {
        let ms = self.world.ms();
        let mut state = self.world.lock();
        let harmed = !self.world.scenario.faults.is_empty();
        let mut wrong = Vec::new();
        for (uid, pod) in &state.pods {
            let expected = match (
                &pod.plan.work.waits_as,
                pod.plan.work.runs_ms,
                pod.plan.work.exit_code,
            ) {
                (Some(_), _, _) | (_, None, _) => None,
                (None, Some(_), 0) => Some(PodPhase::Succeeded),
                (None, Some(_), _) => Some(PodPhase::Failed),
            };
            let is_timed = pod.plan.active_deadline_s.is_some() || pod.plan.never_fits();
            if let (Some(expected), Some(phase), false) = (expected, pod.phase(), is_timed)
                && expected != phase
                && (!harmed || phase == PodPhase::Succeeded)
            {
                wrong.push((
                    uid.to_string(),
                    format!("{uid} should be {expected:?} and is {phase:?}"),
                ));
            }
        }
        for (uid, text) in wrong {
            state.violate("wrong end", ms, vec![uid], text);
        }
    }

    /// What a life without any fault may cost.
    fn judge_ordinary_life(&self) {
        let ms = self.world.ms();
        let mut state = self.world.lock();
        let mut dear = Vec::new();
        for (cell, writes) in &state.judge.writes {
            if *writes > 4 {
                dear.push(format!("{cell} was written {writes} times, more than 4"));
            }
        }
        for (uid, made) in &state.judge.made {
            if *made > 1 {
                dear.push(format!("{uid} was given {made} instances"));
            }
        }
        for (uid, (_, writes)) in &state.written {
            if *writes > 6 {
                dear.push(format!("{uid} was written {writes} times, more than 6"));
            }
        }
        for text in dear {
            state.violate("an ordinary life costs too much", ms, Vec::new(), text);
        }
    }

    /// What is left when nothing may be.
    fn left(&self) -> Vec<(String, String)> {
        let ms = self.world.ms();
        let mut state = self.world.lock();
        let mut left = Vec::new();
        for uid in state.pods.keys() {
            left.push((uid.to_string(), format!("pod {uid} is still there")));
        }
        for record in state.records.values() {
            left.push((
                record.pod.uid.to_string(),
                format!("record {} of {} is still there", record.name, record.pod.uid),
            ));
        }
        for id in state.living(ms) {
            left.push((id.to_string(), format!("instance {id} still lives")));
        }
        left
    }
}

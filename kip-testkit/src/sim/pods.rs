//! Pods as they truly are, and the source that tells controllers of them: stands in for Kubernetes behind the driver's own traits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kip_core::driver::{DriverHandle, PodIntent, PodNotice, PodSource, Presence};
use kip_core::ids::{CellName, PodRef, PodUid};
use kip_core::model::{
    Bytes, CapacityType, CpuMillis, PodDemand, PodManifest, PodPhase, PodReport, RestartPolicy,
};
use kip_core::{Error, ErrorKind, Result};

use super::port::Port;
use super::scenario::{Op, PodPlan, Restart};
use super::world::World;

/// A pod object as it truly is.
#[derive(Debug)]
pub(super) struct PodTruth {
    pub(super) plan: PodPlan,
    /// Being deleted; its containers are killed then.
    pub(super) deleted: Option<Timestamp>,
    /// What was published last.
    pub(super) report: Option<PodReport>,
    /// When its end was published.
    pub(super) ended_at: Option<u64>,
    /// Which life of a controller published it.
    pub(super) ended_by: u32,
    pub(super) has_run: bool,
}

impl PodTruth {
    /// A pod that was just created.
    pub(super) fn new(plan: PodPlan) -> Self {
        Self {
            plan,
            deleted: None,
            report: None,
            ended_at: None,
            ended_by: 0,
            has_run: false,
        }
    }

    pub(super) fn phase(&self) -> Option<PodPhase> {
        self.report.as_ref().map(|report| report.phase)
    }
}

pub(super) fn uid(name: &str) -> PodUid {
    crate::samples::pod(name).uid
}

/// What a pod of this plan needs.
pub(super) fn demand(plan: &PodPlan) -> PodDemand {
    let cpu = CpuMillis(u64::from(plan.cpu) * 1000);
    let mut demand = PodDemand::new(crate::samples::pod(&plan.name), cpu, Bytes::gib(plan.memory_gib));
    demand.capacity_types = BTreeSet::from([CapacityType::OnDemand]);
    if plan.spot {
        demand.capacity_types.insert(CapacityType::Spot);
    }
    demand
}

/// All controllers that are told of pods.
#[derive(Debug, Default)]
pub(super) struct Audience(Mutex<Vec<Listener>>);

#[derive(Debug)]
struct Listener {
    port: Arc<Port>,
    source: Arc<SimSource>,
    handle: DriverHandle,
    known: BTreeSet<PodUid>,
    /// Told nothing since it was cut off: told everything anew when it is back.
    is_behind: bool,
}

impl Audience {
    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a controller of all pods, and from now on of every change.
    pub(super) fn join(&self, source: Arc<SimSource>, handle: DriverHandle) {
        let port = Arc::clone(&source.port);
        let mut listener = Listener {
            port: Arc::clone(&port),
            source,
            handle,
            known: BTreeSet::new(),
            is_behind: false,
        };
        listener.tell_all(true);
        port.world.lock().judge.synced.insert(port.life);
        listener.handle.synced();
        self.locked().push(listener);
    }

    pub(super) fn leave(&self, life: u32) {
        self.locked().retain(|listener| listener.port.life != life);
    }

    /// Tells everybody who can hear it what is wanted of a pod now.
    pub(super) fn tell(&self, uid: &PodUid, is_refresh: bool) {
        for listener in self.locked().iter_mut() {
            if listener.port.is_cut() {
                listener.is_behind = true;
            } else {
                listener.tell(uid, false, is_refresh);
            }
        }
    }

    /// Shows what is published to every controller that can see it: whoever said otherwise puts it right.
    pub(super) fn show(&self) {
        for listener in self.locked().iter() {
            if !listener.port.is_cut() {
                listener.source.heal();
            }
        }
    }

    /// Tells those that were cut off everything anew.
    pub(super) fn catch_up(&self) {
        for listener in self.locked().iter_mut() {
            if !listener.port.is_cut() && std::mem::take(&mut listener.is_behind) {
                listener.tell_all(false);
            }
        }
    }
}

impl Listener {
    fn tell_all(&mut self, is_first: bool) {
        let mut all: BTreeSet<PodUid> = self.port.world.lock().pods.keys().cloned().collect();
        all.extend(self.known.iter().cloned());
        for uid in all {
            self.tell(&uid, is_first, false);
        }
    }

    fn tell(&mut self, uid: &PodUid, is_first: bool, refresh: bool) {
        let now = self.port.world.now();
        let intent = match self.port.world.lock().pods.get(uid) {
            Some(pod) => intent_of(pod, now, is_first, refresh),
            None if self.known.contains(uid) => Some(PodIntent::Gone),
            None => None,
        };
        if let Some(intent) = intent {
            self.known.insert(uid.clone());
            self.handle.intent(uid.clone(), intent);
        }
    }
}

/// What a Kubernetes-like source says of a pod: nothing of one that has ended and is not being deleted.
fn intent_of(pod: &PodTruth, now: Timestamp, is_first: bool, refresh: bool) -> Option<PodIntent> {
    if let Some(deadline) = pod.deleted {
        let grace = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
        return Some(PodIntent::Delete { grace });
    }
    if pod.ended_at.is_some() {
        return None;
    }
    Some(PodIntent::Run {
        demand: Box::new(demand(&pod.plan)),
        refresh,
        active_deadline_seconds: pod.plan.active_deadline_s,
        restartable: pod.plan.restart != Restart::Never,
        started_before: is_first && pod.has_run,
    })
}

/// Creates a pod.
pub(super) fn create(world: &World, audience: &Audience, plan: &PodPlan) {
    let pod = PodTruth::new(plan.clone());
    world.note(&format!("user creates pod {}", plan.name));
    world.lock().pods.insert(uid(&plan.name), pod);
    audience.tell(&uid(&plan.name), false);
}

/// Deletes a pod gracefully; nothing if it is being deleted or gone.
pub(super) fn delete(world: &World, audience: &Audience, name: &str, grace_s: u32) {
    let deadline = world
        .now()
        .checked_add(Duration::from_secs(u64::from(grace_s)))
        .unwrap_or(Timestamp::MAX);
    {
        let mut state = world.lock();
        let Some(pod) = state.pods.get_mut(&uid(name)) else {
            return;
        };
        pod.deleted = Some(pod.deleted.map_or(deadline, |before| before.min(deadline)));
    }
    world.note(&format!("user deletes pod {name}, {grace_s} s of grace"));
    audience.tell(&uid(name), false);
}

/// Removes a pod's object by force.
pub(super) fn remove(world: &World, audience: &Audience, name: &str) {
    if world.lock().pods.remove(&uid(name)).is_some() {
        world.note(&format!("user removes pod {name} by force"));
        audience.tell(&uid(name), false);
    }
}

/// How long a status that another controller wrote over stays so at least: as with the Kubernetes source, or two would write without end.
const HEAL_PACE: Duration = Duration::from_secs(10);

/// The source as one controller sees it.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) port: Arc<Port>,
    audience: Arc<Audience>,
    this: Weak<Self>,
    said: Mutex<BTreeMap<PodUid, Said>>,
}

/// What a controller says of a pod.
#[derive(Clone, Debug, Default)]
struct Said {
    /// What it published last.
    last: Option<PodReport>,
    /// It was written over, and is about to be written again.
    is_healing: bool,
    /// One write after the other: what was said last is what stands.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl SimSource {
    pub(super) fn new(port: Arc<Port>, audience: Arc<Audience>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            port,
            audience,
            this: Weak::clone(this),
            said: Mutex::default(),
        })
    }

    fn said(&self) -> std::sync::MutexGuard<'_, BTreeMap<PodUid, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this controller published and somebody wrote over is written again after a while.
    fn heal(&self) {
        let mut said = self.said();
        let world = self.port.world.lock();
        let overwritten = said.iter_mut().filter(|(uid, said)| {
            let pod = world.pods.get(uid);
            let is_idle = said.last.is_some() && !said.is_healing;
            is_idle && pod.is_some_and(|pod| pod.ended_at.is_none() && pod.report != said.last)
        });
        for (uid, said) in overwritten {
            let Some(this) = self.this.upgrade() else { return };
            said.is_healing = true;
            let uid = uid.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HEAL_PACE).await;
                // One that fails is tried again when it is seen again.
                let _ = this.write(&uid, None).await;
                if let Some(said) = this.said().get_mut(&uid) {
                    said.is_healing = false;
                }
            });
        }
    }

    /// Writes a report, or once more what was written last.
    async fn write(&self, pod: &PodUid, report: Option<&PodReport>) -> Result<()> {
        let turn = Arc::clone(&self.said().entry(pod.clone()).or_default().turn);
        let _turn = turn.lock().await;
        let last = || self.said().get(pod).and_then(|said| said.last.clone());
        let Some(report) = report.cloned().or_else(last) else {
            return Ok(());
        };
        let said = report.clone();
        let uid = pod.clone();
        let subject = format!("{pod} {:?}/{} {:?}", report.phase, report.reason, report.message);
        let effect = move |state: &mut super::world::State, at: super::world::At| {
            let Some(pod) = state.pods.get(&uid) else {
                return Ok(());
            };
            if pod.ended_at.is_some() || pod.report.as_ref() == Some(&report) {
                return Ok(());
            }
            // As the Kubernetes source: what runs is not reported as pending only because a new controller has not heard of it yet.
            let is_unheard =
                report.phase == PodPhase::Pending && report.runtime.is_none() && report.unheard.is_some();
            if is_unheard && pod.phase() == Some(PodPhase::Running) {
                return Ok(());
            }
            state.judge_publish(&uid, &report, at);
            if let Some(pod) = state.pods.get_mut(&uid) {
                pod.has_run |= report.phase == PodPhase::Running;
                if matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded) {
                    pod.ended_at = Some(at.ms);
                    pod.ended_by = at.life;
                }
                pod.report = Some(report);
            }
            Ok(())
        };
        self.port
            .world
            .call(&self.port, Op::Publish, subject, effect)
            .await?;
        self.said().entry(pod.clone()).or_default().last = Some(said);
        Ok(())
    }
}

#[async_trait]
impl PodSource for SimSource {
    async fn manifest(&self, pod: &PodUid, cell: &CellName, _host_ip: Option<IpAddr>) -> Result<PodManifest> {
        let (uid, subject) = (pod.clone(), format!("{pod} for {cell}"));
        let world = &self.port.world;
        let effect = move |state: &mut super::world::State, _| match state.pods.get(&uid) {
            Some(pod) => {
                let mut manifest = PodManifest::new(crate::samples::pod(&pod.plan.name));
                manifest.restart_policy = match pod.plan.restart {
                    Restart::Always => RestartPolicy::Always,
                    Restart::OnFailure => RestartPolicy::OnFailure,
                    Restart::Never => RestartPolicy::Never,
                };
                Ok(manifest)
            }
            None => Err(Error::new(
                ErrorKind::NotFound,
                "manifest",
                "there is no such pod",
            )),
        };
        world.call(&self.port, Op::Manifest, subject, effect).await
    }

    async fn publish(&self, pod: &PodUid, report: &PodReport) -> Result<()> {
        let result = self.write(pod, Some(report)).await;
        if matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded) {
            self.audience.tell(pod, false);
        }
        result
    }

    async fn notify(&self, pod: &PodUid, notice: PodNotice) {
        let world = &self.port.world;
        world.note(&format!(
            "{} tells users of {pod}: {} {}",
            self.port.name, notice.reason, notice.message
        ));
        if notice.reason.is_empty() || notice.message.is_empty() {
            let ms = world.ms();
            let text = format!(
                "{} tells of {pod} an event without reason or message",
                self.port.name
            );
            world
                .lock()
                .violate("waits in silence", ms, vec![pod.to_string()], text);
        }
    }

    async fn presence(&self, pod: &PodRef) -> Result<Presence> {
        let uid = pod.uid.clone();
        let subject = pod.uid.to_string();
        let effect = move |state: &mut super::world::State, _| {
            Ok(match state.pods.get(&uid) {
                None => Presence::Gone,
                Some(pod) if pod.deleted.is_some() => Presence::Deleting,
                Some(pod) if pod.ended_at.is_some() => Presence::Ended,
                Some(_) => Presence::Wanted,
            })
        };
        self.port
            .world
            .call(&self.port, Op::Exists, subject, effect)
            .await
    }

    async fn release(&self, pod: &PodUid) -> Result<()> {
        let uid = pod.clone();
        let effect = move |state: &mut super::world::State, at| {
            state.judge_release(&uid, at);
            state.pods.remove(&uid);
            Ok(())
        };
        let subject = pod.to_string();
        let result = self
            .port
            .world
            .call(&self.port, Op::Release, subject, effect)
            .await;
        if !self.port.world.lock().pods.contains_key(pod) {
            self.audience.tell(pod, false);
        }
        result
    }
}

//! Pods as they truly are, and the source that tells controllers of them: stands in for Kubernetes behind the driver's own traits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
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
    pub(super) fn join(&self, port: &Arc<Port>, handle: DriverHandle) {
        let mut listener = Listener {
            port: Arc::clone(port),
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

/// The source as one controller sees it.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) port: Arc<Port>,
    pub(super) audience: Arc<Audience>,
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
        let (uid, report) = (pod.clone(), report.clone());
        let subject = format!("{pod} {:?}/{} {:?}", report.phase, report.reason, report.message);
        let is_end = matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded);
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
        let result = self
            .port
            .world
            .call(&self.port, Op::Publish, subject, effect)
            .await;
        if is_end {
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

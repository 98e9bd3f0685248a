//! Pods and their status in memory, standing in for Kubernetes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kip_core::driver::{DriverHandle, PodIntent, PodNotice, PodSource, Presence};
use kip_core::ids::{CellName, PodRef, PodUid};
use kip_core::model::{PodDemand, PodManifest, PodPhase, PodReport};
use kip_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::fault::Faults;
use crate::tripwire::Tripwire;

/// An operation of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceOp {
    /// `manifest`.
    Manifest,
    /// `publish`.
    Publish,
    /// `presence`.
    Presence,
    /// `release`.
    Release,
}

#[derive(Debug)]
struct FakePod {
    demand: PodDemand,
    restartable: bool,
    active_deadline_seconds: Option<u64>,
    deleted: Option<Duration>,
    reports: Vec<PodReport>,
    notices: Vec<PodNotice>,
}

impl FakePod {
    fn is_terminal(&self) -> bool {
        let phase = self.reports.last().map(|report| report.phase);
        matches!(phase, Some(PodPhase::Succeeded | PodPhase::Failed))
    }

    fn has_started(&self) -> bool {
        self.reports
            .iter()
            .any(|report| report.phase == PodPhase::Running)
    }
}

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<BTreeMap<PodUid, FakePod>>,
    /// What was last reported of pods that are gone.
    last_words: Mutex<BTreeMap<PodUid, PodReport>>,
    handle: Mutex<Option<DriverHandle>>,
    faults: Faults<SourceOp>,
    tripwire: Tripwire,
    changed: Notify,
}

/// Pods and their status in memory, standing in for Kubernetes: it outlives a crash of the driver. Clones are the same source.
#[derive(Clone, Debug, Default)]
pub struct FakeSource(Arc<Shared>);

impl FakeSource {
    /// No pods, stoppable at any call.
    pub fn new(tripwire: Tripwire) -> Self {
        Self(Arc::new(Shared {
            tripwire,
            ..Shared::default()
        }))
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<PodUid, FakePod>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults to come.
    pub fn faults(&self) -> &Faults<SourceOp> {
        &self.0.faults
    }

    /// Tells a driver, from now on, what pods there are, beginning with all of them.
    pub fn attach(&self, handle: DriverHandle) {
        let all: Vec<(PodUid, Option<PodIntent>)> = {
            let pods = self.pods();
            pods.iter()
                .map(|(uid, pod)| (uid.clone(), intent_of(pod, true, false)))
                .collect()
        };
        *self.0.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
        for (uid, intent) in all {
            if let Some(intent) = intent {
                handle.intent(uid, intent);
            }
        }
        handle.synced();
    }

    /// Tells nobody any more.
    pub fn detach(&self) {
        *self.0.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn tell(&self, pod: &PodUid, intent: Option<PodIntent>) {
        let handle = self
            .0
            .handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let (Some(handle), Some(intent)) = (handle, intent) {
            handle.intent(pod.clone(), intent);
        }
        self.0.changed.notify_waiters();
    }

    /// A pod that is to run, and to be started again when its cell is lost.
    pub fn run(&self, demand: PodDemand) -> PodUid {
        self.add(demand, true, None)
    }

    /// A pod with restart policy `Never`.
    pub fn run_once(&self, demand: PodDemand) -> PodUid {
        self.add(demand, false, None)
    }

    /// A pod that may be active for so many seconds.
    pub fn run_for(&self, demand: PodDemand, active_deadline_seconds: u64) -> PodUid {
        self.add(demand, true, Some(active_deadline_seconds))
    }

    fn add(&self, demand: PodDemand, restartable: bool, active_deadline_seconds: Option<u64>) -> PodUid {
        let uid = demand.pod.uid.clone();
        let pod = FakePod {
            demand,
            restartable,
            active_deadline_seconds,
            deleted: None,
            reports: Vec::new(),
            notices: Vec::new(),
        };
        let intent = intent_of(&pod, false, false);
        self.pods().insert(uid.clone(), pod);
        self.tell(&uid, intent);
        uid
    }

    /// Changes the pod's mutable parts.
    pub fn change(&self, pod: &PodUid) {
        let intent = self.pods().get(pod).and_then(|pod| intent_of(pod, false, true));
        self.tell(pod, intent);
    }

    /// Deletes a pod; its containers are killed after `grace`.
    pub fn delete(&self, pod: &PodUid, grace: Duration) {
        let intent = self.pods().get_mut(pod).and_then(|pod| {
            pod.deleted = Some(grace);
            intent_of(pod, false, false)
        });
        self.tell(pod, intent);
    }

    /// Makes the pod object vanish at once.
    pub fn force_delete(&self, pod: &PodUid) {
        self.vanish(pod);
        self.tell(pod, Some(PodIntent::Gone));
    }

    fn vanish(&self, pod: &PodUid) {
        if let Some(gone) = self.pods().remove(pod)
            && let Some(report) = gone.reports.last()
        {
            let mut words = self.0.last_words.lock().unwrap_or_else(PoisonError::into_inner);
            words.insert(pod.clone(), report.clone());
        }
    }

    /// What was last published of a pod, also after it is gone.
    pub fn report(&self, pod: &PodUid) -> Option<PodReport> {
        let known = self.pods().get(pod).and_then(|pod| pod.reports.last().cloned());
        known.or_else(|| {
            let words = self.0.last_words.lock().unwrap_or_else(PoisonError::into_inner);
            words.get(pod).cloned()
        })
    }

    /// Everything that was published of a pod, while it exists.
    pub fn reports(&self, pod: &PodUid) -> Vec<PodReport> {
        self.pods()
            .get(pod)
            .map(|pod| pod.reports.clone())
            .unwrap_or_default()
    }

    /// What users were told of a pod, while it exists.
    pub fn notices(&self, pod: &PodUid) -> Vec<PodNotice> {
        self.pods()
            .get(pod)
            .map(|pod| pod.notices.clone())
            .unwrap_or_default()
    }

    /// Whether the pod object exists.
    pub fn exists(&self, pod: &PodUid) -> bool {
        self.pods().contains_key(pod)
    }

    /// How many pod objects exist.
    pub fn len(&self) -> usize {
        self.pods().len()
    }

    /// Whether no pod object exists.
    pub fn is_empty(&self) -> bool {
        self.pods().is_empty()
    }

    /// Waits until something holds, looking whenever a pod changed and at least once a second; false when it did not within `limit`.
    pub async fn wait_until(&self, limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds() {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    async fn call<T>(
        &self,
        op: SourceOp,
        name: &'static str,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.0.tripwire.pass().await;
        let result = self.0.faults.strike(op, name, effect).await;
        self.0.tripwire.pass().await;
        result
    }
}

/// What a Kubernetes-like source says of a pod: nothing of one that has ended and is not being deleted.
fn intent_of(pod: &FakePod, is_first_list: bool, refresh: bool) -> Option<PodIntent> {
    if let Some(grace) = pod.deleted {
        return Some(PodIntent::Delete { grace });
    }
    if pod.is_terminal() {
        return None;
    }
    Some(PodIntent::Run {
        demand: Box::new(pod.demand.clone()),
        refresh,
        active_deadline_seconds: pod.active_deadline_seconds,
        restartable: pod.restartable,
        started_before: is_first_list && pod.has_started(),
    })
}

#[async_trait]
impl PodSource for FakeSource {
    async fn manifest(
        &self,
        pod: &PodUid,
        _cell: &CellName,
        _host_ip: Option<IpAddr>,
    ) -> Result<PodManifest> {
        self.call(SourceOp::Manifest, "manifest", || match self.pods().get(pod) {
            Some(pod) => Ok(PodManifest::new(pod.demand.pod.clone())),
            None => Err(Error::new(
                ErrorKind::NotFound,
                "manifest",
                "there is no such pod",
            )),
        })
        .await
    }

    async fn publish(&self, pod: &PodUid, report: &PodReport) -> Result<()> {
        let result = self
            .call(SourceOp::Publish, "publish", || {
                if let Some(pod) = self.pods().get_mut(pod)
                    && !pod.is_terminal()
                    && pod.reports.last() != Some(report)
                {
                    pod.reports.push(report.clone());
                }
                Ok(())
            })
            .await;
        self.0.changed.notify_waiters();
        result
    }

    async fn notify(&self, pod: &PodUid, notice: PodNotice) {
        if let Some(pod) = self.pods().get_mut(pod) {
            pod.notices.push(notice);
        }
    }

    async fn presence(&self, pod: &PodRef) -> Result<Presence> {
        self.call(SourceOp::Presence, "presence", || {
            Ok(match self.pods().get(&pod.uid) {
                None => Presence::Gone,
                Some(pod) if pod.deleted.is_some() => Presence::Deleting,
                Some(pod) if pod.is_terminal() => Presence::Ended,
                Some(_) => Presence::Wanted,
            })
        })
        .await
    }

    async fn release(&self, pod: &PodUid) -> Result<()> {
        self.call(SourceOp::Release, "release", || {
            self.vanish(pod);
            Ok(())
        })
        .await?;
        self.tell(pod, Some(PodIntent::Gone));
        Ok(())
    }
}

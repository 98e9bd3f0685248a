//! Kubernetes as the driver's source of pods: manifests, status, events, and the final delete.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cells::CellAddresses;
use super::client::Client;
use super::config::KubeletConfig;
use super::errors::{api_error, is_conflict, is_missing};
use super::events::EventRecorder;
use super::generation::{acted_on, generation};
use super::handle::PodDriver;
use super::live::LiveReferences;
use super::manifest::{self, CellFacts, References};
use super::pods::{fingerprint, is_terminal};
use super::registry::{Built, Entry, PodRegistry, uid_of};
use super::salvage::Salvage;
use super::status;
use crate::driver::{Clock, PodNotice, PodSource, Presence};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, PodRef, PodUid};
use crate::model::{PodManifest, PodPhase, PodReport};
use crate::runtime::CellEndpoint;

/// What a pod that has not started yet is told is written no more often than this: a user reads the last.
const PACE: Duration = Duration::from_secs(2);
/// The ordinary steps on the way to a cell are told once they have lasted so long; each is also an event, at once. So a quick start costs
/// few writes, and a slow one says where it is.
const STANDING: Duration = Duration::from_secs(10);
/// Reasons of the ordinary steps.
const STEPS: [&str; 6] = [
    "Recovering",
    "Placing",
    "Launching",
    "Booting",
    "Connecting",
    "Deploying",
];
/// A status another writer changed is put right no more often than this.
const HEAL_PACE: Duration = Duration::from_secs(10);
/// When a manifest is built again after something it needs could not be read, or because the host runs another controller's; and a status
/// is written again that could not be.
const REBUILD: Duration = Duration::from_secs(5);
/// Tries to write a status while others change the pod.
const TRIES: u32 = 4;
/// How long one write may take that nobody waits for: all others of its pod wait until it is over.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// Name under which the pods' status is written.
const MANAGER: &str = "kip";

/// Kubernetes as the driver's source of pods. Made by `VirtualKubelet` or `PodController`.
#[derive(Debug)]
pub struct KubePodSource {
    client: Client,
    config: Arc<KubeletConfig>,
    clock: Arc<dyn Clock>,
    registry: Arc<PodRegistry>,
    events: EventRecorder,
    live: LiveReferences,
    addresses: Arc<CellAddresses>,
    salvage: Arc<Salvage>,
    driver: Mutex<Option<Arc<dyn PodDriver>>>,
    writers: Mutex<BTreeMap<PodUid, Arc<Writer>>>,
    /// Writes that wait for their time. Ended when the source is detached.
    tasks: Mutex<JoinSet<()>>,
    this: Weak<Self>,
}

/// What is written of one pod, one write at a time.
#[derive(Debug, Default)]
struct Writer {
    state: tokio::sync::Mutex<Written>,
    /// The pod's end is being written, or was.
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Written {
    /// The report that was written last.
    report: Option<PodReport>,
    /// When.
    at: Option<Instant>,
    /// A newer one that may wait for its turn.
    waiting: Option<PodReport>,
    /// When that is.
    due: Option<Instant>,
    /// When another writer's change was last put right.
    healed_at: Option<Instant>,
    /// A task is on its way to do so.
    healing: bool,
}

impl KubePodSource {
    /// A source over the pods in `registry`; changed references are told to `touched`.
    pub(crate) fn new(
        client: Client,
        config: Arc<KubeletConfig>,
        clock: Arc<dyn Clock>,
        registry: Arc<PodRegistry>,
        addresses: Arc<CellAddresses>,
        touched: mpsc::Sender<PodUid>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            events: EventRecorder::new(client.get(), config.name.clone(), Arc::clone(&clock)),
            live: LiveReferences::new(client.clone(), touched, config.pods.watch_jitter),
            client,
            config,
            clock,
            registry,
            addresses,
            salvage: Arc::default(),
            driver: Mutex::default(),
            writers: Mutex::default(),
            tasks: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Lets the source ask what a pod's cell has room for.
    pub(crate) fn attach(&self, driver: Arc<dyn PodDriver>) {
        *self.attached() = Some(driver);
    }

    /// Nobody listens any more to what the objects do that pods refer to.
    pub(crate) fn unfollow(&self) {
        self.live.stop();
    }

    fn attached(&self) -> MutexGuard<'_, Option<Arc<dyn PodDriver>>> {
        // It is only set, taken and cloned, so a panic elsewhere does not spoil it.
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self) -> Option<Arc<dyn PodDriver>> {
        self.attached().clone()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A set of tasks is whole whatever its last user was doing.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// The logs that are kept of pods that have ended.
    pub(crate) fn salvage(&self) -> Arc<Salvage> {
        Arc::clone(&self.salvage)
    }

    /// Keeps the logs of a pod that has ended, before its status says so and its cell is terminated.
    async fn keep_logs(&self, pod: &PodUid, report: &PodReport) {
        let ended = matches!(report.phase, PodPhase::Succeeded | PodPhase::Failed);
        let (Some(driver), Some(runtime), Some(cell), Some(address)) =
            (self.driver(), &report.runtime, &report.cell, report.host_ip)
        else {
            return;
        };
        if !ended || self.salvage.has(pod) {
            return;
        }
        let endpoint = CellEndpoint {
            cell: cell.clone(),
            address,
        };
        self.salvage
            .read(&driver.runtime(), &endpoint, pod, runtime)
            .await;
    }

    /// The pod object is gone: nothing about it is needed any more.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.live.forget(uid);
        self.salvage.forget(uid);
        self.writers().remove(uid);
    }

    /// The API's copy of a pod changed without its spec changing: if what Kip says of it was overwritten, or a readiness gate opened, the
    /// status is written again.
    pub(crate) fn heal(&self, uid: &PodUid) {
        let Some(this) = self.this.upgrade() else { return };
        let Some(writer) = self.writers().get(uid).cloned() else {
            return;
        };
        let uid = uid.clone();
        // A write that is under way sees the newest copy itself.
        let Ok(mut written) = writer.state.try_lock() else {
            return;
        };
        if written.healing
            || written
                .report
                .as_ref()
                .is_none_or(|report| !this.differs(&uid, report))
        {
            return;
        }
        written.healing = true;
        let due = written.healed_at.map_or_else(Instant::now, |at| at + HEAL_PACE);
        drop(written);
        self.spawn(async move {
            let mut due = due;
            loop {
                tokio::time::sleep_until(due).await;
                let mut written = writer.state.lock().await;
                written.healed_at = Some(Instant::now());
                let outcome = match written.report.clone() {
                    Some(report) => this.write_within(&uid, &report).await,
                    None => Ok(()),
                };
                let Err(error) = outcome else {
                    written.healing = false;
                    return;
                };
                tracing::debug!(pod = %uid, error = %error.chain(), "the pod's status could not be put right; trying again");
                due = Instant::now() + HEAL_PACE;
            }
        });
    }

    /// Tells the user of a pod what of it has no effect. Best effort, and nobody waits for it.
    pub(crate) fn warn(&self, pod: &Arc<Pod>, sentences: Vec<String>) {
        let Some(this) = self.this.upgrade().filter(|_| !sentences.is_empty()) else {
            return;
        };
        let pod = Arc::clone(pod);
        self.spawn(async move {
            for sentence in sentences {
                let notice = PodNotice::warning("AnnotationIgnored", sentence);
                this.events.record(&pod, &notice).await;
            }
        });
    }

    fn differs(&self, uid: &PodUid, report: &PodReport) -> bool {
        self.registry
            .get(uid)
            .is_some_and(|entry| self.change(uid, &entry, report).is_some())
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<PodUid, Arc<Writer>>> {
        // Each critical section leaves the map consistent, so a panic elsewhere does not spoil it.
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods_of(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(
            self.client.get(),
            pod.metadata.namespace.as_deref().unwrap_or_default(),
        )
    }

    /// Whether the pod's end is this controller's word.
    pub(crate) fn has_ended(&self, uid: &PodUid) -> bool {
        self.writers()
            .get(uid)
            .is_some_and(|writer| writer.has_ended.load(Ordering::SeqCst))
    }

    /// The patch that makes the API's copy say what the report says.
    fn change(&self, uid: &PodUid, entry: &Entry, report: &PodReport) -> Option<Value> {
        let generation = acted_on(entry, report);
        let wanted = status::project(&entry.pod, report, generation, self.clock.now())?;
        let nothing = PodStatus::default();
        let known = entry.pod.status.as_ref().unwrap_or(&nothing);
        let mut patch = status::patch(uid.as_str(), known, &wanted)?;
        // What it changes is only known of this version. A controller that was cut off must not undo what was written since.
        patch["metadata"]["resourceVersion"] = json!(entry.pod.metadata.resource_version);
        Some(patch)
    }

    /// [`write`](Self::write) for tasks that hold the pod's lock and have nobody to end them.
    async fn write_within(&self, uid: &PodUid, report: &PodReport) -> Result<()> {
        let write = self.write(uid, report);
        tokio::time::timeout(WRITE_PATIENCE, write)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    "write pod status",
                    "the API server did not answer in time",
                ))
            })
    }

    async fn write(&self, uid: &PodUid, report: &PodReport) -> Result<()> {
        let mut conflict = None;
        for _ in 0..TRIES {
            let Some(entry) = self.registry.get(uid) else {
                return Ok(());
            };
            let Some(patch) = self.change(uid, &entry, report) else {
                return Ok(());
            };
            let api = self.pods_of(&entry.pod);
            let name = entry.pod.metadata.name.as_deref().unwrap_or_default();
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            match api.patch_status(name, &params, &Patch::Strategic(&patch)).await {
                Ok(pod) => {
                    self.registry.refresh(pod);
                    return Ok(());
                }
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) if is_conflict(&error) => conflict = Some(error),
                Err(error) => return Err(api_error("write pod status", error)),
            }
            // Somebody else wrote it: what is there now decides whether there is still something to say.
            let live = api
                .get_opt(name)
                .await
                .map_err(|error| api_error("read pod", error))?;
            match live {
                Some(live) if uid_of(&live).as_ref() == Some(uid) => self.registry.refresh(live),
                // Another pod has the name now.
                Some(_) | None => return Ok(()),
            }
        }
        match conflict {
            Some(error) => Err(api_error("write pod status", error)),
            None => Ok(()),
        }
    }

    /// Writes the newest report that waits, when its turn has come.
    fn write_later(&self, uid: PodUid, writer: Arc<Writer>, due: Instant) {
        let Some(this) = self.this.upgrade() else { return };
        self.spawn(async move {
            let mut due = due;
            loop {
                tokio::time::sleep_until(due).await;
                let mut written = writer.state.lock().await;
                // A newer one was written meanwhile.
                let Some(report) = written.waiting.take() else {
                    return;
                };
                written.due = None;
                match this.write_within(&uid, &report).await {
                    Ok(()) => {
                        written.report = Some(report);
                        written.at = Some(Instant::now());
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(pod = %uid, error = %error.chain(), "the pod's progress could not be written; trying again");
                        written.waiting = Some(report);
                        due = Instant::now() + REBUILD;
                        written.due = Some(due);
                    }
                }
            }
        });
    }
}

impl Written {
    /// When a report may be written, if it may wait at all: while the pod has not started, each step soon follows the one before.
    fn due(&self, report: &PodReport) -> Option<Instant> {
        let (written, at) = (self.report.as_ref()?, self.at?);
        if report.phase != PodPhase::Pending || written.phase != PodPhase::Pending {
            return None;
        }
        let is_step = report.runtime.is_none() && STEPS.contains(&report.reason.as_str());
        Some(if is_step {
            Instant::now() + STANDING
        } else {
            at + PACE
        })
    }
}

#[async_trait]
impl PodSource for KubePodSource {
    async fn manifest(&self, pod: &PodUid, cell: &CellName, host_ip: Option<IpAddr>) -> Result<PodManifest> {
        let gone =
            || Error::new(ErrorKind::NotFound, "build manifest", "the pod is gone").with_context("pod", pod);
        let entry = self.registry.get(pod).ok_or_else(gone)?;
        let Some(driver) = self.driver() else {
            // Without it the cell's size is not known, and the containers would be told a wrong one.
            let stopping = Error::new(ErrorKind::Unavailable, "build manifest", "the driver has ended");
            return Err(stopping.with_context("pod", pod));
        };
        let references = References::of(&entry.pod);
        let read = manifest::fetch(self.client.as_ref(), &*self.clock, &entry.pod, &references).await?;
        let namespace = entry.pod.metadata.namespace.as_deref().unwrap_or_default();
        self.live.follow(pod, namespace, &read.resolved);

        let facts = CellFacts {
            host_ip,
            pod_ip: self.addresses.pod_ip(cell),
            size: driver.cell_size(pod),
        };
        let outcome = manifest::build(&entry.pod, &read.resolved, &self.config.pods, &facts);
        let now = self.clock.now();
        let mut manifest = outcome.manifest;
        manifest.generation = generation(entry.built.as_ref(), driver.report(pod).as_ref(), now);
        let pod_generation = entry.pod.metadata.generation.unwrap_or(0);
        let retry_at = outcome.retry.then(|| now + REBUILD);
        self.registry.built(
            pod,
            Built {
                manifest: manifest.generation,
                pod: pod_generation,
                previous_pod: entry.built.map_or(pod_generation, |built| built.pod),
                fingerprint: fingerprint(&entry.pod),
                renew_at: read.renew_at.into_iter().chain(retry_at).min(),
            },
        );
        for notice in &outcome.notices {
            self.events.record(&entry.pod, notice).await;
        }
        Ok(manifest)
    }

    async fn publish(&self, pod: &PodUid, report: &PodReport) -> Result<()> {
        if self.registry.get(pod).is_none() {
            return Ok(());
        }
        if let Some(runtime) = &report.runtime {
            let again_at = self.clock.now() + REBUILD;
            self.registry.observed(pod, runtime.observed_generation, again_at);
        }
        let writer = Arc::clone(self.writers().entry(pod.clone()).or_default());
        let mut written = writer.state.lock().await;
        if let Some(due) = written.due(report).filter(|due| *due > Instant::now()) {
            let is_sooner = written.due.is_none_or(|other| due < other);
            written.waiting = Some(report.clone());
            if is_sooner {
                written.due = Some(due);
                self.write_later(pod.clone(), Arc::clone(&writer), due);
            }
            return Ok(());
        }
        written.waiting = None;
        written.due = None;
        if matches!(report.phase, PodPhase::Succeeded | PodPhase::Failed) {
            writer.has_ended.store(true, Ordering::SeqCst);
        }
        self.keep_logs(pod, report).await;
        self.write(pod, report).await?;
        written.report = Some(report.clone());
        written.at = Some(Instant::now());
        Ok(())
    }

    async fn notify(&self, pod: &PodUid, notice: PodNotice) {
        if let Some(entry) = self.registry.get(pod) {
            self.events.record(&entry.pod, &notice).await;
        }
    }

    async fn presence(&self, pod: &PodRef) -> Result<Presence> {
        let api: Api<Pod> = Api::namespaced(self.client.get(), &pod.namespace);
        let live = api
            .get_opt(&pod.name)
            .await
            .map_err(|error| api_error("read pod", error))?;
        let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(pod.uid.as_str())) else {
            return Ok(Presence::Gone);
        };
        Ok(if live.metadata.deletion_timestamp.is_some() {
            Presence::Deleting
        } else if is_terminal(&live) {
            Presence::Ended
        } else {
            Presence::Wanted
        })
    }

    async fn release(&self, pod: &PodUid) -> Result<()> {
        let Some(entry) = self.registry.get(pod) else {
            return Ok(());
        };
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions {
                uid: Some(pod.to_string()),
                resource_version: None,
            });
        let name = entry.pod.metadata.name.as_deref().unwrap_or_default();
        match self.pods_of(&entry.pod).delete(name, &params).await {
            Ok(_) => Ok(()),
            // Gone already, or another pod has the name now.
            Err(error) if is_missing(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(api_error("release pod", error)),
        }
    }

    fn ended(&self) {
        // Source and driver would hold each other forever.
        self.attached().take();
        self.live.stop();
        self.tasks().abort_all();
    }
}

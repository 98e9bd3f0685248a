//! Hosts in memory: one per instance of a fake cloud, running what a script says.

mod host;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use kip_core::driver::Clock;
use kip_core::ids::{CellName, InstanceId, PodUid};
use kip_core::model::{InstanceNotice, InstancePhase, PodManifest, RuntimeReport};
use kip_core::provider::{UserData, tags};
use kip_core::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};
use kip_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::cloud::FakeCloud;
use crate::fault::Faults;
use crate::tripwire::Tripwire;
use host::Host;
pub use host::PodScript;

/// An operation of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostOp {
    /// `watch`.
    Watch,
    /// `deploy`.
    Deploy,
    /// `update`.
    Update,
    /// `stop`.
    Stop,
}

#[derive(Debug)]
struct Shared {
    cloud: FakeCloud,
    clock: Arc<dyn Clock>,
    hosts: Mutex<BTreeMap<InstanceId, Host>>,
    scripts: Mutex<BTreeMap<PodUid, PodScript>>,
    faults: Faults<HostOp>,
    tripwire: Tripwire,
    changed: Notify,
    /// Pods that two living instances were told to run at the same time.
    doubled: Mutex<Vec<PodUid>>,
}

/// Hosts in memory: one per instance of a fake cloud. Clones are the same hosts.
#[derive(Clone, Debug)]
pub struct FakeRuntime(Arc<Shared>);

impl FakeRuntime {
    /// Hosts on the instances of this cloud.
    pub fn new(cloud: FakeCloud, clock: Arc<dyn Clock>, tripwire: Tripwire) -> Self {
        Self(Arc::new(Shared {
            cloud,
            clock,
            hosts: Mutex::default(),
            scripts: Mutex::default(),
            faults: Faults::default(),
            tripwire,
            changed: Notify::new(),
            doubled: Mutex::default(),
        }))
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults to come.
    pub fn faults(&self) -> &Faults<HostOp> {
        &self.0.faults
    }

    /// What a pod does once a host has it. Default: it runs after 100 ms, for ever.
    pub fn script(&self, pod: &PodUid, script: PodScript) {
        let mut scripts = self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.insert(pod.clone(), script);
        self.0.changed.notify_waiters();
    }

    /// Makes the host on an instance unreachable, or reachable again. What it runs runs on.
    pub fn set_silent(&self, instance: &InstanceId, silent: bool) {
        self.hosts().entry(instance.clone()).or_default().is_silent = silent;
        self.0.changed.notify_waiters();
    }

    /// What the cloud tells on an instance itself from now on, in place of what it told before.
    pub fn announce(&self, instance: &InstanceId, notices: Vec<InstanceNotice>) {
        self.hosts().entry(instance.clone()).or_default().notices = notices;
        self.0.changed.notify_waiters();
    }

    /// Pods that two living instances were told to run at the same time: must stay empty.
    pub fn doubled(&self) -> Vec<PodUid> {
        self.0
            .doubled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often this pod was handed to a host that did not have it.
    pub fn starts(&self, pod: &PodUid) -> u32 {
        self.hosts()
            .values()
            .filter(|host| host.holds(pod))
            .map(|host| host.starts)
            .sum()
    }

    /// Updates a host took for this pod.
    pub fn updates(&self, pod: &PodUid) -> u32 {
        self.hosts()
            .values()
            .filter(|host| host.holds(pod))
            .map(|host| host.updates)
            .sum()
    }

    /// The grace period of the last stop of this pod.
    pub fn stop_grace(&self, pod: &PodUid) -> Option<Duration> {
        self.hosts()
            .values()
            .find(|host| host.holds(pod))
            .and_then(|host| host.grace)
    }

    /// The instance of a cell, if it is up and its host can be reached.
    fn reach(&self, cell: &CellEndpoint, operation: &'static str) -> Result<InstanceId> {
        let instances = self.0.cloud.instances();
        let instance = instances.into_iter().find(|instance| {
            instance.addresses.management == Some(cell.address)
                && instance.phase == InstancePhase::Running
                && is_named(&instance.tags, &cell.cell)
        });
        match instance {
            Some(instance) if !self.hosts().get(&instance.id).is_some_and(|host| host.is_silent) => {
                Ok(instance.id)
            }
            Some(_) | None => {
                let error = Error::new(ErrorKind::Unavailable, operation, "the host does not answer");
                Err(error.with_context("cell", &cell.cell))
            }
        }
    }

    async fn call<T>(
        &self,
        op: HostOp,
        name: &'static str,
        cell: &CellEndpoint,
        effect: impl FnOnce(&mut Host, &InstanceId, Timestamp) -> Result<T> + Send,
    ) -> Result<T> {
        self.0.tripwire.pass().await;
        let effect = || {
            let id = self.reach(cell, name)?;
            let now = self.0.clock.now();
            let mut hosts = self.hosts();
            effect(hosts.entry(id.clone()).or_default(), &id, now)
        };
        let result = self.0.faults.strike(op, name, effect).await;
        self.0.changed.notify_waiters();
        self.0.tripwire.pass().await;
        result
    }

    fn script_of(&self, pod: &PodUid) -> PodScript {
        let scripts = self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.get(pod).cloned().unwrap_or_default()
    }

    /// Notes when a pod is told to run where another living instance has been told already.
    fn check_doubled(&self, pod: &PodUid, here: &InstanceId) {
        let alive = self.0.cloud.instances();
        let is_doubled = self.hosts().iter().any(|(id, host)| {
            id != here && host.holds(pod) && alive.iter().any(|instance| instance.id == *id)
        });
        if is_doubled {
            self.0
                .doubled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(pod.clone());
        }
    }

    /// The report of a host now, and how long until it changes by itself.
    fn look(&self, cell: &CellEndpoint) -> Result<(RuntimeReport, Option<Duration>)> {
        let id = self.reach(cell, "watch")?;
        let now = self.0.clock.now();
        let mut hosts = self.hosts();
        let host = hosts.entry(id.clone()).or_default();
        let script = host.pod().map(|pod| self.script_of(&pod)).unwrap_or_default();
        Ok(host.report(&id, &script, now))
    }
}

fn is_named(tags: &BTreeMap<String, String>, cell: &CellName) -> bool {
    tags.get(tags::CELL).map(String::as_str) == Some(cell.as_str())
}

/// Agents report at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[async_trait]
impl PodRuntime for FakeRuntime {
    fn user_data(&self, request: &BootRequest) -> Result<UserData> {
        Ok(UserData::new(format!("{request:?}")))
    }

    async fn watch(
        &self,
        cell: &CellEndpoint,
        _patience: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>> {
        self.call(HostOp::Watch, "watch", cell, |_, _, _| Ok(())).await?;
        let (runtime, cell) = (self.clone(), cell.clone());
        let start = (runtime, cell, None::<RuntimeReport>, false);
        let reports = stream::unfold(start, |(runtime, cell, last, is_over)| async move {
            if is_over {
                return None;
            }
            let began = runtime.0.clock.now();
            let shared = Arc::clone(&runtime.0);
            loop {
                let changed = shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let (report, wait) = match runtime.look(&cell) {
                    Ok(seen) => seen,
                    Err(error) => return Some((Err(error), (runtime, cell, last, true))),
                };
                let silent_for =
                    Duration::try_from(runtime.0.clock.now().duration_since(began)).unwrap_or_default();
                if last.as_ref() != Some(&report) || silent_for >= HEARTBEAT {
                    return Some((Ok(report.clone()), (runtime, cell, Some(report), false)));
                }
                // Also looks again once a second: an instance that vanished in the cloud tells nobody.
                let wait = wait.unwrap_or(HEARTBEAT).min(Duration::from_secs(1));
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        });
        Ok(reports.boxed())
    }

    async fn deploy(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        let pod = manifest.pod.uid.clone();
        self.call(HostOp::Deploy, "deploy", cell, |host, id, now| {
            host.deploy(manifest, now)?;
            Ok(id.clone())
        })
        .await
        .map(|id| self.check_doubled(&pod, &id))
    }

    async fn update(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        self.call(HostOp::Update, "update", cell, |host, _, _| host.update(manifest))
            .await
    }

    async fn stop(&self, cell: &CellEndpoint, pod: &PodUid, grace: Duration, reason: &str) -> Result<()> {
        self.call(HostOp::Stop, "stop", cell, |host, _, now| {
            host.stop(pod, grace, reason, now)
        })
        .await
    }

    async fn logs(
        &self,
        _cell: &CellEndpoint,
        _pod: &PodUid,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        let line = format!("log of {}\n", request.container);
        Ok(stream::iter([Ok(line.into_bytes())]).boxed())
    }

    async fn open(&self, _cell: &CellEndpoint, _pod: &PodUid, _kind: StreamKind) -> Result<Upgrade> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "open",
            "fake hosts have no sessions",
        ))
    }

    async fn stats(&self, _cell: &CellEndpoint, _pod: &PodUid) -> Result<PodStats> {
        Ok(PodStats {
            at: self.0.clock.now(),
            containers: Vec::new(),
            network_rx_bytes: 0,
            network_tx_bytes: 0,
        })
    }
}

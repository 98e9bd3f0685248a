//! What happens to an instance on the machine: it boots, ends, is adopted and removed. Every step can be repeated.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;

use super::record::{self, Record, Stage};
use super::{Inner, absent, ended};
use crate::host::{Leftovers, Limits, Process};
use crate::machine::{self, Blueprint};
use crate::user_data;

/// How long the kernel may take to end everything in an instance.
const DEATH: Duration = Duration::from_secs(10);

impl Inner {
    /// Takes over what an earlier process left: finishes, watches or removes each instance, and removes what belongs to none.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<()> {
        Leftovers::remove_unowned(&self.names, &self.cgroups, &self.shorts()).await?;
        let records: Vec<Record> = self
            .locked()
            .instances
            .values()
            .map(|held| held.record.clone())
            .collect();
        for record in records {
            let (inner, id) = (Arc::clone(self), record.id.clone());
            let process = machine::running(&self.folder(&record.id))?;
            match (record.stage, process) {
                (Stage::Running, Some(process)) => self.watch(id, process, None),
                (Stage::Running, None) => {
                    tokio::spawn(async move { inner.end(&id, "it was not running any more").await });
                }
                (Stage::Booting, _) => {
                    tokio::spawn(async move { inner.boot_unattended(&id).await });
                }
                (Stage::Terminating, _) => {
                    tokio::spawn(async move {
                        if let Err(error) = inner.remove(&id, None).await {
                            tracing::error!(instance = %id, error = %error.chain(), "the instance is not removed yet");
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes an accepted instance run when nobody waits for the answer.
    pub(super) async fn boot_unattended(self: &Arc<Self>, id: &InstanceId) {
        match self.boot(id).await {
            // Terminated before it booted.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(instance = %id, error = %error.chain(), "the instance did not boot")
            }
            Ok(()) => {}
        }
    }

    /// Makes an accepted instance run. An instance that cannot is removed again before the error is returned.
    pub(super) async fn boot(self: &Arc<Self>, id: &InstanceId) -> Result<()> {
        let Some(busy) = self.busy(id) else {
            return Err(absent("launch", id));
        };
        let guard = busy.lock_owned().await;
        let Some(record) = self.record(id) else {
            return Err(absent("launch", id));
        };
        if record.stage != Stage::Booting {
            return Ok(());
        }
        let result = self.try_boot(&record).await;
        drop(guard);
        if let Err(error) = result {
            self.remove(id, Some(format!("it did not boot: {}", error.chain())))
                .await?;
            return Err(error);
        }
        Ok(())
    }

    async fn try_boot(self: &Arc<Self>, record: &Record) -> Result<()> {
        let (id, short) = (&record.id, record.short());
        let folder = self.folder(id);
        // What an interrupted attempt left is in the way. An ordinary first attempt finds nothing and loses no time.
        let group = self.group(record);
        self.kill(&group).await?;
        self.network.detach(short).await?;

        let addressing = record.addressing(&self.network);
        let network = async {
            {
                let _bridging = self.bridging.lock().await;
                self.network.ensure().await?;
            }
            self.network.attach(short, addressing).await
        };
        let this = Arc::clone(self);
        let built = record.clone();
        let build = async {
            tokio::task::spawn_blocking(move || this.build(&built))
                .await
                .map_err(|source| {
                    Error::new(ErrorKind::Unexpected, "build instance", "building broke off")
                        .with_source(source)
                })?
        };
        let (network, build) = tokio::join!(network, build);
        network.and(build)?;

        let netns = self.names.netns(short);
        let (child, process) = machine::start(
            &folder,
            &netns,
            &self.cgroups.entrances(&group),
            self.cgroups.leaf(&group).as_deref(),
        )
        .await?;
        self.set_stage(id, Stage::Running, None)?;
        self.watch(id.clone(), process, Some(child));
        tracing::info!(instance = %id, cell = record.cell, address = %addressing.management, "launched");
        Ok(())
    }

    fn build(&self, record: &Record) -> Result<()> {
        let offering = self.catalogue.find(&record.offering).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "launch",
                "this cloud does not sell that any more",
            )
            .with_context("offering", &record.offering)
        })?;
        let limits = Limits {
            cpu: offering.cpu,
            memory: offering.memory,
        };
        self.cgroups.create(&self.group(record), limits)?;
        let folder = self.folder(&record.id);
        let user_data = record::load_user_data(&folder).map_err(|source| {
            Error::new(ErrorKind::Unexpected, "launch", "cannot read its user-data").with_source(source)
        })?;
        let addressing = record.addressing(&self.network);
        machine::build(
            &folder,
            &Blueprint {
                hostname: record.cell.clone(),
                agent: self.agent.clone(),
                image: self.image.clone(),
                plugins: self.plugins.clone(),
                hierarchies: self.cgroups.hierarchies.clone(),
                addressing,
                prefix: self.network.subnet.prefix(),
                mtu: self.network.mtu,
                nameservers: self.nameservers.clone(),
                registries: self.config.registries.clone(),
                restrict_oom_score: self.restrict_oom_score,
                files: user_data::files(&user_data)?,
            },
        )
    }

    /// Waits for an instance's end in the background.
    fn watch(self: &Arc<Self>, id: InstanceId, process: Process, keeper: Option<tokio::process::Child>) {
        // Not kept alive by its instances: they outlive us.
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Err(error) = process.ended().await {
                tracing::warn!(instance = %id, %error, "cannot watch the instance");
                return;
            }
            if let Some(mut keeper) = keeper {
                // Collects it; how it ended says nothing.
                let _ = keeper.wait().await;
            }
            if let Some(inner) = inner.upgrade() {
                inner.end(&id, "its init has ended").await;
            }
        });
    }

    /// An instance ended, or is ended, without having been terminated by its owner.
    pub(super) async fn end(self: &Arc<Self>, id: &InstanceId, reason: &str) {
        let terminating = |record: Record| record.stage == Stage::Terminating;
        if self.record(id).is_none_or(terminating) {
            return;
        }
        tracing::warn!(instance = %id, reason, "the instance ended");
        if let Err(error) = self.remove(id, Some(reason.to_owned())).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(instance = %id, error = %error.chain(), "the instance is not removed yet");
        }
    }

    /// Removes an instance, wholly. With a reason it is still shown as ended for a while.
    ///
    /// # Errors
    /// `NotFound` when another call has removed it; `Unavailable` when it would not end yet: call again.
    pub(super) async fn remove(self: &Arc<Self>, id: &InstanceId, reason: Option<String>) -> Result<()> {
        let busy = self.busy(id).ok_or_else(|| absent("terminate", id))?;
        let _guard = busy.lock_owned().await;
        let Some(record) = self.record(id) else {
            return Err(absent("terminate", id));
        };
        if let Err(error) = self.set_stage(id, Stage::Terminating, reason.as_deref()) {
            // A full disk must not keep the instance that filled it: what is removed below frees it, and a record that
            // still says otherwise is of an instance without a process, which opening the cloud removes.
            tracing::warn!(instance = %id, error = %error.chain(), "its end could not be written down");
        }
        if let Some(init) = machine::running(&self.folder(id))? {
            let cannot = |source: io::Error| {
                Error::new(ErrorKind::Unexpected, "terminate", "cannot end its init").with_source(source)
            };
            init.kill().map_err(cannot)?;
            if !init.ended_within(DEATH).await.map_err(cannot)? {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "terminate",
                    "a process in it would not end yet",
                )
                .with_context("instance", id));
            }
        }
        let group = self.group(&record);
        self.kill(&group).await?;
        self.network.detach(record.short()).await?;
        let (this, folder) = (Arc::clone(self), self.folder(id));
        tokio::task::spawn_blocking(move || {
            this.cgroups.remove(&group)?;
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| {
            Error::new(
                ErrorKind::Unavailable,
                "terminate",
                "not all of it could be removed yet",
            )
            .with_context("instance", id)
            .with_source(source)
        })?;
        self.remove_network_after(id).await?;
        let mut state = self.locked();
        state.instances.remove(id);
        if reason.is_some() {
            let shown = ended(record.instance(&self.network), reason);
            state.ended.insert(id.clone(), (shown, Timestamp::now()));
        }
        tracing::info!(instance = %id, cell = record.cell, "gone");
        Ok(())
    }

    /// Removes the bridge with the last instance.
    async fn remove_network_after(&self, id: &InstanceId) -> Result<()> {
        if let Some(held) = self.locked().instances.get_mut(id) {
            held.removed = true;
        }
        let _bridging = self.bridging.lock().await;
        if self.locked().instances.values().all(|held| held.removed) {
            self.remove_network().await?;
        }
        Ok(())
    }

    pub(super) async fn remove_network(&self) -> Result<()> {
        self.network.remove().await?;
        self.cgroups.remove_parents(&self.names.cgroup());
        Ok(())
    }

    async fn kill(&self, group: &str) -> Result<()> {
        match self.cgroups.kill(group).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                ErrorKind::Unavailable,
                "terminate",
                "a process of the instance would not end yet",
            )
            .with_context("group", group)),
            Err(source) => Err(
                Error::new(ErrorKind::Unexpected, "terminate", "cannot end its processes")
                    .with_context("group", group)
                    .with_source(source),
            ),
        }
    }

    fn group(&self, record: &Record) -> String {
        format!("{}/{}", self.names.cgroup(), record.short())
    }

    fn busy(&self, id: &InstanceId) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.locked().instances.get(id).map(|held| Arc::clone(&held.busy))
    }

    fn record(&self, id: &InstanceId) -> Option<Record> {
        self.locked().instances.get(id).map(|held| held.record.clone())
    }

    fn set_stage(&self, id: &InstanceId, stage: Stage, reason: Option<&str>) -> Result<()> {
        let folder = self.folder(id);
        let mut state = self.locked();
        let Some(held) = state.instances.get_mut(id) else {
            return Err(absent("launch", id));
        };
        held.record.stage = stage;
        held.record.reason = reason.map(str::to_owned);
        match held.record.save(&folder) {
            // The folder goes last: without it there is nothing to write down any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound && stage == Stage::Terminating => Ok(()),
            result => result.map_err(|source| {
                Error::new(ErrorKind::Unexpected, "launch", "cannot write to the data folder")
                    .with_source(source)
            }),
        }
    }
}

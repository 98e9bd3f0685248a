//! Puts a driver together, and runs it.

use std::future::Future;
use std::sync::Arc;

use super::clock::{Clock, SteadyClock, SystemClock};
use super::config::DriverConfig;
use super::core::Core;
use super::handle::DriverHandle;
use super::source::PodSource;
use super::store::{CellStore, MemoryCellStore};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ClusterUid, NodeName};
use crate::machine::{Identity, StepConfig};
use crate::provider::CloudProvider;
use crate::runtime::PodRuntime;
use crate::sizing::{CheapestFit, InstanceSizer};

/// Where a driver begins: [`Kip::builder`].
#[derive(Debug)]
pub struct Kip;

impl Kip {
    /// A driver that launches with this provider.
    pub fn builder(provider: Arc<dyn CloudProvider>) -> KipBuilder {
        KipBuilder {
            provider,
            sizer: None,
            runtime: None,
            source: None,
            store: None,
            clock: None,
            config: DriverConfig::default(),
            identity: None,
            tune: None,
        }
    }
}

type Tune = Box<dyn FnOnce(&mut StepConfig) + Send>;

/// Puts a driver together. [`identity`](Self::identity), [`runtime`](Self::runtime) and [`source`](Self::source) are required.
#[must_use]
pub struct KipBuilder {
    provider: Arc<dyn CloudProvider>,
    sizer: Option<Box<dyn InstanceSizer>>,
    runtime: Option<Arc<dyn PodRuntime>>,
    source: Option<Arc<dyn PodSource>>,
    store: Option<Arc<dyn CellStore>>,
    clock: Option<Arc<dyn Clock>>,
    config: DriverConfig,
    identity: Option<Identity>,
    tune: Option<Tune>,
}

impl std::fmt::Debug for KipBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KipBuilder")
            .field("provider", &self.provider)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl KipBuilder {
    /// Who launches: part of every launch token, tag and record.
    pub fn identity(mut self, cluster: ClusterUid, node: NodeName) -> Self {
        self.identity = Some(Identity { cluster, node });
        self
    }

    /// The hosts that run the pods.
    pub fn runtime(mut self, runtime: Arc<dyn PodRuntime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Where pods come from and their status goes.
    pub fn source(mut self, source: Arc<dyn PodSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Who chooses offerings. Default [`CheapestFit`].
    pub fn sizer(mut self, sizer: Box<dyn InstanceSizer>) -> Self {
        self.sizer = Some(sizer);
        self
    }

    /// Where records are kept. Default in memory, which does not survive this process.
    pub fn store(mut self, store: Arc<dyn CellStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Where time is read. Default [`SystemClock`].
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How the driver works.
    pub fn config(mut self, config: DriverConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes the machine's deadlines and intervals.
    pub fn tune(mut self, tune: impl FnOnce(&mut StepConfig) + Send + 'static) -> Self {
        self.tune = Some(Box::new(tune));
        self
    }

    /// The driver, not running yet.
    ///
    /// # Errors
    /// `ConfigInvalid` naming everything that is missing.
    pub fn build(self) -> Result<Driver> {
        let (Some(identity), Some(runtime), Some(source)) = (&self.identity, &self.runtime, &self.source)
        else {
            let missing: Vec<&str> = [
                ("identity", self.identity.is_none()),
                ("runtime", self.runtime.is_none()),
                ("source", self.source.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "build driver",
                format!("not set on the builder: {}", missing.join(", ")),
            ));
        };
        let mut step = StepConfig::new(identity.clone());
        step.consistency = self.provider.info().capabilities.list_lag;
        if let Some(tune) = self.tune {
            tune(&mut step);
        }
        let core = Core::new(
            step,
            self.config,
            Arc::clone(runtime),
            Arc::clone(source),
            self.provider,
            self.store.unwrap_or_else(|| Arc::new(MemoryCellStore::new())),
            Arc::new(SteadyClock::over(
                self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            )),
            self.sizer.unwrap_or_else(|| Box::new(CheapestFit::default())),
        );
        Ok(Driver { core: Arc::new(core) })
    }
}

/// A driver that can be run once.
#[derive(Debug)]
pub struct Driver {
    core: Arc<Core>,
}

impl Driver {
    /// How others speak to it, also before it runs.
    pub fn handle(&self) -> DriverHandle {
        DriverHandle {
            core: Arc::clone(&self.core),
        }
    }

    /// Runs until `shutdown` is ready, then drains: no new launches, and launches under way store their ids. Workloads run on.
    ///
    /// Begins with recovery: records and instances are read, for as long as it takes, before any pod is acted on. Dropping the future
    /// is a crash: everything stops at once, and the next driver on the same store takes over.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        super::run::run(self.core, shutdown).await;
    }
}

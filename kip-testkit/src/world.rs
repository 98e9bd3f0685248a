//! A cloud, hosts, a record store and pods, and a driver that can be crashed and started again in their midst.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::Result;
use kip_core::driver::{Clock, Driver, DriverConfig, DriverHandle, Kip, TokioClock};
use kip_core::machine::StepConfig;
use kip_core::model::Offering;
use kip_core::plan::Policy;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cloud::FakeCloud;
use crate::runtime::FakeRuntime;
use crate::samples;
use crate::source::FakeSource;
use crate::store::FakeStore;
use crate::tripwire::Tripwire;

/// What the driver under test is changed by.
type Tune = fn(&mut StepConfig);

/// A cloud, hosts, a record store and pods that outlive the driver in their midst. Use within a tokio runtime whose clock is paused.
#[derive(Debug)]
pub struct World {
    /// The cloud.
    pub cloud: FakeCloud,
    /// The hosts.
    pub runtime: FakeRuntime,
    /// The record store.
    pub store: Arc<FakeStore>,
    /// The pods.
    pub source: FakeSource,
    /// Stops the world at a chosen effect.
    pub tripwire: Tripwire,
    /// Virtual time.
    pub clock: Arc<dyn Clock>,
    tune: Option<Tune>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    handle: DriverHandle,
    task: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
}

impl World {
    /// A world that sells the [sample offerings](samples::offerings), without a driver yet.
    pub fn new() -> Self {
        Self::selling(samples::offerings(), Duration::ZERO)
    }

    /// A world whose cloud sells these offerings and lags by so much.
    pub fn selling(offerings: Vec<Offering>, lag: Duration) -> Self {
        // 2026-01-01T00:00:00Z: any fixed time will do.
        let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(start));
        let tripwire = Tripwire::default();
        let cloud = FakeCloud::lagging(Arc::clone(&clock), offerings, lag).with_tripwire(tripwire.clone());
        Self {
            runtime: FakeRuntime::new(cloud.clone(), Arc::clone(&clock), tripwire.clone()),
            store: Arc::new(FakeStore::new(tripwire.clone())),
            source: FakeSource::new(tripwire.clone()),
            cloud,
            tripwire,
            clock,
            tune: None,
            running: None,
        }
    }

    /// Changes the machine's deadlines, for every driver started from now on.
    #[must_use]
    pub fn tuned(mut self, tune: Tune) -> Self {
        self.tune = Some(tune);
        self
    }

    /// Puts a driver together that is not running yet.
    ///
    /// # Errors
    /// As [`KipBuilder::build`](kip_core::driver::KipBuilder::build).
    pub fn driver(&self) -> Result<Driver> {
        let mut config = DriverConfig::default();
        config.policy = Policy::default().with_grace(Duration::from_secs(30));
        let mut builder = Kip::builder(Arc::new(self.cloud.clone()))
            .identity(samples::cluster(), samples::node())
            .runtime(Arc::new(self.runtime.clone()))
            .source(Arc::new(self.source.clone()))
            .store(Arc::clone(&self.store) as Arc<_>)
            .clock(Arc::clone(&self.clock))
            .config(config);
        if let Some(tune) = self.tune {
            builder = builder.tune(tune);
        }
        builder.build()
    }

    /// Starts a driver and tells it all pods.
    ///
    /// # Errors
    /// As [`driver`](Self::driver).
    pub fn start(&mut self) -> Result<DriverHandle> {
        let driver = self.driver()?;
        let handle = driver.handle();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(driver.run(async move {
            // A dropped sender is a shutdown as well.
            let _ = stopped.await;
        }));
        self.source.attach(handle.clone());
        self.running = Some(Running {
            handle: handle.clone(),
            task,
            shutdown,
        });
        Ok(handle)
    }

    /// The running driver.
    pub fn handle(&self) -> Option<&DriverHandle> {
        self.running.as_ref().map(|running| &running.handle)
    }

    /// Crashes the driver: nothing it was doing is completed.
    pub async fn crash(&mut self) {
        self.source.detach();
        if let Some(running) = self.running.take() {
            running.task.abort();
            // Cancelled, which is what was asked for.
            let _ = running.task.await;
        }
    }

    /// Shuts the driver down in order, and waits for it.
    pub async fn shut_down(&mut self) {
        self.source.detach();
        if let Some(running) = self.running.take() {
            let _ = running.shutdown.send(());
            let _ = running.task.await;
        }
    }

    /// Waits until something holds; false when it did not within `limit` of virtual time.
    pub async fn wait_until(&self, limit: Duration, holds: impl FnMut() -> bool) -> bool {
        self.source.wait_until(limit, holds).await
    }

    /// The time so long from now.
    pub fn in_future(&self, by: Duration) -> Timestamp {
        self.clock.now().checked_add(by).unwrap_or(Timestamp::MAX)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

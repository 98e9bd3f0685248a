//! The real driver on a cloud, with cells that nobody answers for.

use std::sync::Arc;

use anyhow::Result;
use kip_aws::AwsCloud;
use kip_core::driver::{DriverConfig, DriverHandle, Kip, MemoryCellStore};
use kip_testkit::{FakeSource, Tripwire, samples};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::driver::NoHosts;

/// A driver that runs on a cloud.
pub(crate) struct Running {
    pub(crate) source: FakeSource,
    pub(crate) handle: DriverHandle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(cloud: AwsCloud) -> Result<Self> {
        Self::start_with(cloud, DriverConfig::default())
    }

    pub(crate) fn start_with(cloud: AwsCloud, settings: DriverConfig) -> Result<Self> {
        let source = FakeSource::new(Tripwire::default());
        let driver = Kip::builder(Arc::new(cloud))
            .identity(samples::cluster(), samples::node())
            .runtime(Arc::new(NoHosts::default()))
            .source(Arc::new(source.clone()))
            .store(Arc::new(MemoryCellStore::default()))
            .config(settings)
            .build()?;
        let handle = driver.handle();
        source.attach(handle.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(driver.run(async {
            // A sender that is dropped means the same.
            let _ = stopped.await;
        }));
        Ok(Self {
            source,
            handle,
            stop,
            task,
        })
    }

    pub(crate) async fn end(self) -> Result<()> {
        drop(self.stop);
        Ok(self.task.await?)
    }
}

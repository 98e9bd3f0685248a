//! A cloud in memory: capacity, delays, lag and faults on demand, and a memory of every call.

mod inventory;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use kip_core::driver::Clock;
use kip_core::ids::{InstanceId, LaunchToken, OfferingId};
use kip_core::model::{Architecture, CapacityType, Instance, Offering};
use kip_core::provider::{
    Capabilities, CloudProvider, InterruptionFeed, InterruptionNotice, LaunchRequest, ListOptions,
    OfferingQuery, ProviderInfo,
};
use kip_core::{Error, ErrorKind, Result};
use tokio::sync::broadcast;

use crate::fault::Faults;
use crate::tripwire::Tripwire;
use inventory::Inventory;

/// An operation of the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `launch`.
    Launch,
    /// `terminate`.
    Terminate,
    /// `get`.
    Get,
    /// `list`.
    List,
    /// `offerings`.
    Offerings,
}

/// A call that reached the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudCall {
    /// `launch` with this token for this offering.
    Launch(LaunchToken, OfferingId),
    /// `terminate` of this instance.
    Terminate(InstanceId),
    /// `get` of this instance.
    Get(InstanceId),
    /// `list`.
    List,
}

#[derive(Debug)]
struct Shared {
    info: ProviderInfo,
    clock: Arc<dyn Clock>,
    inventory: Mutex<Inventory>,
    calls: Mutex<Vec<CloudCall>>,
    faults: Faults<Op>,
    tripwire: Tripwire,
    notices: broadcast::Sender<InterruptionNotice>,
}

/// A cloud in memory. Clones are the same cloud.
#[derive(Clone, Debug)]
pub struct FakeCloud(Arc<Shared>);

impl FakeCloud {
    /// A cloud that sells these offerings without limit, boots at once and is immediately consistent.
    pub fn new(clock: Arc<dyn Clock>, offerings: Vec<Offering>) -> Self {
        Self::lagging(clock, offerings, Duration::ZERO)
    }

    /// A cloud whose `list` and `get` show an instance only so long after its launch.
    pub fn lagging(clock: Arc<dyn Clock>, offerings: Vec<Offering>, lag: Duration) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.list_lag = lag;
        capabilities.interruption_notices = true;
        capabilities.architectures = BTreeSet::from([Architecture::Amd64, Architecture::Arm64]);
        capabilities.capacity_types = BTreeSet::from([CapacityType::OnDemand, CapacityType::Spot]);
        Self(Arc::new(Shared {
            info: ProviderInfo::new("fake", "fake-1", capabilities),
            inventory: Mutex::new(Inventory::new(offerings, lag)),
            clock,
            calls: Mutex::default(),
            faults: Faults::default(),
            tripwire: Tripwire::default(),
            notices: broadcast::channel(64).0,
        }))
    }

    /// The same cloud, stoppable at any call.
    #[must_use]
    pub fn with_tripwire(mut self, tripwire: Tripwire) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.tripwire = tripwire;
        }
        self
    }

    fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.0.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults to come.
    pub fn faults(&self) -> &Faults<Op> {
        &self.0.faults
    }

    /// How long an instance takes until it runs and has an address.
    pub fn set_boot_delay(&self, delay: Duration) {
        self.inventory().boot_delay = delay;
    }

    /// How long a terminated instance takes until it is gone.
    pub fn set_terminate_delay(&self, delay: Duration) {
        self.inventory().terminate_delay = delay;
    }

    /// How many more instances of an offering can be launched; None is without limit.
    pub fn set_capacity(&self, offering: &OfferingId, capacity: Option<u32>) {
        self.inventory().set_capacity(offering, capacity);
    }

    /// Changes what is sold.
    pub fn set_offerings(&self, offerings: Vec<Offering>) {
        self.inventory().offerings = offerings;
    }

    /// Makes an instance vanish, as a failing host would.
    pub fn kill(&self, instance: &InstanceId) {
        self.inventory().instances.remove(instance);
    }

    /// Puts an instance there that nobody here launched.
    pub fn plant(&self, instance: Instance) {
        self.inventory().plant(instance, self.0.clock.now());
    }

    /// Gives notice that an instance will be taken back.
    pub fn interrupt(&self, instance: &InstanceId, deadline: Timestamp, reason: &str) {
        self.announce(InterruptionNotice::new(instance.clone(), deadline, reason));
    }

    /// Gives any notice.
    pub fn announce(&self, notice: InterruptionNotice) {
        // Without a listener nobody hears it, as with a real cloud.
        let _ = self.0.notices.send(notice);
    }

    /// All instances that exist, whether `list` shows them or not.
    pub fn instances(&self) -> Vec<Instance> {
        self.inventory().all(self.0.clock.now())
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<CloudCall> {
        self.0
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many launch calls there were.
    pub fn launches(&self) -> usize {
        let calls = self.calls();
        calls
            .iter()
            .filter(|call| matches!(call, CloudCall::Launch(..)))
            .count()
    }

    /// How many instances were ever made.
    pub fn ever_made(&self) -> u64 {
        self.inventory().made
    }

    async fn call<T>(
        &self,
        op: Op,
        name: &'static str,
        call: Option<CloudCall>,
        effect: impl FnOnce(&mut Inventory, Timestamp) -> Result<T>,
    ) -> Result<T> {
        self.0.tripwire.pass().await;
        self.0
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(call);
        let result = self
            .0
            .faults
            .strike(op, name, || effect(&mut self.inventory(), self.0.clock.now()))
            .await;
        self.0.tripwire.pass().await;
        result
    }
}

impl fmt::Display for FakeCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fake cloud")
    }
}

#[async_trait]
impl CloudProvider for FakeCloud {
    fn info(&self) -> &ProviderInfo {
        &self.0.info
    }

    async fn launch(&self, request: LaunchRequest) -> Result<Instance> {
        let call = CloudCall::Launch(request.token.clone(), request.offering.clone());
        self.call(Op::Launch, "launch", Some(call), |inventory, now| {
            inventory.launch(request, now)
        })
        .await
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let call = CloudCall::Terminate(id.clone());
        self.call(Op::Terminate, "terminate", Some(call), |inventory, now| {
            inventory.terminate(id, now)
        })
        .await
    }

    async fn get(&self, id: &InstanceId) -> Result<Instance> {
        let call = CloudCall::Get(id.clone());
        self.call(Op::Get, "get", Some(call), |inventory, now| {
            inventory.get(id, now)
        })
        .await
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>> {
        let cloud = self.clone();
        let list = async move {
            let list = cloud
                .call(Op::List, "list", Some(CloudCall::List), |inventory, now| {
                    Ok(inventory.list(&options, now))
                })
                .await;
            match list {
                Ok(instances) => stream::iter(instances.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(list).flatten().boxed()
    }

    async fn offerings(&self, _query: &OfferingQuery) -> Result<Vec<Offering>> {
        self.call(Op::Offerings, "offerings", None, |inventory, _| {
            Ok(inventory.offerings.clone())
        })
        .await
    }

    fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
        Some(self)
    }
}

impl InterruptionFeed for FakeCloud {
    fn notices(&self) -> BoxStream<'static, Result<InterruptionNotice>> {
        let receiver = self.0.notices.subscribe();
        stream::unfold(receiver, |mut receiver| async {
            match receiver.recv().await {
                Ok(notice) => Some((Ok(notice), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let error = Error::new(ErrorKind::Unavailable, "notices", "some notices were missed");
                    Some((Err(error), receiver))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

//! The simulated cloud as one controller sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use kip_core::ids::InstanceId;
use kip_core::model::{CapacityType, Instance, Offering};
use kip_core::provider::{
    Capabilities, CloudProvider, InterruptionFeed, InterruptionNotice, LaunchRequest, ListOptions,
    OfferingQuery, ProviderInfo,
};
use kip_core::{Error, ErrorKind, Result};
use tokio::sync::broadcast;

use super::cloud;
use super::port::Port;
use super::scenario::{Fault, Harm, Op};
use super::world::World;

/// The cloud as one controller sees it.
#[derive(Clone, Debug)]
pub(super) struct SimCloud {
    port: Arc<Port>,
    info: ProviderInfo,
}

impl SimCloud {
    pub(super) fn new(port: Arc<Port>) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.list_lag = Duration::from_millis(port.world.scenario.world.list_lag_ms);
        capabilities.interruption_notices = true;
        capabilities.capacity_types = BTreeSet::from([CapacityType::OnDemand, CapacityType::Spot]);
        Self {
            port,
            info: ProviderInfo::new("sim", "sim-1", capabilities),
        }
    }
}

impl fmt::Display for SimCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated cloud")
    }
}

#[async_trait]
impl CloudProvider for SimCloud {
    fn info(&self) -> &ProviderInfo {
        &self.info
    }

    async fn launch(&self, request: LaunchRequest) -> Result<Instance> {
        let world = &self.port.world;
        let pod = request
            .tags
            .get(kip_core::provider::tags::POD_UID)
            .cloned()
            .unwrap_or_default();
        let subject = format!("{} as {} for {pod}", request.offering, request.cell);
        let (scenario, weak) = (Arc::clone(&world.scenario), Arc::clone(world));
        let effect = move |state: &mut super::world::State, at| {
            let before = state.cloud.made;
            let result = state.launch(&scenario, request, at);
            if let Ok(instance) = &result {
                state.note(at.ms, &format!("cloud: {} is {:?}", instance.id, instance.phase));
                if state.cloud.made != before {
                    begin_harms(&weak, &instance.id, state.cloud.made);
                }
            }
            result
        };
        world.call(&self.port, Op::Launch, subject, effect).await
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let scenario = Arc::clone(&self.port.world.scenario);
        let id = id.clone();
        let subject = id.to_string();
        let effect = move |state: &mut super::world::State, at| state.terminate(&scenario, &id, at);
        self.port
            .world
            .call(&self.port, Op::Terminate, subject, effect)
            .await
    }

    async fn get(&self, id: &InstanceId) -> Result<Instance> {
        let scenario = Arc::clone(&self.port.world.scenario);
        let id = id.clone();
        let subject = id.to_string();
        let effect = move |state: &mut super::world::State, at| state.get(&scenario, &id, at);
        self.port.world.call(&self.port, Op::Get, subject, effect).await
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>> {
        let port = Arc::clone(&self.port);
        let list = async move {
            let scenario = Arc::clone(&port.world.scenario);
            let token = options.tags.get(kip_core::provider::tags::TOKEN);
            let subject = token.map_or("all".to_owned(), |token| {
                token.get(..8).unwrap_or(token).to_owned()
            });
            let effect = move |state: &mut super::world::State, at| state.list(&scenario, &options, at);
            let result = port.world.call(&port, Op::List, subject, effect).await;
            match result {
                Ok(instances) => stream::iter(instances.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(list).flatten().boxed()
    }

    async fn offerings(&self, _query: &OfferingQuery) -> Result<Vec<Offering>> {
        let scenario = Arc::clone(&self.port.world.scenario);
        let effect = move |_: &mut super::world::State, _| Ok(cloud::offerings(&scenario.world));
        self.port
            .world
            .call(&self.port, Op::Offerings, String::new(), effect)
            .await
    }

    fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
        Some(self)
    }
}

impl InterruptionFeed for SimCloud {
    fn notices(&self) -> BoxStream<'static, Result<InterruptionNotice>> {
        let start = (self.port.world.notices.subscribe(), Arc::clone(&self.port));
        stream::unfold(start, |(mut receiver, port)| async move {
            let notice = receiver.recv().await;
            port.link().await;
            match notice {
                Ok(notice) => Some((Ok(notice), (receiver, port))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let error = Error::new(ErrorKind::Unavailable, "notices", "some notices were missed");
                    Some((Err(error), (receiver, port)))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

/// Starts what is to happen to a new instance.
fn begin_harms(world: &Arc<World>, id: &InstanceId, nth: u32) {
    for fault in &world.scenario.faults {
        if let Fault::Instance {
            nth: of,
            after_ms,
            harm,
        } = *fault
            && of == nth
        {
            let (world, id) = (Arc::clone(world), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                happen(&world, &id, harm).await;
            });
        }
    }
}

async fn happen(world: &Arc<World>, id: &InstanceId, harm: Harm) {
    let ms = world.ms();
    {
        let mut state = world.lock();
        if state.is_calm
            || !state
                .cloud
                .machines
                .get(id)
                .is_some_and(|machine| machine.is_alive(ms))
        {
            return;
        }
        match harm {
            Harm::Die { shown_ms } => {
                state.inject("instance died");
                state.note(ms, &format!("cloud: {id} dies"));
                state.kill(id, shown_ms, ms);
            }
            Harm::Silent { for_ms } => {
                state.inject("agent unreachable");
                state.note(ms, &format!("host: the agent on {id} cannot be reached"));
                // It runs on, so this is no harm: nobody may end it for that.
                if let Some(machine) = state.cloud.machines.get_mut(id) {
                    machine.host.silent_until = Some(for_ms.map_or(u64::MAX, |for_ms| ms + for_ms));
                }
            }
            Harm::LosePod => {
                state.inject("agent lost its pod");
                state.note(ms, &format!("host: {id} starts anew and has forgotten its pod"));
                if let Some(machine) = state.cloud.machines.get_mut(id) {
                    machine.is_harmed = true;
                    machine.host.lose_pod();
                }
            }
            Harm::Interrupt { .. } => {
                state.inject("interruption");
                if let Some(machine) = state.cloud.machines.get_mut(id) {
                    machine.is_harmed = true;
                }
            }
            Harm::StuckPending | Harm::SlowBoot { .. } => {}
        }
    }
    world.changed.notify_waiters();
    if let Harm::Interrupt { notice_ms } = harm {
        world.note(&format!("cloud: {id} will be taken back in {notice_ms} ms"));
        // Without a listener nobody hears it, as with a real cloud.
        let reason = "spot capacity is needed elsewhere";
        let _ = world.notices.send(InterruptionNotice::new(
            id.clone(),
            world.time(ms + notice_ms),
            reason,
        ));
        tokio::time::sleep(Duration::from_millis(notice_ms)).await;
        let ms = world.ms();
        let mut state = world.lock();
        state.note(ms, &format!("cloud: {id} is taken back"));
        state.kill(id, 0, ms);
        drop(state);
        world.changed.notify_waiters();
    }
    if let Harm::Silent { for_ms: Some(for_ms) } = harm {
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
        world.changed.notify_waiters();
    }
}

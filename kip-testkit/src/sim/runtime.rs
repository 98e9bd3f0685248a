//! The simulated hosts as one controller sees them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use kip_core::ids::{InstanceId, PodUid};
use kip_core::model::{PodManifest, RuntimeReport};
use kip_core::provider::{UserData, tags};
use kip_core::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};
use kip_core::{Error, ErrorKind, Result};

use super::port::Port;
use super::scenario::{Op, Work};
use super::world::{At, State, World};

/// Agents report at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The hosts as one controller sees them.
#[derive(Clone, Debug)]
pub(super) struct SimHosts {
    pub(super) port: Arc<Port>,
}

fn unreachable(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the host does not answer")
}

impl State {
    /// The instance of a cell, if its agent can be reached.
    fn reach(&self, world: &World, cell: &CellEndpoint, ms: u64) -> Option<InstanceId> {
        let agent_ms = world.scenario.world.agent_ms;
        let found = self.cloud.machines.iter().find(|(_, machine)| {
            machine.address() == cell.address
                && machine.is_up(ms)
                && ms >= machine.runs_at().saturating_add(agent_ms)
                && machine.tag(tags::CELL) == Some(cell.cell.as_str())
                && (self.is_calm || !machine.host.is_silent(ms))
        });
        found.map(|(id, _)| id.clone())
    }

    fn work_of(&self, world: &World, pod: &PodUid) -> Work {
        let plans = &world.scenario.pods;
        let plan = plans.iter().find(|plan| super::pods::uid(&plan.name) == *pod);
        plan.map_or(
            Work {
                starts_ms: 100,
                runs_ms: None,
                exit_code: 0,
                stops_ms: 100,
                waits_as: None,
            },
            |plan| plan.work.clone(),
        )
    }
}

impl SimHosts {
    async fn call<T: Send + 'static>(
        &self,
        op: Op,
        cell: &CellEndpoint,
        subject: String,
        effect: impl FnOnce(&World, &mut State, &InstanceId, At) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (world, cell) = (Arc::clone(&self.port.world), cell.clone());
        let name = super::world::operation(op);
        let effect = move |state: &mut State, at: At| {
            let id = state
                .reach(&world, &cell, at.ms)
                .ok_or_else(|| unreachable(name))?;
            effect(&world, state, &id, at)
        };
        self.port.world.call(&self.port, op, subject, effect).await
    }
}

#[async_trait]
impl PodRuntime for SimHosts {
    fn user_data(&self, request: &BootRequest) -> Result<UserData> {
        Ok(UserData::new(format!("{request:?}")))
    }

    async fn watch(
        &self,
        cell: &CellEndpoint,
        patience: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>> {
        let world = &self.port.world;
        let subject = format!("{} at {}", cell.cell, cell.address);
        world.call(&self.port, Op::Watch, subject, |_, _| Ok(())).await?;
        let began = world.ms();
        let give_up = began + u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        loop {
            self.port.link().await;
            let ms = world.ms();
            let wake = {
                let state = world.lock();
                if state.reach(world, cell, ms).is_some() {
                    break;
                }
                let agent_ms = world.scenario.world.agent_ms;
                let machine = state
                    .cloud
                    .machines
                    .values()
                    .find(|machine| machine.address() == cell.address);
                let up_at = machine.map_or(u64::MAX, |machine| machine.runs_at().saturating_add(agent_ms));
                if up_at > ms { up_at } else { ms + 2_000 }
            };
            if ms >= give_up {
                return Err(unreachable("watch"));
            }
            world.sleep_until(wake.min(give_up).min(ms + 20_000)).await;
        }
        let start = Follow {
            port: Arc::clone(&self.port),
            cell: cell.clone(),
            last: None,
            is_over: false,
        };
        Ok(stream::unfold(start, |mut follow| async move {
            let report = follow.next().await?;
            Some((report, follow))
        })
        .boxed())
    }

    async fn deploy(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        let manifest = manifest.clone();
        let subject = format!("{} on {}", manifest.pod.uid, cell.cell);
        self.call(Op::Deploy, cell, subject, move |world, state, id, at| {
            let uid = manifest.pod.uid.clone();
            let work = state.work_of(world, &uid);
            let Some(machine) = state.cloud.machines.get_mut(id) else {
                return Err(unreachable("deploy"));
            };
            if machine.host.deploy(&manifest, &work, at.now)? {
                state.judge_deploy(id, &uid, at);
            }
            Ok(())
        })
        .await
    }

    async fn update(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()> {
        let manifest = manifest.clone();
        let subject = format!("{} on {}", manifest.pod.uid, cell.cell);
        self.call(Op::Refresh, cell, subject, move |_, state, id, _| {
            match state.cloud.machines.get_mut(id) {
                Some(machine) => machine.host.refresh(&manifest),
                None => Err(unreachable("update")),
            }
        })
        .await
    }

    async fn stop(&self, cell: &CellEndpoint, pod: &PodUid, grace: Duration, reason: &str) -> Result<()> {
        let pod = pod.clone();
        let subject = format!("{pod} on {} ({reason}, {} ms)", cell.cell, grace.as_millis());
        let reason = reason.to_owned();
        self.call(Op::Stop, cell, subject, move |_, state, id, at| {
            match state.cloud.machines.get_mut(id) {
                Some(machine) => machine.host.stop(&pod, grace, &reason, at.now),
                None => Err(unreachable("stop")),
            }
        })
        .await
    }

    async fn logs(
        &self,
        _cell: &CellEndpoint,
        _pod: &PodUid,
        _request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        Ok(stream::empty().boxed())
    }

    async fn open(&self, _cell: &CellEndpoint, _pod: &PodUid, _kind: StreamKind) -> Result<Upgrade> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "open",
            "simulated hosts have no sessions",
        ))
    }

    async fn stats(&self, _cell: &CellEndpoint, _pod: &PodUid) -> Result<PodStats> {
        Ok(PodStats {
            at: self.port.world.now(),
            containers: Vec::new(),
            network_rx_bytes: 0,
            network_tx_bytes: 0,
        })
    }
}

/// A connection to an agent.
struct Follow {
    port: Arc<Port>,
    cell: CellEndpoint,
    last: Option<RuntimeReport>,
    is_over: bool,
}

impl Follow {
    /// The next report: when something changed, and now and then. An agent that falls silent says nothing; the connection to an
    /// instance that is gone breaks, or says nothing either, as connections do.
    async fn next(&mut self) -> Option<Result<RuntimeReport>> {
        if self.is_over {
            return None;
        }
        let world = Arc::clone(&self.port.world);
        let began = world.ms();
        loop {
            self.port.link().await;
            let changed = world.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let ms = world.ms();
            let mut limit = Duration::from_secs(3600);
            {
                let mut state = world.lock();
                if let Some(id) = state.reach(&world, &self.cell, ms) {
                    let now = world.time(ms);
                    let Some(machine) = state.cloud.machines.get(&id) else {
                        continue;
                    };
                    let (report, next) = machine.host.report(&id, now);
                    let is_due = Duration::from_millis(ms - began) >= HEARTBEAT;
                    if self.last.as_ref() != Some(&report) || is_due {
                        if report.finished
                            && !report.stopping
                            && let Some(pod) = machine.host.pod().cloned()
                        {
                            state.judge_heard_finish(self.port.life, &pod, ms);
                        }
                        self.last = Some(report.clone());
                        return Some(Ok(report));
                    }
                    let heartbeat = HEARTBEAT.saturating_sub(Duration::from_millis(ms - began));
                    limit = next
                        .unwrap_or(heartbeat)
                        .min(heartbeat)
                        .max(Duration::from_millis(1));
                } else {
                    let address = self.cell.address;
                    let is_there = state
                        .cloud
                        .machines
                        .values()
                        .any(|machine| machine.address() == address);
                    let breaks = u32::try_from(ms % 2).unwrap_or(0) == 0;
                    if !is_there && breaks {
                        self.is_over = true;
                        return Some(Err(unreachable("watch")));
                    }
                }
            }
            // A host that falls silent or comes back at a time of its own wakes nobody.
            let limit = limit.min(Duration::from_secs(30));
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(limit) => {}
            }
        }
    }
}

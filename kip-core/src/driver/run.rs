//! The life of a driver: recover, work, drain.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Repeat, within};
use super::core::{Core, Key};
use super::executor::next;
use super::{recovery, sweep};
use crate::ids::InstanceId;
use crate::machine::{Event, Phase};
use crate::model::{CapacityType, CellPhase, InstancePhase};

/// How long a pod's work may hold one of the workers; then it goes on beside them.
const HOLD: Duration = Duration::from_secs(1);

/// Ends all tasks when the driver ends, however it ends.
struct EndTasks(Arc<Core>);

impl Drop for EndTasks {
    fn drop(&mut self) {
        self.0.stop();
        self.0.tasks.abort_all();
        self.0.source.ended();
    }
}

pub(super) async fn run(core: Arc<Core>, shutdown: impl Future<Output = ()> + Send) {
    let _end = EndTasks(Arc::clone(&core));
    tokio::pin!(shutdown);
    core.tasks.spawn(refresh_forever(Arc::clone(&core)));
    let notices = tokio::select! {
        biased;
        notices = recovery::recover_all(&core) => notices,
        () = &mut shutdown => return,
    };
    for _ in 0..core.config.workers.max(1) {
        core.tasks.spawn(work_forever(Arc::clone(&core)));
    }
    core.tasks.spawn(wake_forever(Arc::clone(&core)));
    core.tasks.spawn(launch_forever(Arc::clone(&core)));
    core.tasks.spawn(wake_stranded_forever(Arc::clone(&core)));
    core.tasks.spawn(sweep::sweep_forever(Arc::clone(&core), notices));
    core.tasks.spawn(heed_interruptions(Arc::clone(&core)));
    shutdown.await;
    core.stop();
    core.launches.stop();
    tracing::info!("shutting down: waiting for launches under way to be recorded");
    let drained = async {
        core.tasks.calm().await;
        core.queue.idle().await;
        Ok(())
    };
    if let Err(error) = within(core.config.drain_timeout, "drain", drained).await {
        tracing::warn!(error = %error.chain(), "stopping all the same: records and tags let the next controller go on");
    }
}

async fn work_forever(core: Arc<Core>) {
    loop {
        let key = core.queue.pop().await;
        let task_core = Arc::clone(&core);
        let mut work = Box::pin(async move {
            task_core.work(&key).await;
            task_core.queue.done(&key);
        });
        // A pod whose record the store does not take goes on by itself: it must not keep a worker from all others.
        if tokio::time::timeout(HOLD, &mut work).await.is_err() {
            core.tasks.spawn(work);
        }
    }
}

async fn wake_forever(core: Arc<Core>) {
    loop {
        for key in core.timers.due(&*core.clock).await {
            core.deliver(&key, Event::Woke);
        }
    }
}

async fn launch_forever(core: Arc<Core>) {
    core.dispatch_launches().await;
}

/// Lets pods that wait for room look again when an offering that fits them opens.
async fn wake_stranded_forever(core: Arc<Core>) {
    loop {
        core.catalogue.opening(&*core.clock).await;
        core.wake_stranded();
    }
}

/// Keeps the offerings fresh: now and then, and soon when a pod found nothing.
async fn refresh_forever(core: Arc<Core>) {
    let mut repeat = Repeat::new(core.config.repeat);
    loop {
        match core.list_offerings().await {
            Ok(offerings) => {
                repeat = Repeat::new(core.config.repeat);
                if core.catalogue.refresh(offerings) {
                    core.deliver_where(&Event::OfferingsChanged, |state| state.phase() == Phase::Pending);
                }
            }
            Err(error) => {
                core.catalogue.failed(error.to_string());
                repeat.failed(&*core.clock, "refresh offerings", &error).await;
                continue;
            }
        }
        core.clock.sleep(core.config.offerings_min_interval).await;
        tokio::select! {
            biased;
            () = core.clock.sleep(core.config.offerings_interval) => {}
            () = core.catalogue.wanted.notified() => {}
        }
    }
}

/// Passes the cloud's notices on, where it gives any.
async fn heed_interruptions(core: Arc<Core>) {
    let mut repeat = Repeat::new(core.config.repeat);
    // What was announced before this controller listened is found out by recovery and by its machines.
    let mut was_deaf = false;
    loop {
        let Some(feed) = core.provider.interruptions() else {
            return;
        };
        let mut notices = feed.notices();
        if was_deaf {
            observe_spot(&core).await;
        }
        was_deaf = true;
        while let Some(notice) = next(&mut notices).await {
            match notice {
                Ok(notice) => {
                    repeat = Repeat::new(core.config.repeat);
                    core.heed_feed(&notice);
                }
                Err(error) => {
                    repeat
                        .failed(&*core.clock, "read interruption notices", &error)
                        .await;
                    observe_spot(&core).await;
                }
            }
        }
        // The stream ended; a moment later there may be a new one.
        core.clock.sleep(core.config.repeat.cap).await;
    }
}

/// Looks at all spot cells at once, after notices may have been missed: one listing, whatever their number. An instance that is being
/// taken back is treated as announced. One that is gone is not listed; those are the sweeps' to ask about.
async fn observe_spot(core: &Core) {
    let instances = match core.list_ours().await {
        Ok(instances) => instances,
        Err(error) => {
            tracing::warn!(error = %error.chain(), "interruptions may have been missed, and the instances cannot be listed");
            return;
        }
    };
    let mut spot: BTreeMap<InstanceId, (Key, u32)> = BTreeMap::new();
    for (key, slot) in &*core.slots() {
        if let (Some(record), Some(instance)) = (slot.state.record(), slot.state.instance())
            && record.offering.capacity_type == CapacityType::Spot
            && record.phase != CellPhase::Terminating
        {
            spot.insert(instance.clone(), (key.clone(), record.attempt));
        }
    }
    for instance in instances {
        let Some((key, attempt)) = spot.get(&instance.id) else {
            continue;
        };
        let event = if instance.phase == InstancePhase::Terminating {
            Event::Interrupted {
                instance: instance.id,
                deadline: core.clock.now(),
                reason: instance
                    .reason
                    .unwrap_or_else(|| "it is being terminated, and its notice was missed".into()),
            }
        } else {
            let (attempt, result) = (*attempt, Ok(instance));
            Event::Observed { attempt, result }
        };
        core.deliver(key, event);
    }
}

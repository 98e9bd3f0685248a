//! What all of the driver's tasks share: a state and an inbox per pod, and the loop that steps one pod.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::catalogue::Catalogue;
use super::clock::Clock;
use super::config::DriverConfig;
use super::executor::Tasks;
use super::governor::Governor;
use super::launch_queue::LaunchQueue;
use super::metrics::{Counters, DriverMetrics};
use super::notices::Noticed;
use super::queue::Queue;
use super::source::{PodIntent, PodSource};
use super::store::CellStore;
use super::timers::Timers;
use crate::ids::{PodRef, PodUid};
use crate::machine::{
    Action, Event, Phase, PodState, Stage, StepConfig, Wanted, after, elapsed, step_answer,
};
use crate::model::CellRecord;
use crate::provider::CloudProvider;
use crate::runtime::PodRuntime;
use crate::sizing::InstanceSizer;

/// What one machine is for: a pod, and so the pod's one record.
pub(super) type Key = PodUid;

/// One machine: its state, what it has not heard yet, and what the driver keeps beside it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: PodState,
    /// Each with the time at which it was asked for, or came if nobody asked: it may wait here for as long as the store does not answer.
    pub(super) inbox: VecDeque<(Timestamp, Event)>,
    /// The record as it was last stored, with the store's version; None when it never was, or was removed.
    pub(super) stored: Option<Arc<CellRecord>>,
    /// When the store was asked that last showed this record to stand; None when it was not asked since it was taken over.
    pub(super) confirmed_at: Option<Timestamp>,
    /// The state before the step that is being carried out: put back if what the step decided cannot be stored and is given up.
    pub(super) before: Option<PodState>,
    /// When the source last said that the pod is to run.
    pub(super) heard_at: Option<Timestamp>,
    /// A sweep saw the store's record differ from the one above: it is to be read again.
    pub(super) is_doubtful: bool,
    /// The tasks that follow agents, by attempt.
    pub(super) watches: BTreeMap<u32, AbortHandle>,
    /// What the cloud announced about its instance and its user was told.
    pub(super) noticed: BTreeSet<Noticed>,
    /// Whether a task publishes this pod's reports; it takes the newest until there is no newer one.
    pub(super) is_publishing: bool,
}

impl Slot {
    pub(super) fn new(state: PodState, stored: Option<Arc<CellRecord>>) -> Self {
        Self {
            state,
            inbox: VecDeque::new(),
            stored,
            confirmed_at: None,
            before: None,
            heard_at: None,
            is_doubtful: false,
            watches: BTreeMap::new(),
            noticed: BTreeSet::new(),
            is_publishing: false,
        }
    }
}

/// What all of the driver's tasks share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) step: StepConfig,
    pub(super) config: DriverConfig,
    pub(super) runtime: Arc<dyn PodRuntime>,
    pub(super) source: Arc<dyn PodSource>,
    pub(super) provider: Arc<dyn CloudProvider>,
    pub(super) store: Arc<dyn CellStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalogue: Catalogue,
    pub(super) counters: Counters,
    pub(super) queue: Queue<Key>,
    pub(super) timers: Timers<Key>,
    pub(super) tasks: Tasks,
    pub(super) governor: Governor,
    pub(super) launches: LaunchQueue,
    /// Ordered, so that whoever goes through all of them does so in the same order every time.
    slots: Mutex<BTreeMap<Key, Slot>>,
    /// Intents that came before recovery was done, in order; None once it was.
    early: Mutex<Option<Vec<(PodUid, PodIntent, Timestamp)>>>,
    is_synced: AtomicBool,
    is_stopping: AtomicBool,
    /// Woken when the driver begins to stop.
    pub(super) stopping: Notify,
    pub(super) sync_changed: Notify,
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the builder is the only caller")]
    pub(super) fn new(
        step: StepConfig,
        config: DriverConfig,
        runtime: Arc<dyn PodRuntime>,
        source: Arc<dyn PodSource>,
        provider: Arc<dyn CloudProvider>,
        store: Arc<dyn CellStore>,
        clock: Arc<dyn Clock>,
        sizer: Box<dyn InstanceSizer>,
    ) -> Self {
        Self {
            tasks: Tasks::new(),
            governor: Governor::new(&config.request_limits),
            launches: LaunchQueue::default(),
            catalogue: Catalogue::new(sizer, config.capacity),
            step,
            config,
            runtime,
            source,
            provider,
            store,
            clock,
            counters: Counters::default(),
            queue: Queue::new(),
            timers: Timers::new(),
            slots: Mutex::new(BTreeMap::new()),
            early: Mutex::new(Some(Vec::new())),
            is_synced: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            stopping: Notify::new(),
            sync_changed: Notify::new(),
        }
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        // `step` does not panic, and nothing else in these critical sections leaves a slot half changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn early(&self) -> MutexGuard<'_, Option<Vec<(PodUid, PodIntent, Timestamp)>>> {
        // A vector is valid whatever its user was doing.
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn intent(&self, pod: PodUid, intent: PodIntent) {
        if self.is_stopping() {
            return;
        }
        {
            let mut early = self.early();
            if let Some(early) = early.as_mut() {
                early.push((pod, intent, self.clock.now()));
                return;
            }
        }
        self.take_intent(pod, intent, self.clock.now());
    }

    /// Recovery is done: intents that came meanwhile are acted on, in order.
    pub(super) fn recovered(&self) {
        // Under the lock, so that an intent that comes right now is not acted on before an older one.
        let mut early = self.early();
        for (pod, intent, heard_at) in early.take().unwrap_or_default() {
            self.take_intent(pod, intent, heard_at);
        }
    }

    fn take_intent(&self, pod: PodUid, intent: PodIntent, heard_at: Timestamp) {
        let mut reference = None;
        let event = match intent {
            PodIntent::Run {
                demand,
                refresh,
                active_deadline_seconds,
                restartable,
                started_before,
            } => {
                reference = Some(demand.pod.clone());
                Event::Wanted {
                    wanted: Wanted::Run {
                        demand: Arc::from(demand),
                        active_deadline: active_deadline_seconds.map(std::time::Duration::from_secs),
                        restartable,
                    },
                    refresh,
                    started_before,
                }
            }
            PodIntent::Refuse {
                demand,
                reason,
                message,
            } => {
                reference = Some(demand.pod);
                wanted(Wanted::Refused { reason, message })
            }
            PodIntent::Delete { grace } => wanted(Wanted::Deleted {
                deadline: after(heard_at, grace),
            }),
            PodIntent::Gone => wanted(Wanted::Gone),
        };
        let key: Key = pod.clone();
        {
            let mut slots = self.slots();
            if !slots.contains_key(&key) {
                if matches!(
                    event,
                    Event::Wanted {
                        wanted: Wanted::Gone,
                        ..
                    }
                ) {
                    return; // Never known, or forgotten already.
                }
                let reference = reference.unwrap_or(PodRef {
                    uid: pod,
                    namespace: String::new(),
                    name: String::new(),
                });
                let state = PodState::new(reference, self.clock.now());
                slots.insert(key.clone(), Slot::new(state, None));
            }
            if let (
                Event::Wanted {
                    wanted: Wanted::Run { .. },
                    ..
                },
                Some(slot),
            ) = (&event, slots.get_mut(&key))
            {
                slot.heard_at = Some(heard_at);
            }
        }
        self.deliver(&key, event);
    }

    pub(super) fn synced(&self) {
        self.is_synced.store(true, Ordering::SeqCst);
        self.sync_changed.notify_one();
    }

    pub(super) fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::SeqCst)
    }

    pub(super) fn is_recovered(&self) -> bool {
        self.early().is_none()
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.stopping.notify_waiters();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub(super) fn read<T>(&self, pod: &PodUid, read: impl FnOnce(&PodState) -> T) -> Option<T> {
        self.slots().get(pod).map(|slot| read(&slot.state))
    }

    pub(super) fn snapshot<T>(&self, read: impl Fn(&PodState) -> T) -> Vec<T> {
        self.slots().values().map(|slot| read(&slot.state)).collect()
    }

    /// Has a pod's record read again, between two steps.
    pub(super) fn doubt(&self, key: &Key) {
        if let Some(slot) = self.slots().get_mut(key) {
            slot.is_doubtful = true;
        }
        self.queue.push(key.clone());
    }

    pub(super) fn metrics(&self) -> DriverMetrics {
        let mut metrics = self.counters.snapshot();
        for slot in self.slots().values() {
            *metrics.pods.entry(slot.state.phase()).or_default() += 1;
        }
        metrics.queue_depth = self.queue.len() as u64;
        metrics.governor_rates = self.governor.rates();
        let line = self.launches.length(self.clock.now());
        metrics.launch_queue_length = line.waiting as u64;
        metrics.launch_queue_oldest = line.oldest;
        metrics.launches_under_way = line.under_way as u64;
        let (offerings, quotas, zones) = self.catalogue.closed();
        metrics.offerings_closed = offerings as u64;
        metrics.quotas_closed = quotas as u64;
        metrics.zones_closed = zones as u64;
        metrics
    }

    /// Puts an event into a machine's inbox. Nothing happens when the machine was forgotten.
    pub(super) fn deliver(&self, key: &Key, event: Event) {
        self.deliver_answer(key, event, self.clock.now());
    }

    /// The same with an event that answers a question asked at this time.
    pub(super) fn deliver_answer(&self, key: &Key, event: Event, asked_at: Timestamp) {
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key) else {
                return;
            };
            // A report is always whole, so a newer one replaces an older one that was not read yet: the inbox stays short even while
            // the store does not answer.
            if let (Event::Reported { attempt, .. }, Some((_, Event::Reported { attempt: waiting, .. }))) =
                (&event, slot.inbox.back())
                && attempt == waiting
            {
                slot.inbox.pop_back();
            }
            slot.inbox.push_back((asked_at, event));
        }
        self.queue.push(key.clone());
    }

    /// Puts an event into every machine's inbox that `wants` it.
    pub(super) fn deliver_where(&self, event: &Event, wants: impl Fn(&PodState) -> bool) {
        let keys: Vec<Key> = {
            let slots = self.slots();
            let wanting = slots.iter().filter(|(_, slot)| wants(&slot.state));
            wanting.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            self.deliver(&key, event.clone());
        }
    }

    /// Steps one machine until its inbox is empty. The queue sees to it that nobody else does at the same time.
    pub(super) async fn work(self: &Arc<Self>, key: &Key) {
        loop {
            let is_doubtful = {
                let mut slots = self.slots();
                let slot = slots.get_mut(key);
                slot.is_some_and(|slot| std::mem::take(&mut slot.is_doubtful))
            };
            if is_doubtful {
                self.check(key).await;
                continue;
            }
            let Some(actions) = self.step_once(key) else {
                return;
            };
            for action in actions {
                if !self.execute(key, action).await {
                    break;
                }
            }
            if let Some(slot) = self.slots().get_mut(key) {
                slot.before = None;
            }
        }
    }

    fn step_once(&self, key: &Key) -> Option<Vec<Action>> {
        let now = self.clock.now();
        let mut slots = self.slots();
        let slot = slots.get_mut(key)?;
        let (asked_at, event) = slot.inbox.pop_front()?;
        let name = event.name();
        // The placeholder is never seen: the lock is held until the next state is in place.
        let placeholder = PodState::new(slot.state.pod.reference.clone(), now);
        let state = std::mem::replace(&mut slot.state, placeholder);
        // Only a first step out of waiting is ever put back; no other pays for a copy.
        slot.before = matches!(state.stage, Stage::Pending(_)).then(|| state.clone());
        let (before, was_running) = (state.phase(), state.pod.marks.running_at);
        let step = step_answer(&self.step, state, event, asked_at, now);
        slot.state = step.next;
        let after = slot.state.phase();
        let pod = &slot.state.pod.reference;
        if before != after {
            self.counters.transition(before, after);
            if has_instance(before) && !has_instance(after) && slot.state.pod.marks.running_at.is_none() {
                self.counters.never_ran();
            }
            tracing::info!(%pod, uid = %pod.uid, event = name, from = %before, to = %after, "pod moved");
        }
        let marks = &slot.state.pod.marks;
        if let (None, Some(running), Some(launched)) = (was_running, marks.running_at, marks.decided_at) {
            self.counters.running_after(elapsed(launched, running));
        }
        self.timers.set(key, step.wake_at);
        Some(step.actions)
    }
}

/// Whether an instance runs the pod in this phase, or is about to.
fn has_instance(phase: Phase) -> bool {
    match phase {
        Phase::Booting | Phase::Connecting | Phase::Deploying | Phase::Running | Phase::Draining => true,
        Phase::Pending | Phase::Launching | Phase::Terminating | Phase::BackingOff | Phase::Finished => false,
    }
}

fn wanted(wanted: Wanted) -> Event {
    Event::Wanted {
        wanted,
        refresh: false,
        started_before: false,
    }
}

//! The only place that starts tasks, and the only caller of the provider and of the hosts: each call is a task whose result comes
//! back as an event.

mod cloud;
mod launch;

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::clock::{Repeat, within};
use super::core::{Core, Key};
use super::fence::Standing;
use super::source::PodNotice;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, PodUid};
use crate::machine::{Action, Event, Failure, Notice, Phase, Wanted, project};
use crate::model::{CellPhase, PodPhase};
use crate::runtime::CellEndpoint;

/// The driver's tasks. All end with it.
#[derive(Debug)]
pub(super) struct Tasks {
    set: Mutex<JoinSet<()>>,
    /// Launch calls that were started and whose result was not delivered yet.
    critical: AtomicUsize,
    calm: Notify,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            set: Mutex::new(JoinSet::new()),
            critical: AtomicUsize::new(0),
            calm: Notify::new(),
        }
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A join set is valid whatever its user was doing.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(task)
    }

    /// Ends all tasks wherever they are.
    pub(super) fn abort_all(&self) {
        self.set().abort_all();
    }

    fn begin_critical(&self) {
        self.critical.fetch_add(1, Ordering::SeqCst);
    }

    fn end_critical(&self) {
        if self.critical.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.calm.notify_waiters();
        }
    }

    /// Waits until no launch is under way.
    pub(super) async fn calm(&self) {
        loop {
            let calm = self.calm.notified();
            tokio::pin!(calm);
            calm.as_mut().enable();
            if self.critical.load(Ordering::SeqCst) == 0 {
                return;
            }
            calm.await;
        }
    }
}

impl Core {
    /// Does one action: completes it if it is about the record, starts it otherwise. False if the actions after it must not be done.
    pub(super) async fn execute(self: &Arc<Self>, key: &Key, action: Action) -> bool {
        match action {
            #[cfg(kip_mutants)]
            Action::Save(_) if crate::mutants::is(crate::mutants::Mutant::SkipPersist) => {}
            Action::Save(record) => {
                if record.phase == CellPhase::Terminating {
                    // A launch that still waits for its turn must not be sent.
                    self.launches.withdraw(key);
                }
                return self.save(key, &record).await;
            }
            Action::Remove { cell } => return self.remove(key, &cell).await,
            Action::Place => self.place(key),
            Action::Launch(record) => self.launch(key, record),
            Action::Find { attempt, token } => {
                self.call(key, move |core| async move {
                    let result = core.find(&token).await.map_err(Failure::from);
                    Event::Found { attempt, result }
                });
            }
            Action::Observe { attempt, instance } => {
                self.call(key, move |core| async move {
                    let result = core.get(&instance).await.map_err(Failure::from);
                    Event::Observed { attempt, result }
                });
            }
            Action::Terminate { attempt, instance } => {
                self.call(key, move |core| async move {
                    let result = core.terminate(&instance).await.map_err(Failure::from);
                    Event::Terminated { attempt, result }
                });
            }
            Action::Connect {
                attempt,
                endpoint,
                patience,
            } => self.follow(key, attempt, endpoint, patience),
            Action::Disconnect { attempt } => {
                let mut slots = self.slots();
                if let Some(watch) = slots.get_mut(key).and_then(|slot| slot.watches.remove(&attempt)) {
                    watch.abort();
                }
            }
            Action::Deploy { attempt, endpoint } => {
                let pod = self.pod_of(key);
                self.call(key, move |core| async move {
                    let result = core.hand_over(pod, &endpoint, true).await.map_err(Failure::from);
                    Event::Deployed { attempt, result }
                });
            }
            Action::Update { attempt, endpoint } => {
                let pod = self.pod_of(key);
                self.call(key, move |core| async move {
                    let result = core.hand_over(pod, &endpoint, false).await.map_err(Failure::from);
                    Event::Updated { attempt, result }
                });
            }
            Action::Stop {
                attempt,
                endpoint,
                grace,
                reason,
            } => {
                let pod = self.pod_of(key);
                self.call(key, move |core| async move {
                    let result = match pod {
                        Some(pod) => {
                            let stop = core.runtime.stop(&endpoint, &pod, grace, reason);
                            within(core.config.call_timeout, "stop", stop).await
                        }
                        None => Ok(()),
                    };
                    Event::Stopped {
                        attempt,
                        result: result.map_err(Failure::from),
                    }
                });
            }
            Action::Publish => self.publish(key),
            Action::Notify(notice) => self.notify(key, notice),
            Action::Release => self.release(key),
            Action::Forget => self.forget(key),
            Action::Ignored(why) => tracing::debug!(?key, why, "event ignored"),
        }
        true
    }

    /// Starts a task whose event goes back to the machine.
    fn call<F>(self: &Arc<Self>, key: &Key, call: impl FnOnce(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let (core, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let asked_at = core.clock.now();
            let event = call(Arc::clone(&core)).await;
            core.deliver_answer(&key, event, asked_at);
        });
    }

    fn forget(&self, key: &Key) {
        let mut slots = self.slots();
        // A word of the source that is still in the inbox would otherwise be lost: a pod that ended counts as gone for those who sweep,
        // and may have been deleted since.
        let may_go = slots.get(key).is_some_and(|slot| {
            let is_gone = matches!(slot.state.pod.wanted, Wanted::Gone);
            let mut waiting = slot.inbox.iter().map(|(_, event)| event);
            waiting.all(|event| is_gone && !event.is_deletion())
        });
        if may_go {
            for watch in slots
                .remove(key)
                .into_iter()
                .flat_map(|slot| slot.watches.into_values())
            {
                watch.abort();
            }
            self.timers.set(key, None);
        }
    }

    fn place(self: &Arc<Self>, key: &Key) {
        let now = self.clock.now();
        let (event, advice) = {
            let slots = self.slots();
            let Some(slot) = slots.get(key) else { return };
            let event = self.catalogue.place(&slot.state, now);
            // Once a pod: a second attempt has nothing new to say.
            let is_first = slot.state.pod.attempt == 0 && matches!(event, Event::Placed(_));
            let advice = is_first.then(|| self.catalogue.advice(&slot.state, now));
            (event, advice.flatten())
        };
        if let Some(advice) = advice {
            self.counters.advised();
            let notice = Notice {
                warning: false,
                reason: "SizingAdvice".to_owned(),
                message: format!("Consider: {advice}."),
                container: String::new(),
            };
            self.notify(key, notice);
        }
        self.deliver(key, event);
    }

    /// Follows an agent's reports until the connection ends.
    fn follow(self: &Arc<Self>, key: &Key, attempt: u32, endpoint: CellEndpoint, patience: Duration) {
        let (core, own_key) = (Arc::clone(self), key.clone());
        let watch = self.tasks.spawn(async move {
            let error = core
                .follow_until_lost(&own_key, attempt, &endpoint, patience)
                .await;
            let failure = Failure::from(error);
            core.deliver(&own_key, Event::Disconnected { attempt, failure });
        });
        let mut slots = self.slots();
        let before = slots
            .get_mut(key)
            .and_then(|slot| slot.watches.insert(attempt, watch));
        if let Some(before) = before {
            before.abort();
        }
    }

    async fn follow_until_lost(
        self: &Arc<Self>,
        key: &Key,
        attempt: u32,
        endpoint: &CellEndpoint,
        patience: Duration,
    ) -> Error {
        let dial = self.runtime.watch(endpoint, patience);
        // The host's own bound, and a little: it may be in the middle of its last try.
        let limit = patience.saturating_add(Duration::from_secs(5));
        let mut stream = match within(limit, "watch", dial).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        loop {
            match next(&mut stream).await {
                Some(Ok(report)) => {
                    let report = Arc::new(report);
                    let heard = Arc::clone(&report);
                    self.deliver(key, Event::Reported { attempt, report });
                    // After the report: a pod that has ended by itself is not interrupted any more.
                    self.heed_report(key, attempt, &heard);
                }
                Some(Err(error)) => return error,
                None => {
                    return Error::new(ErrorKind::Unavailable, "watch", "the agent ended the connection")
                        .with_context("cell", &endpoint.cell);
                }
            }
        }
    }

    /// Fetches the manifest and gives it to the agent.
    async fn hand_over(&self, pod: Option<PodUid>, endpoint: &CellEndpoint, is_new: bool) -> Result<()> {
        let Some(pod) = pod else {
            return Err(Error::new(ErrorKind::NotFound, "deploy", "the pod was forgotten"));
        };
        let limit = self.config.call_timeout;
        let manifest = self.source.manifest(&pod, &endpoint.cell, Some(endpoint.address));
        let manifest = within(limit, "manifest", manifest).await?;
        // Meanwhile the pod may have been told to stop, and a host that never had it has forgotten that.
        if !self.is_held_by(&pod, &endpoint.cell) {
            let message = "the pod is not to run on this cell any more";
            return Err(
                Error::new(ErrorKind::NotFound, "deploy", message).with_context("cell", &endpoint.cell)
            );
        }
        if is_new {
            within(limit, "deploy", self.runtime.deploy(endpoint, &manifest)).await
        } else {
            within(limit, "update", self.runtime.update(endpoint, &manifest)).await
        }
    }

    /// Whether a pod's machine still wants it to run on this host.
    fn is_held_by(&self, pod: &PodUid, host: &CellName) -> bool {
        self.slots().get(pod).is_some_and(|slot| {
            matches!(slot.state.phase(), Phase::Deploying | Phase::Running)
                && slot.state.record().is_some_and(|record| record.host() == *host)
        })
    }

    fn pod_of(&self, key: &Key) -> Option<PodUid> {
        self.slots()
            .get(key)
            .map(|slot| slot.state.pod.reference.uid.clone())
    }

    /// Publishes the newest report, one at a time per pod, again and again until the source has it.
    pub(in crate::driver) fn publish(self: &Arc<Self>, key: &Key) {
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key) else { return };
            if std::mem::replace(&mut slot.is_publishing, true) {
                return; // The task takes the newest when it is done with the one before.
            }
        }
        let (core, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let mut repeat = Repeat::new(core.config.repeat);
            let mut published = 0;
            loop {
                let (pod, revision, report) = {
                    let mut slots = core.slots();
                    let Some(slot) = slots.get_mut(&key) else { return };
                    let pod = &slot.state.pod;
                    if pod.revision <= published || matches!(pod.wanted, Wanted::Gone) {
                        slot.is_publishing = false;
                        return;
                    }
                    (pod.reference.uid.clone(), pod.revision, project(&slot.state))
                };
                // An end cannot be taken back, so it is told only by whoever the store still follows.
                if matches!(report.phase, PodPhase::Succeeded | PodPhase::Failed) {
                    match core.standing(&key).await {
                        // Meanwhile another decision may have been followed: then this is not the end any more.
                        Ok(Standing::Same | Standing::Spoilt) if core.revision(&key) != Some(revision) => {
                            continue;
                        }
                        Ok(Standing::Same | Standing::Spoilt) => {}
                        // It is followed before the pod's next step, and what is said then follows from it.
                        Ok(Standing::Other) => {
                            repeat.pause(&*core.clock).await;
                            continue;
                        }
                        Err(error) => {
                            repeat.failed(&*core.clock, "read cell record", &error).await;
                            continue;
                        }
                    }
                }
                let publish = core.source.publish(&pod, &report);
                match within(core.config.call_timeout, "publish", publish).await {
                    Ok(()) => {
                        published = revision;
                        repeat = Repeat::new(core.config.repeat);
                        core.deliver(&key, Event::Published { revision });
                    }
                    // Refused for what it says: it will never be taken, a newer one may be. A refusal for who we are (a token being
                    // rotated, a role being edited) is repeated, or a pod's end could be lost for good.
                    Err(error) if matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::NotFound) => {
                        published = revision;
                        tracing::error!(%pod, error = %error.chain(), "the pod's status was refused");
                    }
                    Err(error) => repeat.failed(&*core.clock, "publish pod status", &error).await,
                }
            }
        });
    }

    fn revision(&self, key: &Key) -> Option<u64> {
        self.slots().get(key).map(|slot| slot.state.pod.revision)
    }

    fn notify(self: &Arc<Self>, key: &Key, notice: Notice) {
        let Some(pod) = self.pod_of(key) else { return };
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            let notice = PodNotice {
                warning: notice.warning,
                reason: notice.reason,
                message: notice.message,
                container: notice.container,
            };
            core.tell(&pod, notice).await;
        });
    }

    fn release(self: &Arc<Self>, key: &Key) {
        let Some(pod) = self.pod_of(key) else { return };
        let (core, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let mut repeat = Repeat::new(core.config.repeat);
            loop {
                match within(core.config.call_timeout, "release", core.source.release(&pod)).await {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) => repeat.failed(&*core.clock, "release pod", &error).await,
                }
                let is_gone = core
                    .slots()
                    .get(&key)
                    .is_none_or(|slot| matches!(slot.state.pod.wanted, Wanted::Gone));
                if is_gone {
                    break;
                }
            }
            core.deliver(&key, Event::Released);
        });
    }
}

/// The next item of a stream.
pub(super) async fn next<T>(stream: &mut BoxStream<'_, T>) -> Option<T> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

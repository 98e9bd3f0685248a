//! The shell around the decisions: one task owns all state, hears messages, decides, starts work, publishes the status.
//!
//! Nothing here blocks the task: work runs in tasks of its own and comes back as a [`Message`]. At most one piece of
//! work of each kind is under way ([`Op`]), so deciding again at any time is safe.

mod eventlog;
mod hear;
mod message;
mod observe;
mod ops;
mod outcomes;
mod probing;
mod publish;
mod requests;
mod saving;
mod sightings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::{InstanceNotice, Pod, StatusSnapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use message::{Message, Refusal};

use crate::credentials::CredentialProviders;
use crate::cri::Runtime;
use crate::host::Host;
use crate::pod::decide::{Plan, decide};
use crate::pod::model::{Action, Memory, Observed, Op, Stop, find};
use crate::pod::spec;
use crate::probes;
use crate::store::{Store, StoreError};
use crate::volumes::Folders;
use eventlog::EventLog;
use message::Done;
use publish::Publisher;
use saving::Saved;

/// Messages waiting for the loop; a sender waits when it is behind.
const QUEUE: usize = 256;
/// The safety net: everything is listed anew this often even if the runtime announces nothing.
const RELIST_EVERY: Duration = Duration::from_secs(30);
/// Pause before work that failed without a back-off of its own (stops, removals) is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What others may read of the reconciler's state.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) seen: Observed,
}

/// The way to the reconciler.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) status: watch::Receiver<Arc<StatusSnapshot>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
}

/// What the reconciler is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) runtime: Runtime,
    pub(crate) host: Host,
    pub(crate) state_dir: PathBuf,
    pub(crate) cgroup_parent: String,
    /// The only pod the agent takes; empty: any.
    pub(crate) pod_uid: String,
    /// Who gives logins for images that no pull secret covers.
    pub(crate) providers: CredentialProviders,
}

/// The desired pod and all that hangs on it.
#[derive(Debug)]
struct Held {
    pod: Arc<Pod>,
    folders: Folders,
    stop: Option<Stop>,
}

/// The state, owned by one task.
#[derive(Debug)]
pub(crate) struct Reconciler {
    setup: Setup,
    store: Store,
    messages: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    held: Option<Held>,
    /// Uids of pods that were told to stop before they were deployed.
    refused: BTreeSet<String>,
    seen: Observed,
    mem: Memory,
    events: EventLog,
    /// Why the runtime does not answer, when it does not.
    runtime_down: Option<String>,
    /// Whether the runtime has answered this process before: until then it is starting, not failing.
    runtime_was_up: bool,
    /// The runtime's state was listed since the agent started; before that nothing is decided.
    listed: bool,
    listing: bool,
    relist_at: Instant,
    /// Counts messages, to tell a listing from what was learnt after it began.
    count: u64,
    touched: HashMap<String, u64>,
    /// Exits announced for containers not seen yet.
    early: BTreeSet<String>,
    work: HashMap<Op, AbortHandle>,
    deadlines: HashMap<String, watch::Sender<Timestamp>>,
    probes: BTreeMap<(String, probes::Kind), AbortHandle>,
    /// What the cloud announces about the instance.
    notices: Vec<InstanceNotice>,
    publisher: Publisher,
    saved: Saved,
    released: bool,
    finished: bool,
}

impl Reconciler {
    /// Loads the stored pod. Nothing runs until [`run`](Self::run).
    pub(crate) fn new(setup: Setup, started_at: Timestamp) -> Result<(Self, Handle), StoreError> {
        let store = Store::open(&setup.state_dir)?;
        let record = store.load()?;
        let (messages, inbox) = mpsc::channel(QUEUE);
        let uid = record.pod.as_ref().map(|pod| pod.uid.as_str());
        let (publisher, status, view) = Publisher::new(&setup.host.boot_id, uid, started_at, record.marks);
        let handle = Handle {
            messages: messages.clone(),
            status,
            view,
        };
        let held = record.pod.clone().map(|pod| Held {
            folders: Folders::new(&setup.state_dir, &pod),
            pod: Arc::new(pod),
            stop: record.stop_deadline_ms.map(|deadline| Stop {
                deadline: Timestamp::from_millisecond(deadline).unwrap_or(Timestamp::UNIX_EPOCH),
                reason: record.stop_reason.clone(),
            }),
        });
        let mem = Memory {
            started: record.started.iter().cloned().collect(),
            ready: record.ready.iter().cloned().collect(),
            start_errors: record.start_errors.iter().cloned().collect(),
            ..Default::default()
        };
        let this = Self {
            store,
            messages,
            inbox,
            held,
            mem,
            events: EventLog::new(started_at),
            seen: Observed::default(),
            runtime_down: None,
            runtime_was_up: false,
            listed: false,
            listing: false,
            relist_at: Instant::now() + RELIST_EVERY,
            count: 0,
            touched: HashMap::new(),
            early: BTreeSet::new(),
            work: HashMap::new(),
            deadlines: HashMap::new(),
            probes: BTreeMap::new(),
            notices: Vec::new(),
            publisher,
            refused: record.refused.iter().cloned().collect(),
            saved: Saved::loaded(record),
            released: false,
            finished: false,
            setup,
        };
        Ok((this, handle))
    }

    /// Runs until dropped. Dropping it leaves every container as it is.
    pub(crate) async fn run(mut self) {
        loop {
            let now = Timestamp::now();
            let wake_at = self.turn(now);
            let publish_at = self.publish(now);
            let sleep = tokio::time::sleep_until(self.next_wake(now, wake_at, publish_at));
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.hear(message).await,
                    // The loop holds a sender itself, so this does not happen while it runs.
                    None => return,
                },
                () = sleep => {
                    if self.relist_at <= Instant::now() {
                        self.relist();
                    }
                    self.save_in_background();
                }
            }
            // What has come meanwhile is taken in before deciding again.
            while let Ok(message) = self.inbox.try_recv() {
                self.hear(message).await;
            }
        }
    }

    fn next_wake(&self, now: Timestamp, wake_at: Option<Timestamp>, publish_at: Option<Instant>) -> Instant {
        let decided = wake_at.map(|at| {
            let wait =
                Duration::try_from(at.duration_since(now).max(SignedDuration::ZERO)).unwrap_or_default();
            // One millisecond more, so that the moment has certainly passed when it is looked at again.
            Instant::now() + wait + Duration::from_millis(1)
        });
        [Some(self.relist_at), decided, publish_at, self.saved.again_at()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.relist_at)
    }

    /// Decides and starts work. Answers when to look again.
    fn turn(&mut self, now: Timestamp) -> Option<Timestamp> {
        let held = self.held.as_ref()?;
        if !self.listed {
            return None;
        }
        let Plan {
            actions,
            wake_at,
            finished,
        } = decide(&held.pod, held.stop.as_ref(), &self.seen, &self.mem, now);
        for action in actions {
            self.start(action, now);
        }
        self.finished = finished;
        if finished {
            self.release();
        }
        self.probe_containers();
        wake_at
    }

    fn context(&self) -> Option<ops::Context> {
        let held = self.held.as_ref()?;
        let cell = spec::Cell {
            cgroup_parent: self.setup.cgroup_parent.clone(),
            memory_bytes: self.setup.host.memory_bytes,
        };
        Some(ops::Context {
            runtime: self.setup.runtime.clone(),
            cell,
            folders: held.folders.clone(),
            pod: held.pod.clone(),
            messages: self.messages.clone(),
            providers: self.setup.providers.clone(),
        })
    }

    /// Starts one action's work.
    fn start(&mut self, action: Action, now: Timestamp) {
        let Some(context) = self.context() else { return };
        let op = action.op();
        let pod = context.pod.clone();
        match action {
            Action::PrepareVolumes => self.spawn(op, ops::prepare_volumes(context)),
            Action::RunSandbox { attempt } => self.spawn(op, ops::run_sandbox(context, attempt)),
            Action::EnsureImage { container } => {
                let Some((_, container)) = find(&pod, &container) else {
                    return;
                };
                self.spawn(op, ops::ensure_image(context, container.clone()));
            }
            Action::Start {
                container,
                attempt,
                backoff,
                sandbox_id,
            } => {
                let Some((_, container)) = find(&pod, &container) else {
                    return;
                };
                // An image is used for one start; the next looks again.
                let image = self.mem.images.remove(&container.name);
                let sandbox = self.seen.sandboxes.get(&sandbox_id).cloned();
                let (Some(crate::pod::model::ImageState::Ready(image)), Some(sandbox)) = (image, sandbox)
                else {
                    return;
                };
                self.mem.failures.remove(&container.name);
                let order = ops::StartOrder {
                    container: container.clone(),
                    attempt,
                    backoff,
                    sandbox,
                    image,
                };
                self.spawn(op, ops::start(context, order));
            }
            Action::Stop { id, deadline } => {
                let Some(run) = self.seen.runs.get(&id).cloned() else {
                    return;
                };
                let ip = self.pod_ip();
                let hook = find(&pod, &run.name).and_then(|(_, container)| container.pre_stop.clone());
                self.events.normal(
                    now,
                    &run.name,
                    "Killing",
                    format!("Stopping container {}", run.name),
                );
                let (sender, receiver) = watch::channel(deadline);
                self.deadlines.insert(id, sender);
                self.spawn(op, ops::stop(context, run, ip, hook, receiver));
            }
            Action::StopSandbox { id } => self.spawn(op, async move {
                let result = context
                    .runtime
                    .stop_sandbox(&id)
                    .await
                    .map_err(|error| error.to_string());
                Done::SandboxStopped {
                    id,
                    result: pause_after(result).await,
                }
            }),
            Action::RemoveContainer { id } => self.spawn(op, async move {
                let result = context
                    .runtime
                    .remove_container(&id)
                    .await
                    .map_err(|error| error.to_string());
                Done::ContainerRemoved {
                    id,
                    result: pause_after(result).await,
                }
            }),
            Action::RemoveSandbox { id } => self.spawn(op, async move {
                let result = context
                    .runtime
                    .remove_sandbox(&id)
                    .await
                    .map_err(|error| error.to_string());
                Done::SandboxRemoved {
                    id,
                    result: pause_after(result).await,
                }
            }),
        }
    }

    fn spawn(&mut self, op: Op, work: impl Future<Output = Done> + Send + 'static) {
        let messages = self.messages.clone();
        let key = op.clone();
        let task = tokio::spawn(async move {
            let done = work.await;
            if messages.send(Message::Done(key, done)).await.is_err() {
                tracing::debug!("the reconciler ended before the work it started");
            }
        });
        self.mem.busy.insert(op.clone());
        self.work.insert(op, task.abort_handle());
    }

    /// Ends work that is of no use any more.
    fn abandon(&mut self, op: &Op) {
        if let Some(task) = self.work.remove(op) {
            task.abort();
        }
        self.mem.busy.remove(op);
    }

    /// Lists the runtime's state beside the loop.
    fn relist(&mut self) {
        self.relist_at = Instant::now() + RELIST_EVERY;
        let Some(held) = &self.held else { return };
        if self.listing {
            return;
        }
        self.listing = true;
        let (runtime, pod, folders) = (self.setup.runtime.clone(), held.pod.clone(), held.folders.clone());
        let (messages, began) = (self.messages.clone(), self.count);
        tokio::spawn(async move {
            let result = observe::list(&runtime, &pod, &folders).await;
            if messages.send(Message::Listed { began, result }).await.is_err() {
                tracing::debug!("the reconciler ended before its listing");
            }
        });
    }

    /// Frees the pod's mounts and memory once it is over. Logs stay.
    fn release(&mut self) {
        let Some(held) = self.held.as_ref().filter(|_| !self.released) else {
            return;
        };
        self.released = true;
        let folders = held.folders.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = folders.release() {
                tracing::warn!(%error, "the finished pod's volumes could not be released");
            }
        });
    }

    fn pod_ip(&self) -> String {
        self.seen
            .sandbox()
            .and_then(|sandbox| sandbox.ips.first().cloned())
            .unwrap_or_default()
    }
}

/// A failed stop or removal is tried again after a pause, not at once.
async fn pause_after(result: Result<(), String>) -> Result<(), String> {
    if result.is_err() {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    result
}

//! The task that keeps things in order, and how it is told that something changed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::sweep::Sweeper;
use crate::api::Api;
use crate::environment::Owner;

/// How soon what could not be done is tried again, at first.
const SOON: Duration = Duration::from_secs(2);
/// After how many sweeps something that is left over is removed: an hour, where sweeps are ten minutes apart.
const SWEEPS: u32 = 6;

/// Keeps routes and removes what is left over until it is dropped.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    changed: Notify,
    /// Instances that have routes.
    with_routes: Mutex<BTreeSet<String>>,
}

impl Shared {
    fn with_routes(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.with_routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upkeep {
    /// Starts the task. Needs a tokio runtime.
    pub(crate) fn start(api: Api, owner: Owner, vpc: String, every: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let sweeper = Sweeper::new(api, owner, vpc);
        let task = tokio::spawn(run(Arc::clone(&shared), sweeper, every)).abort_handle();
        Self { shared, task }
    }

    /// An instance with routes was launched.
    pub(crate) fn launched(&self, instance: &str) {
        self.shared.with_routes().insert(instance.to_owned());
        self.shared.changed.notify_one();
    }

    /// An instance is being terminated.
    pub(crate) fn terminated(&self, instance: &str) {
        let had_routes = self.shared.with_routes().remove(instance);
        if had_routes {
            self.shared.changed.notify_one();
        }
    }
}

async fn run(shared: Arc<Shared>, mut sweeper: Sweeper, every: Duration) {
    let mut garbage = tokio::time::interval(every);
    garbage.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pause = every;
    loop {
        let is_time = tokio::select! {
            _ = garbage.tick() => true,
            () = shared.changed.notified() => {
                pause = SOON;
                false
            }
            () = tokio::time::sleep(pause) => false,
        };
        let is_done = match sweeper.routes().await {
            Ok((seen, is_done)) => {
                // What was launched a moment ago may not be shown yet.
                let mut known = shared.with_routes();
                let is_behind = known.iter().any(|id| !seen.contains(id));
                *known = if is_behind && pause < every {
                    known.union(&seen).cloned().collect()
                } else {
                    seen
                };
                is_done && !is_behind
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "cannot see to the cloud routes; it is tried again");
                false
            }
        };
        pause = if is_done { every } else { (pause * 2).min(every) };
        if is_time {
            sweeper.garbage(every * SWEEPS).await;
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upkeep")
    }
}

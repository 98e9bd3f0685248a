//! The task that keeps things in order, and how it is told that something changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::sweep::Sweeper;
use crate::api::Api;
use crate::environment::Owner;

/// How soon what could not be done is tried again, at first.
const SOON: Duration = Duration::from_secs(2);
/// How long EC2 may not show what was launched. AWS states no figure; well above what is seen.
const YOUNG: Duration = Duration::from_secs(60);
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
    /// Instances that have routes, and when they were launched or first seen.
    with_routes: Mutex<BTreeMap<String, Instant>>,
}

impl Shared {
    fn with_routes(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
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
        self.shared
            .with_routes()
            .insert(instance.to_owned(), Instant::now());
        self.shared.changed.notify_one();
    }

    /// An instance is being terminated.
    pub(crate) fn terminated(&self, instance: &str) {
        let had_routes = self.shared.with_routes().remove(instance).is_some();
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
            Ok((seen, is_done)) => is_done && !is_behind(&mut shared.with_routes(), &seen, Instant::now()),
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

/// Whether EC2 does not show yet what was launched a moment ago. Forgets what it will not show any more, and learns what it shows.
fn is_behind(known: &mut BTreeMap<String, Instant>, seen: &BTreeSet<String>, now: Instant) -> bool {
    known.retain(|id, launched| seen.contains(id) || now.duration_since(*launched) < YOUNG);
    let is_behind = known.keys().any(|id| !seen.contains(id));
    for id in seen {
        known.entry(id.clone()).or_insert(now);
    }
    is_behind
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The route of a cell that EC2 shows a moment late would come minutes late otherwise.
    #[test]
    fn a_launch_that_is_not_shown_yet_is_looked_for_again_and_not_for_ever() {
        let start = Instant::now();
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mut known = BTreeMap::from([("i-1".to_owned(), start)]);
        assert!(is_behind(&mut known, &set(&[]), start + YOUNG / 2));
        assert!(!is_behind(&mut known, &set(&["i-1", "i-2"]), start + YOUNG / 2));
        assert!(known.contains_key("i-2"), "another controller launched it");
        assert!(!is_behind(&mut known, &set(&["i-2"]), start + YOUNG));
        assert!(!known.contains_key("i-1"), "it is gone");
    }
}

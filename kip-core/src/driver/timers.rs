//! One wake-up time per key, and one task that waits for the earliest.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::clock::Clock;
use crate::machine::elapsed;

#[derive(Debug)]
struct Inner<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    by_key: HashMap<K, Timestamp>,
}

/// One wake-up time per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    inner: Mutex<Inner<K>>,
    earlier: Notify,
}

impl<K: Clone + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                by_time: BTreeSet::new(),
                by_key: HashMap::new(),
            }),
            earlier: Notify::new(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner<K>> {
        // Each critical section leaves both maps consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or clears the key's wake-up.
    pub(super) fn set(&self, key: &K, at: Option<Timestamp>) {
        let mut inner = self.locked();
        if inner.by_key.get(key).copied() == at {
            return;
        }
        if let Some(before) = inner.by_key.remove(key) {
            inner.by_time.remove(&(before, key.clone()));
        }
        let Some(at) = at else {
            return;
        };
        let is_first = inner.by_time.first().is_none_or(|(first, _)| at < *first);
        inner.by_key.insert(key.clone(), at);
        inner.by_time.insert((at, key.clone()));
        drop(inner);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Waits for the earliest wake-up, and takes all that are due.
    pub(super) async fn due(&self, clock: &dyn Clock) -> Vec<K> {
        loop {
            let now = clock.now();
            let wait = {
                let mut inner = self.locked();
                let mut due = Vec::new();
                while let Some((at, _)) = inner.by_time.first()
                    && *at <= now
                {
                    if let Some((_, key)) = inner.by_time.pop_first() {
                        inner.by_key.remove(&key);
                        due.push(key);
                    }
                }
                if !due.is_empty() {
                    return due;
                }
                inner.by_time.first().map(|(at, _)| elapsed(now, *at))
            };
            match wait {
                Some(wait) => tokio::select! {
                    biased;
                    () = clock.sleep(wait) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

//! A queue of keys: one key is worked on once at a time, many keys in parallel.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Queued,
    Running,
    /// Running, and to be queued again when done.
    RunningAgain,
}

#[derive(Debug)]
struct Inner<K> {
    order: VecDeque<K>,
    status: HashMap<K, Status>,
}

/// A queue of keys. It holds each key once, so it is no longer than there are pods.
#[derive(Debug)]
pub(super) struct Queue<K> {
    inner: Mutex<Inner<K>>,
    ready: Notify,
    idle: Notify,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                order: VecDeque::new(),
                status: HashMap::new(),
            }),
            ready: Notify::new(),
            idle: Notify::new(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner<K>> {
        // Each critical section leaves the maps consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the key to be worked on, now or once more after the present work on it.
    pub(super) fn push(&self, key: K) {
        let mut inner = self.locked();
        match inner.status.get_mut(&key) {
            Some(Status::Queued | Status::RunningAgain) => return,
            Some(status @ Status::Running) => {
                *status = Status::RunningAgain;
                return;
            }
            None => {
                inner.status.insert(key.clone(), Status::Queued);
                inner.order.push_back(key);
            }
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// The next key. [`done`](Self::done) must follow.
    pub(super) async fn pop(&self) -> K {
        loop {
            {
                let mut inner = self.locked();
                if let Some(key) = inner.order.pop_front() {
                    inner.status.insert(key.clone(), Status::Running);
                    if !inner.order.is_empty() {
                        // A stored wake-up is only one, however often it was asked for: pass it on.
                        self.ready.notify_one();
                    }
                    return key;
                }
            }
            self.ready.notified().await;
        }
    }

    /// The work on a key is done.
    pub(super) fn done(&self, key: &K) {
        let mut inner = self.locked();
        if inner.status.get(key) == Some(&Status::RunningAgain) {
            inner.status.insert(key.clone(), Status::Queued);
            inner.order.push_back(key.clone());
            drop(inner);
            self.ready.notify_one();
            return;
        }
        inner.status.remove(key);
        let is_idle = inner.status.is_empty();
        drop(inner);
        if is_idle {
            self.idle.notify_waiters();
        }
    }

    /// Keys that wait or are worked on.
    pub(super) fn len(&self) -> usize {
        self.locked().status.len()
    }

    /// Waits until no key waits or is worked on.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_key_pushed_while_it_is_worked_on_runs_once_more_or_its_event_would_be_lost() {
        let queue = Queue::new();
        queue.push("a");
        queue.push("a");
        assert_eq!(queue.pop().await, "a");
        queue.push("a");
        queue.push("a");
        assert_eq!(queue.len(), 1, "not handed out a second time meanwhile");
        queue.done(&"a");
        assert_eq!(queue.pop().await, "a");
        queue.done(&"a");
        queue.idle().await;
    }

    #[tokio::test]
    async fn many_keys_wake_many_workers_or_a_burst_would_be_served_by_one() {
        let queue = Arc::new(Queue::new());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.pop().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for key in 0..4 {
            queue.push(key);
        }
        let mut seen = Vec::new();
        for worker in workers {
            seen.push(worker.await.expect("worker ends"));
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}

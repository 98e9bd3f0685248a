//! Stops the world at a chosen effect, as a crash would.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts moments just before and just after effects; at a chosen one the caller never gets on, and whoever waits in
/// [`tripped`](Self::tripped) is told to crash it.
#[derive(Clone, Debug, Default)]
pub struct Tripwire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    passed: AtomicU64,
    at: AtomicU64,
    tripped: Notify,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            passed: AtomicU64::new(0),
            at: AtomicU64::new(u64::MAX),
            tripped: Notify::new(),
        }
    }
}

impl Tripwire {
    /// Trips at the moment with this number, counted from now and from 0.
    pub fn set(&self, moment: u64) {
        self.0.passed.store(0, Ordering::SeqCst);
        self.0.at.store(moment, Ordering::SeqCst);
    }

    /// Does not trip any more.
    pub fn disarm(&self) {
        self.0.at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Waits until it trips.
    pub async fn tripped(&self) {
        self.0.tripped.notified().await;
    }

    /// One moment passes.
    pub(crate) async fn pass(&self) {
        let moment = self.0.passed.fetch_add(1, Ordering::SeqCst);
        let at = self.0.at.load(Ordering::SeqCst);
        if at != u64::MAX && moment >= at {
            self.0.tripped.notify_one();
            pending::<()>().await;
        }
    }
}

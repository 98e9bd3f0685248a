//! A controller's connection to its world: where it is crashed, cut off, and told a time of its own.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kip_core::driver::Clock;
use tokio::sync::Notify;

use super::world::World;

/// The connection of one life of a controller.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) world: Arc<World>,
    /// Which life it is, from 1.
    pub(super) life: u32,
    /// What traces call it.
    pub(super) name: String,
    is_dead: AtomicBool,
    is_cut: AtomicBool,
    /// Moments left until it crashes; negative is never.
    moments: AtomicI64,
    /// It has reached the moment at which it is to crash.
    pub(super) tripped: Notify,
    skew_ms: AtomicI64,
}

impl Port {
    pub(super) fn new(world: Arc<World>, life: u32, skew_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            world,
            life,
            name: format!("kip-{life}"),
            is_dead: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            moments: AtomicI64::new(-1),
            tripped: Notify::new(),
            skew_ms: AtomicI64::new(skew_ms),
        })
    }

    /// A moment just before or just after a call: here it may crash.
    pub(super) async fn pass(&self) {
        if self.moments.load(Ordering::SeqCst) >= 0 && self.moments.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.is_dead.store(true, Ordering::SeqCst);
            self.tripped.notify_one();
        }
        self.link().await;
    }

    /// Waits while it is cut off; for ever when it is dead.
    pub(super) async fn link(&self) {
        loop {
            let changed = self.world.links.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_dead() {
                pending::<()>().await;
            }
            if !self.is_cut() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Nothing it does has an effect any more.
    pub(super) fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
        self.world.links.notify_waiters();
    }

    /// Lets it crash after so many more moments.
    pub(super) fn arm(&self, moments: u32) {
        self.moments.store(i64::from(moments), Ordering::SeqCst);
    }

    pub(super) fn disarm(&self) {
        self.moments.store(-1, Ordering::SeqCst);
    }

    pub(super) fn jump(&self, by_ms: i64) {
        self.skew_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

/// The controller's own clock: may be wrong, and may jump.
#[derive(Clone, Debug)]
pub(super) struct PortClock(pub(super) Arc<Port>);

#[async_trait]
impl Clock for PortClock {
    fn now(&self) -> Timestamp {
        let skew = SignedDuration::from_millis(self.0.skew_ms.load(Ordering::SeqCst));
        self.0.world.now().checked_add(skew).unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        // As the system clock does: it may jump, so the time is looked at again now and then.
        tokio::time::sleep(duration.min(Duration::from_secs(60))).await;
    }
}

//! Tell watchers that something changed, in the order in which they began to wait.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Says when something changed. Ask first, read what changed then, wait last: so no change is missed.
///
/// Not a `watch` channel: those spread their receivers at random, and two runs of one test would wake them in two orders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Notify>);

impl Changes {
    /// Completes at the first change after this call.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.0).notified_owned()
    }

    pub(super) fn tell(&self) {
        self.0.notify_waiters();
    }
}

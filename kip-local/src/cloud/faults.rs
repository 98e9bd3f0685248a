//! Faults on demand: a cloud that fails when it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kip_core::error::{Error, ErrorKind};

/// Makes the local cloud misbehave. Clones share their state; everything can be set while the cloud is in use.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    refusals: VecDeque<ErrorKind>,
    lost_replies: u32,
    delay: Duration,
}

impl Faults {
    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        // Each critical section leaves the state consistent, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` launches fail with `kind` and have no effect.
    pub fn fail_launches(&self, count: usize, kind: ErrorKind) {
        self.locked().refusals.extend(std::iter::repeat_n(kind, count));
    }

    /// The next `count` launches that succeed answer with a timeout although they took effect.
    pub fn lose_replies(&self, count: u32) {
        self.locked().lost_replies += count;
    }

    /// Every launch takes so much longer from now on.
    pub fn delay_launches(&self, delay: Duration) {
        self.locked().delay = delay;
    }

    /// No more faults.
    pub fn clear(&self) {
        *self.locked() = State::default();
    }

    pub(super) fn delay(&self) -> Duration {
        self.locked().delay
    }

    pub(super) fn refusal(&self) -> Option<Error> {
        let kind = self.locked().refusals.pop_front()?;
        Some(Error::new(kind, "launch", "a fault that was asked for"))
    }

    pub(super) fn lost_reply(&self) -> Option<Error> {
        let mut state = self.locked();
        state.lost_replies = state.lost_replies.checked_sub(1)?;
        Some(Error::new(
            ErrorKind::Timeout,
            "launch",
            "a lost reply that was asked for",
        ))
    }
}

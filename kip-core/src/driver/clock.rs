//! The only place that reads time and sleeps.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Backoff;

/// Where the driver reads time: once when it is built. From then on it counts by the machine's steady clock, so a wall clock that is set
/// forward or back moves none of its deadlines.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Waits. May wait less than asked for; callers look at the time again.
    async fn sleep(&self, duration: Duration);
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        // A wall clock can jump: after a minute at most the time is looked at again.
        tokio::time::sleep(duration.min(Duration::from_secs(60))).await;
    }
}

/// Time as tokio's timers see it, from a given start: follows `tokio::time::pause` and `advance`, so tests run in virtual time.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Timestamp,
    anchor: Instant,
}

impl TokioClock {
    /// A clock that shows `start` now. Call within a tokio runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            anchor: Instant::now(),
        }
    }
}

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start
            .checked_add(self.anchor.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Another clock's time as it was at the beginning, and steady from then on.
#[derive(Debug)]
pub(super) struct SteadyClock {
    inner: Arc<dyn Clock>,
    begin: Timestamp,
    anchor: Instant,
}

impl SteadyClock {
    /// Begins with what `inner` shows now, and waits as it does.
    pub(super) fn over(inner: Arc<dyn Clock>) -> Self {
        Self {
            begin: inner.now(),
            anchor: Instant::now(),
            inner,
        }
    }
}

#[async_trait]
impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.begin
            .checked_add(self.anchor.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }
}

/// Bounds a call: without an answer in time it is [`ErrorKind::Timeout`].
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            operation,
            format!("no answer within {} s", limit.as_secs()),
        )),
    }
}

/// Counts failures in a row of something that is repeated for as long as it takes, and waits in between.
#[derive(Debug)]
pub(super) struct Repeat {
    curve: Backoff,
    failures: u32,
}

impl Repeat {
    pub(super) fn new(curve: Backoff) -> Self {
        Self { curve, failures: 0 }
    }

    /// Notes a failure, warns about it from the third on, and waits.
    pub(super) async fn failed(&mut self, clock: &dyn Clock, what: &'static str, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= 3 {
            tracing::warn!(what, failures = self.failures, error = %error.chain(), "failed, will try again");
        } else {
            tracing::debug!(what, failures = self.failures, error = %error.chain(), "failed, will try again");
        }
        clock.sleep(self.curve.delay(self.failures)).await;
    }

    /// Waits as after a failure, of something that is none.
    pub(super) async fn pause(&mut self, clock: &dyn Clock) {
        self.failures = self.failures.saturating_add(1);
        clock.sleep(self.curve.delay(self.failures)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Jumping(std::sync::Mutex<Timestamp>);

    #[async_trait]
    impl Clock for Jumping {
        fn now(&self) -> Timestamp {
            *self.0.lock().expect("not poisoned")
        }

        async fn sleep(&self, duration: Duration) {
            tokio::time::sleep(duration).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_set_back_by_an_hour_does_not_hold_back_a_terminate_for_an_hour() {
        let begin = Timestamp::UNIX_EPOCH + Duration::from_secs(7200);
        let wall = Arc::new(Jumping(std::sync::Mutex::new(begin)));
        let steady = SteadyClock::over(Arc::clone(&wall) as Arc<dyn Clock>);
        *wall.0.lock().expect("not poisoned") = Timestamp::UNIX_EPOCH;
        steady.sleep(Duration::from_secs(5)).await;
        assert_eq!(steady.now(), begin + Duration::from_secs(5));
    }
}

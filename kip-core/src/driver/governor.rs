//! One governor for all calls to the provider: whoever is throttled, everybody of that class waits, and nobody else.

mod bucket;
mod limit;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use bucket::Bucket;
pub(super) use bucket::Turn;
pub use limit::{RequestLimit, RequestLimits};

use super::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::machine::elapsed;

/// What a call is for. Each class has a rate of its own: reads spend nothing that a launch needs, and terminates, which end costs, wait
/// for neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Launch,
    Terminate,
    Read,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::Launch, Self::Terminate, Self::Read];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Terminate => "terminate",
            Self::Read => "read",
        }
    }
}

/// Lets calls to the provider through as fast as it has been seen to take them. What it decides is in [`Bucket`].
#[derive(Debug, Default)]
pub(super) struct Governor {
    launch: Lane,
    terminate: Lane,
    read: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    bucket: Mutex<Bucket>,
    /// Whoever holds it is the next to go; the others stand behind it in the order in which they came.
    door: tokio::sync::Mutex<()>,
}

impl Lane {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Whatever a bucket was in the middle of, it is a bucket.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Governor {
    /// A governor that starts with what the operator allows.
    pub(super) fn new(limits: &RequestLimits) -> Self {
        let lane = |limit| Lane {
            bucket: Mutex::new(Bucket::new(limit)),
            ..Lane::default()
        };
        Self {
            launch: lane(limits.launch),
            terminate: lane(limits.terminate),
            read: lane(limits.read),
        }
    }

    const fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Launch => &self.launch,
            Class::Terminate => &self.terminate,
            Class::Read => &self.read,
        }
    }

    /// Takes a turn, or says when to ask again.
    pub(super) fn ask(&self, class: Class, now: Timestamp) -> Turn {
        self.lane(class).bucket().ask(now)
    }

    /// Learns from an answer.
    pub(super) fn answered(&self, class: Class, began: Timestamp, now: Timestamp, error: Option<&Error>) {
        let refused = error.filter(|error| error.kind() == ErrorKind::RateLimited);
        let refused = refused.map(|error| match error.retry() {
            Retry::After(hint) => hint,
            Retry::Never | Retry::Elsewhere | Retry::OtherZone | Retry::Spent => None,
        });
        self.lane(class).bucket().answered(began, now, refused);
    }

    /// Calls per second by class, where there is a limit.
    pub(super) fn rates(&self) -> BTreeMap<&'static str, f64> {
        let rate = |class: Class| Some((class.as_str(), self.lane(class).bucket().rate()?));
        Class::ALL.into_iter().filter_map(rate).collect()
    }

    /// Makes a call, which bounds itself, in its turn. A call the provider throttles is made once more, behind the pause all of its class make; then the answer
    /// is given back.
    ///
    /// # Errors
    /// The call's own; `RateLimited` without having called when no turn came within `limit`.
    ///
    /// # Cancellation
    /// As of the call itself; a turn that is not used is lost.
    pub(super) async fn call<T, F>(
        &self,
        class: Class,
        op: &'static str,
        clock: &dyn Clock,
        limit: Duration,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut is_repeated = false;
        loop {
            self.turn(class, op, clock, limit).await?;
            let began = clock.now();
            let result = call().await;
            self.answered(class, began, clock.now(), result.as_ref().err());
            let is_throttled = matches!(&result, Err(error) if error.kind() == ErrorKind::RateLimited);
            if !is_throttled || std::mem::replace(&mut is_repeated, true) {
                return result;
            }
        }
    }

    async fn turn(&self, class: Class, op: &'static str, clock: &dyn Clock, limit: Duration) -> Result<()> {
        let lane = self.lane(class);
        let began = clock.now();
        let wait = async {
            let _first = lane.door.lock().await;
            loop {
                let turn = lane.bucket().ask(clock.now());
                match turn {
                    Turn::Go => return,
                    Turn::Wait(until) => clock.sleep(elapsed(clock.now(), until)).await,
                }
            }
        };
        if tokio::time::timeout(limit, wait).await.is_ok() {
            return Ok(());
        }
        let waited = elapsed(began, clock.now()).as_secs();
        let message = format!("not sent: the provider throttles, and no turn came within {waited} s");
        Err(Error::new(ErrorKind::RateLimited, op, message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::driver::clock::TokioClock;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(TokioClock::starting_at(
            Timestamp::from_second(1_767_225_600).unwrap(),
        ))
    }

    fn throttled(hint: u64) -> Error {
        let error = Error::new(ErrorKind::RateLimited, "x", "too many");
        error.with_retry(Retry::After(Some(Duration::from_secs(hint))))
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_throttled_call_is_made_once_more_after_the_hint_and_then_given_back() {
        let (governor, clock, calls) = (Governor::default(), clock(), AtomicU32::new(0));
        let began = clock.now();
        let result: Result<()> = governor
            .call(Class::Read, "list", &*clock, LIMIT, || async {
                calls.fetch_add(1, Ordering::SeqCst);
                Err(throttled(5))
            })
            .await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::RateLimited);
        assert_eq!(calls.load(Ordering::SeqCst), 2, "not multiplied");
        assert_eq!(elapsed(began, clock.now()).as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_callers_of_a_throttled_class_share_one_pause_and_other_classes_none() {
        let (governor, clock) = (Arc::new(Governor::default()), clock());
        let calls = Arc::new(AtomicU32::new(0));
        governor.answered(Class::Read, clock.now(), clock.now(), Some(&throttled(10)));
        let readers: Vec<_> = (0..100)
            .map(|_| {
                let (governor, clock, calls) =
                    (Arc::clone(&governor), Arc::clone(&clock), Arc::clone(&calls));
                tokio::spawn(async move {
                    let call = || async {
                        calls.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    };
                    governor.call(Class::Read, "get", &*clock, LIMIT, call).await
                })
            })
            .collect();
        let began = clock.now();
        for class in [Class::Terminate, Class::Launch] {
            let done = governor
                .call(class, "x", &*clock, LIMIT, || async { Ok(()) })
                .await;
            assert!(done.is_ok());
        }
        assert_eq!(
            elapsed(began, clock.now()),
            Duration::ZERO,
            "terminates are not starved by reads"
        );
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 0, "during the pause");
        let mut answered = 0;
        for reader in readers {
            match reader.await.unwrap() {
                Ok(()) => answered += 1,
                Err(error) => assert_eq!(
                    error.kind(),
                    ErrorKind::RateLimited,
                    "a bounded wait still answers"
                ),
            }
        }
        assert!(answered >= 20, "{answered}");
        assert!(elapsed(began, clock.now()) <= Duration::from_secs(61));
    }
}

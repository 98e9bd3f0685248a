//! How long a broken watch waits before it is tried again.

use std::time::Duration;

use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::DefaultBackoff;

/// First wait.
const FIRST: Duration = Duration::from_millis(800);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A watch that went well for so long begins with the first wait again.
const CALM: Duration = Duration::from_secs(120);

/// Waits between the tries of a watch: doubling from 0.8 s to 30 s, with jitter so that many controllers do not come back at once, or
/// without, so that a test plays the same way each time.
pub(crate) enum WatchBackoff {
    /// As client-go does it.
    Jittered(DefaultBackoff),
    /// The same curve, exactly.
    Steady(ResetTimerBackoff<Doubling>),
}

impl WatchBackoff {
    pub(crate) fn new(jitter: bool) -> Self {
        if jitter {
            Self::Jittered(DefaultBackoff::default())
        } else {
            Self::Steady(ResetTimerBackoff::new(Doubling(FIRST), CALM))
        }
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self {
            Self::Jittered(backoff) => backoff.next(),
            Self::Steady(backoff) => backoff.next(),
        }
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        match self {
            Self::Jittered(backoff) => backoff.reset(),
            Self::Steady(backoff) => backoff.reset(),
        }
    }
}

/// The next wait; it doubles each time.
pub(crate) struct Doubling(Duration);

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        Some(wait)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_watch_neither_hammers_the_api_nor_stays_away_for_minutes() {
        let mut backoff = WatchBackoff::new(false);
        let waits: Vec<u128> = backoff.by_ref().take(8).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        tokio::time::advance(CALM + FIRST).await;
        assert_eq!(backoff.next(), Some(FIRST));
    }
}

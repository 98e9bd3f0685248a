//! Growing delays, as a pure function of how often something failed.

use std::time::Duration;

use jiff::Timestamp;

/// A delay that doubles with each failure, from `base` up to `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// The largest delay.
    pub cap: Duration,
}

impl Backoff {
    /// From `base` up to `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The delay after the given number of failures; 0 and 1 give the base.
    pub fn delay(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The same, spread by up to a fifth either way so that many pods that failed together do not return together. `seed` decides
    /// where in the range, so the answer stays a pure function.
    pub fn spread(self, failures: u32, seed: u64) -> Duration {
        let delay = self.delay(failures);
        // SplitMix64's finalizer: neighbouring seeds give unrelated values.
        let mut x = seed.wrapping_add(u64::from(failures).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        // 800 to 1200 thousandths; the remainder fits u32.
        let thousandths = 800 + u32::try_from(x % 401).unwrap_or(0);
        delay.saturating_mul(thousandths) / 1000
    }
}

/// `at` plus `delay`, or the end of time.
pub(crate) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Time from one moment to a later one; zero when clocks disagree about the order.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

    #[test]
    fn it_doubles_and_is_capped_or_a_broken_cloud_is_hammered() {
        let seconds: Vec<u64> = (0..9).map(|n| CURVE.delay(n).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(CURVE.delay(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn the_spread_stays_within_a_fifth_and_differs_between_pods() {
        let delays: Vec<Duration> = (0..50).map(|seed| CURVE.spread(3, seed)).collect();
        assert!(delays.iter().all(|d| (16_000..=24_000).contains(&d.as_millis())));
        assert!(delays.iter().collect::<std::collections::BTreeSet<_>>().len() > 25);
        assert_eq!(CURVE.spread(3, 7), CURVE.spread(3, 7));
    }
}

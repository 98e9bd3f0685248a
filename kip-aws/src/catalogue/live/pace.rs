//! When a part is asked for next. Pure.

use std::time::Duration;

/// How long after the first failure it is asked again.
const FIRST: Duration = Duration::from_secs(30);

/// How often a part is asked for, and how often it failed in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    period: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, failures: 0 }
    }

    /// How long to wait after an answer. `random` is from 0 to 1 and takes up to a tenth off, so that controllers that were started together
    /// do not ask together for ever. After a failure half a minute, doubled by each further one, never longer than after an answer.
    pub(super) fn next(&mut self, succeeded: bool, random: f64) -> Duration {
        let wait = if succeeded {
            self.failures = 0;
            self.period
        } else {
            self.failures = self.failures.saturating_add(1);
            let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
            FIRST.saturating_mul(doubled).min(self.period)
        };
        // What is no number takes nothing off.
        let part = if random > 0.0 { random.min(1.0) } else { 0.0 };
        wait.mul_f64(1.0 - 0.1 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_that_fails_is_asked_for_sooner_and_ever_less_often() {
        let mut pace = Pace::new(Duration::from_secs(600));
        let mut seconds = |succeeded| pace.next(succeeded, 0.0).as_secs();
        assert_eq!(seconds(true), 600);
        let waits: Vec<u64> = (0..7).map(|_| seconds(false)).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(seconds(true), 600);
        assert_eq!(seconds(false), 30, "an answer makes up for the failures before");
    }

    proptest! {
        /// A wait of nothing would be a storm of calls.
        #[test]
        fn a_wait_is_never_far_from_what_it_should_be(period in 1u64..100_000, random in proptest::num::f64::ANY, failures in 0u32..80) {
            let period = Duration::from_secs(period);
            let mut pace = Pace::new(period);
            for _ in 0..failures {
                let wait = pace.next(false, random);
                prop_assert!(wait >= FIRST.min(period).mul_f64(0.9) && wait <= period);
            }
            let wait = pace.next(true, random);
            prop_assert!(wait >= period.mul_f64(0.9) && wait <= period);
        }
    }
}

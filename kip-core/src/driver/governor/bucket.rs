//! How fast one class of calls may go: learned from what the provider refuses. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::limit::RequestLimit;
use crate::machine::after;

/// When a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Turn {
    /// Now; a token was taken.
    Go,
    /// Not before this time. Ask again then.
    Wait(Timestamp),
}

/// What a rate is cut to when calls are refused.
const CUT: f64 = 0.7;
/// Calls per second that a rate grows by in each second of calls that are answered: so much, and so much of itself.
const GROWTH: (f64, f64) = (0.05, 0.01);
/// The slowest rate, in calls per second: five seconds between calls still find out when it is over.
const SLOWEST: f64 = 0.2;
/// A rate above this limits nothing a controller does.
const FASTEST: f64 = 1000.0;
/// The pause after a refusal without a hint, doubled with each in a row.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, whatever the hint.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long without a refusal there is no limit any more.
const FORGET: Duration = Duration::from_secs(600);
/// Over which the rate of calls is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// A token bucket whose rate is learned: unlimited, or as fast as the operator allows, until the provider refuses a call, then cut to less
/// than what was sent, then growing slowly until the next refusal.
#[derive(Clone, Debug, Default)]
pub(in crate::driver) struct Bucket {
    rate: Option<f64>,
    /// What the operator allows.
    limit: Option<RequestLimit>,
    tokens: f64,
    filled_at: Option<Timestamp>,
    paused_until: Option<Timestamp>,
    /// When the rate was cut last: calls that began before do not cut it again.
    cut_at: Option<Timestamp>,
    /// Refusals in a row.
    refusals: u32,
    /// When the calls of the last moment began.
    sent: VecDeque<Timestamp>,
}

impl Bucket {
    /// A full bucket.
    pub(in crate::driver) fn new(limit: Option<RequestLimit>) -> Self {
        let limit = limit.filter(RequestLimit::is_limit);
        Self {
            limit,
            tokens: limit.map_or(0.0, |limit| limit.burst.max(1.0)),
            ..Self::default()
        }
    }

    /// Takes a token, or says when to ask again.
    pub(in crate::driver) fn ask(&mut self, now: Timestamp) -> Turn {
        if let Some(until) = self.paused_until {
            let remains = until.duration_since(now);
            // More than the longest pause is left only of a clock that has gone back.
            if remains.is_positive() && remains.unsigned_abs() <= LONGEST_PAUSE {
                return Turn::Wait(until);
            }
            self.paused_until = None;
            self.filled_at = Some(now);
            self.tokens = 1.0;
        }
        if self
            .cut_at
            .is_some_and(|at| now.duration_since(at).unsigned_abs() >= FORGET)
        {
            self.rate = None;
            self.cut_at = None;
        }
        if let Some(rate) = self.rate() {
            self.fill(rate, now);
            if self.tokens < 1.0 {
                let missing = Duration::from_secs_f64((1.0 - self.tokens) / rate);
                // A little more, so that rounding never makes it ask twice for the same token.
                return Turn::Wait(after(now, missing + Duration::from_millis(1)));
            }
            self.tokens -= 1.0;
        }
        self.note_sent(now);
        Turn::Go
    }

    /// A call that began at `began` was answered; `refused` holds the provider's hint when it said "too many".
    pub(in crate::driver) fn answered(
        &mut self,
        began: Timestamp,
        now: Timestamp,
        refused: Option<Option<Duration>>,
    ) {
        let Some(hint) = refused else {
            self.refusals = 0;
            let grown = |rate: f64| rate + (GROWTH.0 + GROWTH.1 * rate) / rate.max(1.0);
            self.rate = self.rate.map(grown).filter(|rate| *rate <= FASTEST);
            return;
        };
        let is_news = self.cut_at.is_none_or(|cut| began > cut || now < cut);
        if is_news {
            self.refusals = self.refusals.saturating_add(1);
            let measured = self.measured(now);
            self.rate =
                Some((self.rate.map_or(measured, |rate| rate.min(measured.max(1.0))) * CUT).max(SLOWEST));
            self.tokens = 0.0;
            self.filled_at = Some(now);
            self.cut_at = Some(now);
        }
        let doubled = PAUSE.saturating_mul(
            1_u32
                .checked_shl(self.refusals.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let until = after(now, hint.unwrap_or(doubled).min(LONGEST_PAUSE));
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// Calls per second; None while there is no limit.
    pub(in crate::driver) fn rate(&self) -> Option<f64> {
        let allowed = self.limit.map(|limit| limit.per_second);
        match (self.rate, allowed) {
            (Some(learned), Some(allowed)) => Some(learned.min(allowed)),
            (learned, allowed) => learned.or(allowed),
        }
    }

    /// Calls that may go at once: while calls are refused no more than a second's worth.
    fn burst(&self, rate: f64) -> f64 {
        match (self.rate, self.limit) {
            (None, Some(limit)) => limit.burst.max(1.0),
            (Some(_), Some(limit)) => rate.min(limit.burst).max(1.0),
            (_, None) => rate.max(1.0),
        }
    }

    fn fill(&mut self, rate: f64, now: Timestamp) {
        let passed = self.filled_at.map_or(Duration::ZERO, |at| {
            Duration::try_from(now.duration_since(at)).unwrap_or(Duration::ZERO)
        });
        self.filled_at = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * rate).min(self.burst(rate));
    }

    fn note_sent(&mut self, now: Timestamp) {
        self.sent.push_back(now);
        self.prune(now);
    }

    fn prune(&mut self, now: Timestamp) {
        let is_recent = |at: &Timestamp| now.duration_since(*at).unsigned_abs() <= MEASURED;
        while self.sent.front().is_some_and(|at| !is_recent(at)) || self.sent.len() > 2000 {
            self.sent.pop_front();
        }
    }

    /// Calls per second lately.
    fn measured(&mut self, now: Timestamp) -> f64 {
        self.prune(now);
        u32::try_from(self.sent.len()).map_or(FASTEST, f64::from).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
    }

    #[test]
    fn nothing_is_held_back_until_the_provider_refuses_something() {
        let mut bucket = Bucket::default();
        assert!((0..5000).all(|n| bucket.ask(at(n / 100)) == Turn::Go));
        assert_eq!(bucket.rate(), None);
    }

    #[test]
    fn all_callers_wait_as_long_as_the_provider_asked_for_and_then_go_slower() {
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.ask(at(0)), Turn::Go);
        }
        // All hundred are refused, one after the other: that is one piece of news.
        for n in 0..100 {
            bucket.answered(at(0), at(50 + n), Some(Some(Duration::from_secs(7))));
        }
        assert_eq!(bucket.rate(), Some(70.0));
        assert_eq!(bucket.ask(at(200)), Turn::Wait(at(7_149)));
        assert_eq!(bucket.ask(at(7_149)), Turn::Go);
        assert!(matches!(bucket.ask(at(7_149)), Turn::Wait(_)), "one to try");
        let sent = (0..1000)
            .filter(|n| bucket.ask(at(7_149 + n)) == Turn::Go)
            .count();
        assert!((60..=71).contains(&sent), "{sent} in a second");
    }

    /// Where other tools share the account's quota, more than this would throttle them too.
    #[test]
    fn what_the_operator_allows_is_a_full_bucket_that_is_refilled_and_never_exceeded() {
        let limit = |per_second, burst| Some(RequestLimit { per_second, burst });
        let sent = |bucket: &mut Bucket, millis: std::ops::Range<i64>| {
            let mut sent = 0;
            for milli in millis {
                while bucket.ask(at(milli)) == Turn::Go {
                    sent += 1;
                }
            }
            sent
        };
        let mut bucket = Bucket::new(limit(2.0, 5.0));
        assert_eq!(sent(&mut bucket, 0..1), 5, "the burst at once");
        assert_eq!(sent(&mut bucket, 1..10_000), 19, "then two a second");
        assert_eq!(sent(&mut bucket, 100_000..100_001), 5, "full again after a pause");
        // A refusal makes it slower still, and what was learned is forgotten, not what was said.
        bucket.answered(at(100_000), at(100_000), Some(Some(Duration::from_secs(1))));
        assert!(bucket.rate().is_some_and(|rate| rate <= 2.0));
        assert!(sent(&mut bucket, 100_000..110_000) < 20);
        assert_eq!(sent(&mut bucket, 900_000..900_001), 5);
        assert_eq!(bucket.rate(), Some(2.0));
        for none in [limit(0.0, 5.0), limit(f64::NAN, 5.0), limit(-1.0, 0.0)] {
            assert_eq!(Bucket::new(none).rate(), None);
        }
    }

    /// A provider that allows so many calls per second, with a bucket of its own.
    struct Provider {
        rate: f64,
        tokens: f64,
    }

    #[test]
    fn it_finds_the_rate_the_provider_allows_and_few_calls_are_refused() {
        for rate in [2.0, 20.0, 100.0] {
            let mut provider = Provider { rate, tokens: rate };
            let mut bucket = Bucket::default();
            let (mut sent, mut refused) = (0_u32, 0_u32);
            for milli in 0..600_000 {
                provider.tokens = (provider.tokens + provider.rate / 1000.0).min(provider.rate);
                while bucket.ask(at(milli)) == Turn::Go {
                    sent += 1;
                    if provider.tokens >= 1.0 {
                        provider.tokens -= 1.0;
                        bucket.answered(at(milli), at(milli), None);
                    } else {
                        refused += 1;
                        bucket.answered(at(milli), at(milli), Some(None));
                    }
                }
            }
            let used = f64::from(sent - refused) / 600.0 / rate;
            let share = f64::from(refused) / f64::from(sent);
            println!(
                "{rate} per second: {:.0} % used, {:.1} % refused",
                used * 100.0,
                share * 100.0
            );
            assert!(used > 0.6, "{rate}: {used}");
            assert!(share < 0.08, "{rate}: {share}");
        }
    }

    proptest! {
        /// Whatever is allowed and answered and however the clock jumps: whoever waits as told gets a turn, and soon.
        #[test]
        fn nobody_waits_for_ever(
            allowed in prop::option::of((0.2_f64..50.0, 0.0_f64..100.0)),
            events in prop::collection::vec((0_u8..4, -100_000_i64..100_000, 0_u64..4_000), 1..200),
        ) {
            let limit = allowed.map(|(per_second, burst)| RequestLimit { per_second, burst });
            let mut bucket = Bucket::new(limit);
            let mut now = 0;
            for (kind, passed, hint) in events {
                now += passed;
                match kind {
                    0 => bucket.answered(at(now - 10), at(now), Some(Some(Duration::from_secs(hint)))),
                    1 => bucket.answered(at(now - 10), at(now), Some(None)),
                    2 => bucket.answered(at(now - 10), at(now), None),
                    _ => { let _ = bucket.ask(at(now)); }
                }
                let (mut later, mut time) = (bucket.clone(), at(now));
                let mut tries = 0;
                while let Turn::Wait(until) = later.ask(time) {
                    prop_assert!(until > time);
                    prop_assert!(until.duration_since(time).unsigned_abs() <= Duration::from_secs(61));
                    time = until;
                    tries += 1;
                    prop_assert!(tries <= 2, "told twice at most");
                }
                prop_assert!(bucket.rate().is_none_or(|rate| (SLOWEST..=FASTEST).contains(&rate)));
            }
        }
    }
}

//! Turns single probe results into a verdict by the probe's thresholds. Pure.

/// Consecutive results so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    success_threshold: u32,
    failure_threshold: u32,
    successes: u32,
    failures: u32,
}

impl Count {
    /// Thresholds below one count as one.
    pub(super) fn new(success_threshold: u32, failure_threshold: u32) -> Self {
        Self {
            success_threshold: success_threshold.max(1),
            failure_threshold: failure_threshold.max(1),
            successes: 0,
            failures: 0,
        }
    }

    /// Adds a result. The verdict, when this result reaches or repeats one.
    pub(super) fn add(&mut self, success: bool) -> Option<bool> {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            (self.successes >= self.success_threshold).then_some(true)
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            (self.failures >= self.failure_threshold).then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One lost packet must not take a pod out of service when its owner asked for three.
    #[test]
    fn thresholds() {
        let mut count = Count::new(2, 3);
        let verdicts: Vec<_> = [true, true, false, false, true, false, false, false]
            .map(|ok| count.add(ok))
            .into();
        let expected = [None, Some(true), None, None, None, None, None, Some(false)];
        assert_eq!(verdicts, expected);
    }

    proptest! {
        /// A verdict always rests on that many equal results in a row.
        #[test]
        fn verdict_needs_a_row(good in 1_u32..4, bad in 1_u32..4, results in prop::collection::vec(any::<bool>(), 0..60)) {
            let mut count = Count::new(good, bad);
            for (i, result) in results.iter().enumerate() {
                if let Some(verdict) = count.add(*result) {
                    prop_assert_eq!(verdict, *result);
                    let needed = if verdict { good } else { bad } as usize;
                    prop_assert!(i + 1 >= needed);
                    prop_assert!(results[i + 1 - needed..=i].iter().all(|r| *r == verdict));
                }
            }
        }
    }
}

//! For chance that can be repeated: the same seed draws the same numbers.

use std::time::Duration;

/// A SplitMix64 generator: 64 bits of state, enough for choosing what to break next.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is.
    pub(super) fn below(&mut self, end: usize) -> usize {
        match u64::try_from(end) {
            Ok(end) if end > 0 => usize::try_from(self.next() % end).unwrap_or(0),
            _ => 0,
        }
    }

    /// A duration in a range of milliseconds.
    pub(super) fn millis(&mut self, from: usize, to: usize) -> Duration {
        let drawn = from + self.below(to.saturating_sub(from));
        Duration::from_millis(u64::try_from(drawn).unwrap_or(u64::MAX))
    }

    /// One of `choices`, each as likely as its weight is large; `None` when all weights are 0.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(usize, T)]) -> Option<T> {
        let sum: usize = choices.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.below(sum);
        for (weight, choice) in choices {
            if drawn < *weight {
                return Some(*choice);
            }
            drawn -= weight;
        }
        None
    }

    /// One of a list; `None` when it is empty.
    pub(super) fn one_of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_seed_repeats_the_run_it_was_printed_for() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..50).map(|_| chance.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_choice_without_weight_is_never_made() {
        let mut chance = Chance::new(1);
        for _ in 0..1000 {
            assert_eq!(chance.weighted(&[(0, 'a'), (3, 'b'), (0, 'c')]), Some('b'));
        }
        assert_eq!(chance.weighted(&[(0, 'a')]), None);
    }
}

//! When something that is left over is old enough to be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Things that nobody uses, and since when they were seen so.
#[derive(Debug, Default)]
pub(super) struct LeftOver {
    since: BTreeMap<String, Instant>,
}

impl LeftOver {
    /// What of the things that are unused now has been so at each look for at least `age`. One that is used again, or gone, is forgotten: its
    /// time begins anew.
    pub(super) fn old(&mut self, unused: &BTreeSet<String>, now: Instant, age: Duration) -> Vec<String> {
        self.since.retain(|id, _| unused.contains(id));
        for id in unused {
            self.since.entry(id.clone()).or_insert(now);
        }
        self.since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= age)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// What of these was not seen before.
    pub(super) fn new_of(&mut self, unused: &BTreeSet<String>, now: Instant) -> Vec<String> {
        let new: Vec<String> = unused
            .iter()
            .filter(|id| !self.since.contains_key(*id))
            .cloned()
            .collect();
        self.old(unused, now, Duration::MAX);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface is unused for a moment while its instance is made: removed then, the launch would fail.
    #[test]
    fn only_what_was_unused_at_every_look_for_the_whole_time_is_removed() {
        let start = Instant::now();
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mut left = LeftOver::default();
        for (at, unused, removed) in [
            (0, vec!["a", "b"], vec![]),
            (10, vec!["a"], vec![]),
            (20, vec!["a", "b"], vec![]),
            (59, vec!["a", "b"], vec![]),
            (60, vec!["a", "b"], vec!["a"]),
            (79, vec!["b"], vec![]),
            (80, vec!["b"], vec!["b"]),
            (90, vec![], vec![]),
            (500, vec!["a"], vec![]),
        ] {
            let old = left.old(&set(&unused), start + minutes(at), minutes(60));
            assert_eq!(old, removed, "after {at} minutes");
        }
    }

    #[test]
    fn what_is_only_told_is_told_once() {
        let now = Instant::now();
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mut left = LeftOver::default();
        assert_eq!(left.new_of(&set(&["a"]), now), ["a"]);
        assert_eq!(left.new_of(&set(&["a", "b"]), now), ["b"]);
        assert_eq!(left.new_of(&set(&[]), now), Vec::<String>::new());
        assert_eq!(left.new_of(&set(&["a"]), now), ["a"]);
    }
}

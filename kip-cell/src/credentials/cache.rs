//! What a plugin said, for as long as it holds. Plain data; time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::plugin::{Answer, Holds, Logins};

/// Answers by what they hold for.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Key, (Instant, Logins)>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Image(String),
    Registry(String),
    All,
}

impl Cache {
    /// What is known about an image, the most specific first, as the kubelet looks.
    pub(super) fn get(&mut self, name: &str, now: Instant) -> Option<Logins> {
        self.0.retain(|_, (until, _)| *until > now);
        [
            Key::Image(name.to_owned()),
            Key::Registry(registry(name)),
            Key::All,
        ]
        .iter()
        .find_map(|key| self.0.get(key))
        .map(|(_, logins)| logins.clone())
    }

    /// Keeps an answer about an image.
    pub(super) fn put(&mut self, name: &str, answer: Answer, now: Instant, lasts: Duration) {
        // A time that cannot be told is so far away that the agent does not live to see it, but then nothing is kept.
        let Some(until) = now.checked_add(lasts).filter(|until| *until > now) else {
            return;
        };
        let key = match answer.holds {
            Holds::Image => Key::Image(name.to_owned()),
            Holds::Registry => Key::Registry(registry(name)),
            Holds::Global => Key::All,
        };
        self.0.insert(key, (until, answer.logins));
    }
}

fn registry(name: &str) -> String {
    name.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::plugin::Login;

    #[test]
    fn an_answer_holds_for_what_it_says_and_no_longer() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let answer = |holds| Answer {
            holds,
            lasts: None,
            logins: vec![("k".into(), Login::default())],
        };
        for (holds, same, neighbour, elsewhere) in [
            (Holds::Image, true, false, false),
            (Holds::Registry, true, true, false),
            (Holds::Global, true, true, true),
        ] {
            let mut cache = Cache::default();
            cache.put("r.io/a", answer(holds), now, hour);
            let mut known = |name: &str| cache.get(name, now).is_some();
            assert_eq!(
                (known("r.io/a"), known("r.io/b"), known("s.io/a")),
                (same, neighbour, elsewhere),
                "{holds:?}"
            );
            assert!(cache.get("r.io/a", now + hour).is_none(), "{holds:?}");
        }
        let mut cache = Cache::default();
        cache.put("r.io/a", answer(Holds::Global), now, Duration::ZERO);
        assert!(cache.get("r.io/a", now).is_none(), "zero is not to be kept");
    }
}

//! Where a cluster takes the time and its ids from, so that a test can give it its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::ids;

/// Where a cluster takes the time and the random part of its ids from.
///
/// Everything that ends up in an object comes from here: `creationTimestamp`, `deletionTimestamp`, the times of
/// conditions and of `managedFields`, UIDs, and the suffixes of generated names. Waiting (bookmarks, the end of a watch) is
/// done with tokio's timers, which follow `tokio::time::pause` by themselves.
pub trait Origin: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with what is drawn for `subject`: the table, namespace and name the draw is for. Two draws for one
    /// subject must differ, or two objects that follow each other under one name share their UID.
    fn fill(&self, subject: &str, bytes: &mut [u8]);

    /// The UID of the next object called `subject`. Provided: a version 4 UUID of what [`fill`](Self::fill) draws.
    fn uid(&self, subject: &str) -> String {
        let mut bytes = [0; 16];
        self.fill(subject, &mut bytes);
        ids::uuid(bytes)
    }
}

/// The machine's clock and the operating system's random numbers: what a cluster uses unless told otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemOrigin;

impl Origin for SystemOrigin {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn fill(&self, _subject: &str, bytes: &mut [u8]) {
        // An operating system that gives none ends the process: tokens and UIDs made without them would be guessable.
        assert!(
            SystemRandom::new().fill(bytes).is_ok(),
            "the operating system gives no random bytes"
        );
    }
}

/// Time as tokio's timers see it from a given start, and ids that follow from a seed: the same calls in the same order make
/// the same objects to the byte. An object's ids depend on its own name and on how often that name was used, not on what
/// else was created before it, so that leaving something out of a test changes nothing about the rest.
#[derive(Debug)]
pub struct SeededOrigin {
    start: Timestamp,
    anchor: Instant,
    seed: u64,
    drawn: Mutex<BTreeMap<String, u64>>,
}

impl SeededOrigin {
    /// An origin that shows `start` now. Call within a tokio runtime, after `tokio::time::pause` if time is paused at all.
    #[must_use]
    pub fn new(start: Timestamp, seed: u64) -> Self {
        Self {
            start,
            anchor: Instant::now(),
            seed,
            drawn: Mutex::default(),
        }
    }
}

impl Origin for SeededOrigin {
    fn now(&self) -> Timestamp {
        self.start
            .checked_add(self.anchor.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    fn fill(&self, subject: &str, bytes: &mut [u8]) {
        let draw = {
            // A count is right whatever its last user was doing.
            let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
            let draw = drawn.entry(subject.to_owned()).or_insert(0);
            *draw += 1;
            *draw
        };
        for (index, chunk) in bytes.chunks_mut(32).enumerate() {
            let mut digest = Sha256::new();
            digest.update(self.seed.to_be_bytes());
            digest.update(draw.to_be_bytes());
            digest.update(index.to_be_bytes());
            digest.update(subject);
            let digest: [u8; 32] = digest.finalize().into();
            chunk.copy_from_slice(&digest[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, a failing seed cannot be played again, or leaving one pod out changes the story of all others.
    #[tokio::test(start_paused = true)]
    async fn a_seed_says_everything() {
        let draw = |origin: &SeededOrigin, subject: &str| {
            let mut bytes = [0; 40];
            origin.fill(subject, &mut bytes);
            bytes
        };
        let start = Timestamp::UNIX_EPOCH;
        let (one, other) = (SeededOrigin::new(start, 7), SeededOrigin::new(start, 7));
        let first = draw(&one, "pods/a");
        draw(&other, "pods/b");
        assert_eq!(first, draw(&other, "pods/a"));
        assert_ne!(first, draw(&one, "pods/a"));
        assert_ne!(first, draw(&SeededOrigin::new(start, 8), "pods/a"));
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert_eq!(one.now(), start + std::time::Duration::from_secs(90));
    }
}

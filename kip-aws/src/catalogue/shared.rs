//! The catalogue that many read while it changes.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use kip_core::model::Offering;

use super::{CatalogueError, Facts, Live, LivePart, Stamp, merge, offerings};

/// Facts and the offerings made of them, which never change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    facts: Facts,
    offerings: Vec<Offering>,
    version: u64,
}

impl Snapshot {
    fn new(facts: Facts, version: u64) -> Self {
        let offerings = offerings(&facts);
        Self {
            facts,
            offerings,
            version,
        }
    }

    /// What is known.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What is sold.
    pub fn offerings(&self) -> &[Offering] {
        &self.offerings
    }

    /// Grows with each change; who has seen it needs to look no further.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Of when a part is.
    pub fn stamp(&self, part: LivePart) -> Stamp {
        self.facts.stamp(part)
    }
}

/// What a region sells, shared: readers never wait, and see all of one version.
#[derive(Debug)]
pub struct Catalogue {
    current: ArcSwap<Snapshot>,
    /// Held while a new version is made, so that two answers at once are both in it.
    change: Mutex<()>,
}

impl Catalogue {
    /// A catalogue of a region that knows what is compiled in.
    ///
    /// # Errors
    /// [`CatalogueError::UnknownRegion`], or a broken seed.
    pub fn seeded(region: &str) -> Result<Self, CatalogueError> {
        Ok(Self::new(Facts::seeded(region)?))
    }

    /// A catalogue of these facts.
    pub fn new(facts: Facts) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::new(facts, 0)),
            change: Mutex::new(()),
        }
    }

    /// The current version.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Takes an answer of the cloud in, and returns the version that has it. Some milliseconds of work; readers go on meanwhile.
    ///
    /// # Errors
    /// [`CatalogueError::EmptyPart`]: the version before stays the current one, with the age it has.
    pub fn update(&self, live: Live, as_of: Timestamp) -> Result<Arc<Snapshot>, CatalogueError> {
        // A writer that panicked has swapped or it has not: what is there is whole.
        let _one_at_a_time = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let facts = merge(before.facts(), live, as_of)?;
        let next = Arc::new(Snapshot::new(facts, before.version + 1));
        self.current.store(Arc::clone(&next));
        Ok(next)
    }
}

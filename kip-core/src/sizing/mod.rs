//! Chooses what to buy: demand and offerings in, a choice or the reasons for none out. Pure and synchronous.

mod cheapest;
mod cliff;
mod explain;
mod index;
mod policy;
mod rule;

#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

pub use cheapest::{CheapestFit, Rejected};
pub use cliff::CliffAdvice;
pub use policy::{MemoryReserve, SizingPolicy};
pub use rule::Rejection;

use crate::ids::OfferingId;
use crate::model::{Offering, PodDemand};

/// What to buy for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Choice {
    /// The offering.
    pub offering: Offering,
}

impl Choice {
    /// The choice of an offering.
    pub fn new(offering: Offering) -> Self {
        Self { offering }
    }
}

/// Why nothing can be bought for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NoFit {
    /// One sentence for the pod's condition and event.
    pub message: String,
    /// Whether something fits that is only being avoided for now: waiting helps.
    pub only_avoided: bool,
}

impl NoFit {
    /// No fit, with the sentence a user reads.
    pub fn new(message: impl Into<String>, only_avoided: bool) -> Self {
        Self {
            message: message.into(),
            only_avoided,
        }
    }
}

impl fmt::Display for NoFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Offerings that failed lately and are not to be tried before a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Avoid {
    entries: Vec<(OfferingId, Timestamp)>,
}

impl Avoid {
    /// Nothing to avoid.
    pub fn none() -> Self {
        Self::default()
    }

    /// Avoids an offering until a time; a later time wins.
    pub fn until(&mut self, offering: OfferingId, until: Timestamp) {
        match self.entries.iter_mut().find(|(id, _)| *id == offering) {
            Some((_, time)) => *time = (*time).max(until),
            None => self.entries.push((offering, until)),
        }
    }

    /// Whether an offering is avoided at a time.
    pub fn contains(&self, offering: &OfferingId, now: Timestamp) -> bool {
        self.entries
            .iter()
            .any(|(id, until)| id == offering && now < *until)
    }

    /// Forgets what is over, and answers when the next entry ends.
    pub fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.entries.retain(|(_, until)| now < *until);
        self.entries.iter().map(|(_, until)| *until).min()
    }

    /// Whether nothing is avoided.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Chooses an offering for a pod.
///
/// # Guarantees an implementer gives
/// A pure function of its arguments and of the offerings it was built from: no clock, no randomness, no I/O. Fast: it is called
/// for thousands of waiting pods in a row.
pub trait InstanceSizer: fmt::Debug + Send + Sync + 'static {
    /// Takes a new list of offerings. Called when the provider's catalogue changes, not per pod.
    fn refresh(&mut self, offerings: &[Offering]);

    /// The offering for this demand at `now`, or why there is none.
    ///
    /// # Errors
    /// [`NoFit`] when no offering covers the demand, or all that do are being avoided.
    fn size(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Result<Choice, NoFit>;
}

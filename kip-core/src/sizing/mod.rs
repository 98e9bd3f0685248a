//! Chooses what to buy: demand and offerings in, a choice or the reasons for none out. Pure and synchronous.

mod cheapest;
mod cliff;
mod explain;
mod gpu;
mod index;
mod policy;
mod requirement;
mod rule;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

pub use cheapest::{CheapestFit, Rejected};
pub use cliff::CliffAdvice;
pub use policy::{Burstable, MemoryReserve, SizingPolicy};
pub use rule::{Rejection, glob as type_matches};

use crate::capacity::Reading;
use crate::ids::OfferingId;
use crate::model::{Offering, PodDemand};

/// What to buy for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Choice {
    /// The offering.
    pub offering: Offering,
    /// How much smaller it is than what the pod asked for, where the pod allows that ([`PodDemand::elastic`]) and much is saved by it.
    pub smaller: Option<Box<CliffAdvice>>,
}

impl Choice {
    /// The choice of an offering.
    pub fn new(offering: Offering) -> Self {
        Self {
            offering,
            smaller: None,
        }
    }
}

impl From<CliffAdvice> for Choice {
    /// The choice to follow an advice.
    fn from(advice: CliffAdvice) -> Self {
        Self {
            offering: advice.offering.clone(),
            smaller: Some(Box::new(advice)),
        }
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
    /// When the first offering that fits is no longer avoided, where the sizer knows.
    pub retry_at: Option<Timestamp>,
}

impl NoFit {
    /// No fit, with the sentence a user reads.
    pub fn new(message: impl Into<String>, only_avoided: bool) -> Self {
        Self {
            message: message.into(),
            only_avoided,
            retry_at: None,
        }
    }

    /// Says when the first offering that fits is no longer avoided.
    #[must_use]
    pub fn with_retry_at(mut self, at: Option<Timestamp>) -> Self {
        self.retry_at = at;
        self
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
    /// What is closed to all pods.
    closed: Option<Reading>,
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
        self.opens_at(offering, now).is_some()
    }

    /// Until when an offering is avoided; None when it is not. A time that has come already means: not to be tried by this pod, without
    /// any time to wait for.
    pub fn opens_at(&self, offering: &OfferingId, now: Timestamp) -> Option<Timestamp> {
        let own = self
            .entries
            .iter()
            .find(|(id, until)| id == offering && now < *until);
        let shared = self
            .closed
            .as_ref()
            .and_then(|closed| closed.opens_at(offering, now));
        own.map(|(_, until)| *until).max(shared)
    }

    /// The same, and what is closed to all pods.
    pub(crate) fn with_closed(&self, closed: Reading) -> Self {
        Self {
            entries: self.entries.clone(),
            closed: Some(closed),
        }
    }

    /// Forgets what is over, and answers when the next entry ends.
    pub fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.entries.retain(|(_, until)| now < *until);
        self.entries.iter().map(|(_, until)| *until).min()
    }

    /// Whether nothing is avoided.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.closed.is_none()
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

    /// What the pod would save by asking for a little less, for its user to hear. None, as by default, when there is nothing to say, also
    /// for pods that are [`elastic`](PodDemand::elastic): for them [`size`](Self::size) has taken the advice.
    fn advice(&self, _demand: &PodDemand, _avoid: &Avoid, _now: Timestamp) -> Option<CliffAdvice> {
        None
    }
}

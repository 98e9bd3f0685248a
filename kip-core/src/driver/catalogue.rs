//! What the provider offers, and the sizer that chooses from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::error::ErrorKind;
use crate::ids::OfferingId;
use crate::machine::{Event, Failure, PodState, Wanted};
use crate::model::Offering;
use crate::sizing::InstanceSizer;

/// The offerings with the sizer that indexed them, and what no pod should try now.
#[derive(Debug)]
pub(super) struct Catalogue {
    sizer: RwLock<Box<dyn InstanceSizer>>,
    offerings: RwLock<Option<Arc<Vec<Offering>>>>,
    problem: Mutex<Option<String>>,
    avoid: Mutex<BTreeMap<OfferingId, Timestamp>>,
    /// Woken when a pod found nothing: newer offerings may help.
    pub(super) wanted: Notify,
}

impl Catalogue {
    pub(super) fn new(sizer: Box<dyn InstanceSizer>) -> Self {
        Self {
            sizer: RwLock::new(sizer),
            offerings: RwLock::new(None),
            problem: Mutex::new(None),
            avoid: Mutex::new(BTreeMap::new()),
            wanted: Notify::new(),
        }
    }

    pub(super) fn offerings(&self) -> Arc<Vec<Offering>> {
        let offerings = self.offerings.read().unwrap_or_else(PoisonError::into_inner);
        offerings.clone().unwrap_or_default()
    }

    /// Takes a new list; answers whether it differs from the one before.
    pub(super) fn refresh(&self, offerings: Vec<Offering>) -> bool {
        let mut known = self.offerings.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() == Some(&offerings) {
            return false;
        }
        let mut sizer = self.sizer.write().unwrap_or_else(PoisonError::into_inner);
        sizer.refresh(&offerings);
        *known = Some(Arc::new(offerings));
        true
    }

    pub(super) fn failed(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    pub(super) fn avoid(&self, offering: OfferingId, until: Timestamp) {
        let mut avoid = self.avoid.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = avoid.entry(offering).or_insert(until);
        *entry = until.max(*entry);
    }

    /// Runs the sizer for a pod.
    pub(super) fn place(&self, state: &PodState, now: Timestamp) -> Event {
        let Wanted::Run { demand, .. } = &state.pod.wanted else {
            return Event::Woke;
        };
        let is_known = self
            .offerings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if !is_known {
            let problem = self
                .problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let problem = problem.unwrap_or_else(|| "the provider has not answered yet".into());
            return Event::OfferingsFailed(Failure::new(ErrorKind::Unavailable, problem));
        }
        let mut avoid = state.pod.avoid.clone();
        {
            let mut shared = self.avoid.lock().unwrap_or_else(PoisonError::into_inner);
            shared.retain(|_, until| now < *until);
            for (offering, until) in &*shared {
                avoid.until(offering.clone(), *until);
            }
        }
        let sizer = self.sizer.read().unwrap_or_else(PoisonError::into_inner);
        match sizer.size(demand, &avoid, now) {
            Ok(choice) => Event::Placed(choice),
            Err(no_fit) => {
                self.wanted.notify_one();
                Event::NoFit(no_fit)
            }
        }
    }
}

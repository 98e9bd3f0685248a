//! What the provider offers, the sizer that chooses from it, and the memory of what it did not have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::clock::Clock;
use crate::capacity::{CapacityConfig, CapacityMemory, Change, Gate, Outcome};
use crate::error::ErrorKind;
use crate::ids::OfferingId;
use crate::machine::{Event, Failure, PodState, Wanted, elapsed};
use crate::model::Offering;
use crate::sizing::{CliffAdvice, InstanceSizer};

/// The offerings with the sizer that indexed them, and what launches taught about them.
#[derive(Debug)]
pub(super) struct Catalogue {
    sizer: RwLock<Box<dyn InstanceSizer>>,
    offerings: RwLock<Option<Arc<Vec<Offering>>>>,
    problem: Mutex<Option<String>>,
    capacity: Mutex<CapacityMemory>,
    /// Woken when a pod found nothing: newer offerings may help.
    pub(super) wanted: Notify,
    /// When the first pod that waits only for closed offerings may find one open.
    opening_at: Mutex<Option<Timestamp>>,
    opening: Notify,
}

impl Catalogue {
    pub(super) fn new(sizer: Box<dyn InstanceSizer>, capacity: CapacityConfig) -> Self {
        Self {
            sizer: RwLock::new(sizer),
            offerings: RwLock::new(None),
            problem: Mutex::new(None),
            capacity: Mutex::new(CapacityMemory::new(capacity)),
            wanted: Notify::new(),
            opening_at: Mutex::new(None),
            opening: Notify::new(),
        }
    }

    fn capacity(&self) -> MutexGuard<'_, CapacityMemory> {
        // It is a memory whatever it was in the middle of.
        self.capacity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opening_at(&self) -> MutexGuard<'_, Option<Timestamp>> {
        // A time is a time.
        self.opening_at.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether a launch may begin now.
    pub(super) fn gate(&self, offering: &OfferingId, now: Timestamp) -> Gate {
        self.capacity().gate(offering, now)
    }

    pub(super) fn began(&self, offering: &OfferingId, now: Timestamp) {
        self.capacity().began(offering, now);
    }

    pub(super) fn ended(
        &self,
        offering: &OfferingId,
        began: Timestamp,
        outcome: Outcome,
        now: Timestamp,
    ) -> Change {
        self.capacity().ended(offering, began, outcome, now)
    }

    /// An instance is gone: there may be room under a quota, or in a zone.
    pub(super) fn freed(&self, now: Timestamp) {
        self.capacity().freed(now);
    }

    /// How many offerings are closed, how many capacity types at their limit, and how many zones without room.
    pub(super) fn closed(&self) -> (usize, usize, usize) {
        let capacity = self.capacity();
        (
            capacity.closed_offerings(),
            capacity.closed_quotas(),
            capacity.closed_zones(),
        )
    }

    /// Waits until something may have opened that pods were told to wait for.
    pub(super) async fn opening(&self, clock: &dyn Clock) {
        loop {
            let now = clock.now();
            let wait = {
                let mut opening_at = self.opening_at();
                match *opening_at {
                    Some(at) if at <= now => {
                        *opening_at = None;
                        return;
                    }
                    at => at.map(|at| elapsed(now, at)),
                }
            };
            match wait {
                Some(wait) => tokio::select! {
                    biased;
                    () = self.opening.notified() => {}
                    () = clock.sleep(wait) => {}
                },
                None => self.opening.notified().await,
            }
        }
    }

    fn opens_at(&self, at: Timestamp) {
        let mut opening_at = self.opening_at();
        if opening_at.is_none_or(|before| at < before) {
            *opening_at = Some(at);
            drop(opening_at);
            self.opening.notify_one();
        }
    }

    /// What the sizer advises the user of a pod that it placed.
    pub(super) fn advice(&self, state: &PodState, now: Timestamp) -> Option<CliffAdvice> {
        let Wanted::Run { demand, .. } = &state.pod.wanted else {
            return None;
        };
        let sizer = self.sizer.read().unwrap_or_else(PoisonError::into_inner);
        sizer.advice(demand, &state.pod.avoid, now)
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
        let sizer = self.sizer.read().unwrap_or_else(PoisonError::into_inner);
        let placed = self.capacity().place(&**sizer, demand, &state.pod.avoid, now);
        match placed {
            Ok(choice) => Event::Placed(choice),
            Err(mut no_fit) => {
                // The machine compares what it is told with what it told before: a time that moves would be news each time.
                if let Some(at) = no_fit.retry_at.take() {
                    self.opens_at(at);
                }
                if !no_fit.only_avoided {
                    self.wanted.notify_one();
                }
                Event::NoFit(no_fit)
            }
        }
    }
}

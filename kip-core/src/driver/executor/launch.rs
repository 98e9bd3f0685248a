//! One launch: its turn, the call, and what its answer teaches.

use std::sync::Arc;

use crate::capacity::{Gate, Outcome};
use crate::driver::core::{Core, Key};
use crate::driver::governor::Class;
use crate::driver::launch_queue::{Applicant, Candidate, Verdict};
use crate::driver::metrics::HeldBack;
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::machine::{Event, Failure, Phase, Wanted};
use crate::model::{CellRecord, Instance, LaunchOptions};

/// Counts a launch until its result is in the inbox.
struct Critical(Arc<Core>);

impl Drop for Critical {
    fn drop(&mut self) {
        self.0.tasks.end_critical();
    }
}

/// Counts a launch call until it was answered.
struct UnderWay<'a> {
    core: &'a Core,
    namespace: &'a str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.core.launches.ended(self.namespace);
    }
}

impl Core {
    /// Launches when its turn has come. Once begun the call is seen through to its end, whatever becomes of the pod: its reply is the only
    /// trace of what it bought. Until then it can be held back without harm.
    pub(super) fn launch(self: &Arc<Self>, key: &Key, record: Arc<CellRecord>) {
        if self.is_stopping() {
            return; // The intent is recorded: the next controller goes on from there.
        }
        let (options, priority, since) = {
            let slots = self.slots();
            let pod = slots.get(key).map(|slot| &slot.state.pod);
            let demand = match pod.map(|pod| &pod.wanted) {
                Some(Wanted::Run { demand, .. }) => Some(demand),
                Some(Wanted::Unknown | Wanted::Refused { .. } | Wanted::Deleted { .. } | Wanted::Gone)
                | None => None,
            };
            (
                demand.map_or_else(LaunchOptions::default, |demand| demand.options.clone()),
                demand.map_or(0, |demand| demand.priority),
                pod.map_or(record.issued_at, |pod| pod.seen_at),
            )
        };
        let candidate = Candidate {
            key: key.clone(),
            token: record.token.clone(),
            applicant: Applicant {
                priority,
                namespace: record.pod.namespace.clone(),
                since,
                offering: record.offering.clone(),
            },
        };
        self.tasks.begin_critical();
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            let _critical = Critical(Arc::clone(&core));
            let attempt = record.attempt;
            if let Some(result) = core.launch_in_turn(&candidate, &record, &options).await {
                let result = result.map_err(Failure::from);
                core.deliver(&candidate.key, Event::Launched { attempt, result });
            }
        });
    }

    /// None when the driver stops before the call began. A call that is throttled waits for its turn once more, and is then given back.
    async fn launch_in_turn(
        self: &Arc<Self>,
        candidate: &Candidate,
        record: &CellRecord,
        options: &LaunchOptions,
    ) -> Option<Result<Instance>> {
        let offering = &record.offering;
        let mut is_repeated = false;
        loop {
            let began = match self.launches.turn(candidate.clone(), self.clock.now()).await {
                Verdict::Go(began) => began,
                held_back => return self.held_back(held_back, record),
            };
            let result = {
                let _under_way = UnderWay {
                    core: self.as_ref(),
                    namespace: &candidate.applicant.namespace,
                };
                let verdict = self.last_look(candidate, record).await;
                if let Err(held_back) = verdict {
                    self.catalogue
                        .ended(offering, began, Outcome::Other, self.clock.now());
                    return held_back;
                }
                let result = self.launch_one(record, options.clone()).await;
                let now = self.clock.now();
                let error = result.as_ref().err();
                self.governor.answered(Class::Launch, began, now, error);
                let outcome = error.map_or(Outcome::Launched, Outcome::of_error);
                let change = self.catalogue.ended(offering, began, outcome, now);
                if change.closed {
                    tracing::info!(%offering, ?outcome, "offering closed for now");
                }
                if change.opened {
                    tracing::info!(%offering, "offering open again");
                    self.wake_stranded();
                }
                result
            };
            let is_throttled = matches!(&result, Err(error) if error.kind() == ErrorKind::RateLimited);
            if is_throttled {
                self.counters.throttled(Class::Launch.as_str());
            }
            if !is_throttled || std::mem::replace(&mut is_repeated, true) {
                return Some(result);
            }
        }
    }

    /// The last moment at which a launch can be held back: what its record was made for must still stand. Answers what the machine is told
    /// if it does not.
    async fn last_look(
        self: &Arc<Self>,
        candidate: &Candidate,
        record: &CellRecord,
    ) -> std::result::Result<(), Option<Result<Instance>>> {
        let stopping = self.stopping.notified();
        tokio::pin!(stopping);
        stopping.as_mut().enable();
        if self.is_stopping() {
            return Err(self.held_back(Verdict::Stopping, record));
        }
        let still_stands = tokio::select! {
            biased;
            still_stands = self.still_stands(&candidate.key, record) => still_stands,
            // Nothing was sent yet.
            () = stopping => return Err(self.held_back(Verdict::Stopping, record)),
        };
        match still_stands {
            // Meanwhile the machine itself may have changed its mind, or followed another controller's, and the offering may have closed.
            Ok(true) if !self.may_launch(&candidate.key, &candidate.token) => {
                Err(self.held_back(Verdict::Withdrawn, record))
            }
            Ok(true) if self.catalogue.gate(&record.offering, self.clock.now()) == Gate::Closed => {
                Err(self.held_back(Verdict::Closed, record))
            }
            Ok(true) => Ok(()),
            Ok(false) => Err(self.held_back(Verdict::Withdrawn, record)),
            // Not ambiguous, unlike the error that is its source: nothing was sent.
            Err(error) => {
                let message = "not sent: it cannot be told whether the pod and its record still stand";
                let error = Error::new(ErrorKind::Conflict, "launch", message)
                    .with_retry(Retry::After(None))
                    .with_source(error);
                Err(Some(Err(error)))
            }
        }
    }

    /// What the machine is told of a launch that was not sent: an error that is certain, and that lets it go on at once.
    fn held_back(&self, verdict: Verdict, record: &CellRecord) -> Option<Result<Instance>> {
        let error = |kind, message: &str| {
            let error = Error::new(kind, "launch", message);
            Some(Err(error.with_context("offering", &record.offering)))
        };
        let (why, answer) = match verdict {
            Verdict::Go(_) | Verdict::Stopping => (HeldBack::Stopping, None),
            Verdict::Closed => (
                HeldBack::Closed,
                error(
                    ErrorKind::InsufficientCapacity,
                    "not sent: the offering has just run out of capacity",
                ),
            ),
            Verdict::Withdrawn => (
                HeldBack::Withdrawn,
                error(
                    ErrorKind::Conflict,
                    "not sent: the pod or its record changed before its turn came",
                ),
            ),
            Verdict::Late => (
                HeldBack::Late,
                error(
                    ErrorKind::RateLimited,
                    "not sent: too many launches wait, and its turn has not come yet",
                )
                .map(|result: Result<Instance>| result.map_err(|error| error.with_retry(Retry::After(None)))),
            ),
        };
        self.counters.held_back(why);
        answer
    }

    /// Lets pods that wait for room look again: the more important first, then fairly across namespaces, then by age.
    pub(in crate::driver) fn wake_stranded(&self) {
        let mut waiting: Vec<_> = {
            let slots = self.slots();
            let pending = slots
                .iter()
                .filter(|(_, slot)| slot.state.phase() == Phase::Pending);
            pending
                .filter_map(|(key, slot)| {
                    let pod = &slot.state.pod;
                    match &pod.wanted {
                        Wanted::Run { demand, .. } => Some((
                            demand.priority,
                            pod.reference.namespace.clone(),
                            pod.seen_at,
                            key.clone(),
                        )),
                        Wanted::Unknown | Wanted::Refused { .. } | Wanted::Deleted { .. } | Wanted::Gone => {
                            None
                        }
                    }
                })
                .collect()
        };
        in_turn(&mut waiting);
        for (.., key) in waiting {
            self.deliver(&key, Event::OfferingsChanged);
        }
    }
}

/// Sorts by priority, then so that each namespace has one before any has two, then by age.
fn in_turn<T: Ord + Copy, K: Ord>(waiting: &mut [(i32, String, T, K)]) {
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    waiting.sort_by(|a, b| (Reverse(a.0), &a.2, &a.3).cmp(&(Reverse(b.0), &b.2, &b.3)));
    let mut seen: BTreeMap<(i32, String), usize> = BTreeMap::new();
    let mut ranks = Vec::with_capacity(waiting.len());
    for (priority, namespace, ..) in waiting.iter() {
        let rank = seen.entry((*priority, namespace.clone())).or_default();
        ranks.push(*rank);
        *rank += 1;
    }
    let mut at = 0;
    // Stable, and called once for each in order: a cached key.
    waiting.sort_by_cached_key(|(priority, ..)| {
        let rank = ranks.get(at).copied().unwrap_or_default();
        at += 1;
        (Reverse(*priority), rank)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_with_many_waiting_pods_does_not_take_all_the_room_that_opens() {
        let mut waiting = vec![
            (0, "big".to_owned(), 1, 'a'),
            (0, "big".to_owned(), 2, 'b'),
            (0, "big".to_owned(), 3, 'c'),
            (0, "small".to_owned(), 9, 'd'),
            (5, "big".to_owned(), 9, 'e'),
        ];
        in_turn(&mut waiting);
        let order: String = waiting.iter().map(|(.., key)| *key).collect();
        assert_eq!(order, "eadbc");
    }
}

//! Where launches wait for their turn: which goes next when not all can, and which must not be sent any more.

mod line;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

pub(super) use line::Applicant;
use line::{Line, Next, Ticket};

use super::core::{Core, Key};
use super::governor::{Class, Turn};
use crate::ids::LaunchToken;
use crate::machine::{Phase, after, elapsed};

/// How waiting for a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may begin, at this time. [`LaunchQueue::ended`] must follow.
    Go(Timestamp),
    /// Its offering closed meanwhile: nothing was sent.
    Closed,
    /// The pod or the record changed meanwhile: nothing was sent, and nothing must be.
    Withdrawn,
    /// It waited for too long: nothing was sent.
    Late,
    /// The driver ends: nothing was sent. The intent is recorded.
    Stopping,
}

/// A launch that waits: whose it is, and by which token.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) key: Key,
    pub(super) token: LaunchToken,
    pub(super) applicant: Applicant,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    token: LaunchToken,
    joined_at: Timestamp,
    answer: oneshot::Sender<Verdict>,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    waiting: BTreeMap<Ticket, Waiting>,
    under_way: usize,
    is_stopped: bool,
}

impl State {
    /// Answers one that waits.
    fn answer(&mut self, ticket: Ticket, verdict: Verdict) -> Option<Applicant> {
        let applicant = self.line.leave(ticket)?;
        let waiting = self.waiting.remove(&ticket)?;
        // Whoever does not wait any more was ended with the driver.
        let _ = waiting.answer.send(verdict);
        Some(applicant)
    }
}

/// How long the line is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LineLength {
    pub(super) waiting: usize,
    pub(super) oldest: Duration,
    pub(super) under_way: usize,
}

/// The launches that wait for their turn. It is no longer than there are pods.
#[derive(Debug, Default)]
pub(super) struct LaunchQueue {
    state: Mutex<State>,
    changed: Notify,
}

impl LaunchQueue {
    fn locked(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves both maps consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self, candidate: Candidate, now: Timestamp) -> Verdict {
        let receiver = {
            let mut state = self.locked();
            if state.is_stopped {
                return Verdict::Stopping;
            }
            let (answer, receiver) = oneshot::channel();
            let ticket = state.line.join(candidate.applicant);
            state.waiting.insert(
                ticket,
                Waiting {
                    key: candidate.key,
                    token: candidate.token,
                    joined_at: now,
                    answer,
                },
            );
            receiver
        };
        self.changed.notify_one();
        receiver.await.unwrap_or(Verdict::Stopping)
    }

    /// A launch that was let go has been answered.
    pub(super) fn ended(&self, namespace: &str) {
        {
            let mut state = self.locked();
            state.under_way = state.under_way.saturating_sub(1);
            state.line.ended(namespace);
        }
        self.changed.notify_one();
    }

    /// A pod changed so that a launch of it must not be sent: it is answered now, not when its turn comes.
    pub(super) fn withdraw(&self, key: &Key) {
        let mut state = self.locked();
        let ticket = state
            .waiting
            .iter()
            .find_map(|(ticket, waiting)| (waiting.key == *key).then_some(*ticket));
        if let Some(ticket) = ticket {
            state.answer(ticket, Verdict::Withdrawn);
        }
    }

    /// Lets nothing begin any more.
    pub(super) fn stop(&self) {
        let mut state = self.locked();
        state.is_stopped = true;
        for ticket in state.line.tickets() {
            state.answer(ticket, Verdict::Stopping);
        }
    }

    pub(super) fn length(&self, now: Timestamp) -> LineLength {
        let state = self.locked();
        LineLength {
            waiting: state.line.len(),
            oldest: state
                .line
                .oldest()
                .map_or(Duration::ZERO, |since| elapsed(since, now)),
            under_way: state.under_way,
        }
    }
}

impl Core {
    /// Lets launches go in their turn for as long as the driver runs.
    pub(super) async fn dispatch_launches(&self) {
        loop {
            let wake = self.let_go();
            let sleep = async {
                match wake {
                    Some(until) => self.clock.sleep(elapsed(self.clock.now(), until)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.launches.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Lets all launches go that can now; answers when to look again, should nothing change before.
    fn let_go(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        let mut state = self.launches.locked();
        let patience = self.config.launch_patience;
        while let Some((ticket, waiting)) = state.waiting.first_key_value()
            && elapsed(waiting.joined_at, now) >= patience
        {
            let ticket = *ticket;
            state.answer(ticket, Verdict::Late);
        }
        // Tickets are in the order in which they were given out, so the first is late first.
        let first = state.waiting.first_key_value();
        let late = first.map(|(_, waiting)| after(waiting.joined_at, patience));
        loop {
            if state.under_way >= self.config.launches.max(1) {
                return late;
            }
            let ticket = match state.line.next(|offering| self.catalogue.gate(offering, now)) {
                Next::Go(ticket) => ticket,
                Next::Closed(ticket) => {
                    state.answer(ticket, Verdict::Closed);
                    continue;
                }
                Next::Nobody(wake) => return [wake, late].into_iter().flatten().min(),
            };
            let is_wanted = state
                .waiting
                .get(&ticket)
                .is_some_and(|waiting| self.may_launch(&waiting.key, &waiting.token));
            if !is_wanted {
                state.answer(ticket, Verdict::Withdrawn);
                continue;
            }
            if let Turn::Wait(until) = self.governor.ask(Class::Launch, now) {
                return late.map_or(Some(until), |late| Some(late.min(until)));
            }
            if let Some(applicant) = state.answer(ticket, Verdict::Go(now)) {
                state.under_way += 1;
                state.line.began(&applicant.namespace);
                self.catalogue.began(&applicant.offering, now);
            }
        }
    }

    /// Whether the launch with this token is still what a machine waits for: its pod is not to end, and its record is the same.
    pub(super) fn may_launch(&self, key: &Key, token: &LaunchToken) -> bool {
        self.slots().get(key).is_some_and(|slot| {
            let is_launching = slot.state.phase() == Phase::Launching && !slot.state.pod.must_end();
            is_launching && slot.state.record().is_some_and(|record| record.token == *token)
        })
    }
}

//! Keeps what a user should read about the pod, newest 64, each with a number that only grows.

use std::collections::VecDeque;

use jiff::Timestamp;
use kip_cell_api::v1::AgentEvent;

use crate::pod::project::proto_time;

const KEPT: usize = 64;

/// The events.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: VecDeque<AgentEvent>,
    next_id: u64,
}

impl EventLog {
    /// Numbers start at the time the agent started, so that they go on growing after a restart of the agent.
    pub(crate) fn new(started_at: Timestamp) -> Self {
        Self {
            events: VecDeque::new(),
            next_id: u64::try_from(started_at.as_microsecond()).unwrap_or(1),
        }
    }

    pub(crate) fn normal(&mut self, at: Timestamp, container: &str, reason: &str, message: String) {
        self.push(at, container, reason, message, false);
    }

    pub(crate) fn warning(&mut self, at: Timestamp, container: &str, reason: &str, message: String) {
        self.push(at, container, reason, message, true);
    }

    fn push(&mut self, at: Timestamp, container: &str, reason: &str, message: String, warning: bool) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        tracing::info!(container, reason, message, warning, "event");
        self.events.push_back(AgentEvent {
            id: self.next_id,
            at: Some(proto_time(at)),
            warning,
            reason: reason.into(),
            message,
            container: container.into(),
        });
        self.next_id += 1;
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<AgentEvent> {
        self.events.iter().cloned().collect()
    }
}

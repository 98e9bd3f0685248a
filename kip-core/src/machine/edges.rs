//! Which stages follow which: the table that tests, documents and metrics are checked against.

use std::fmt;
use std::fmt::Write as _;

/// The name of a [`Stage`](super::Stage).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Waits to be placed.
    Pending,
    /// Being launched.
    Launching,
    /// Has an instance without address.
    Booting,
    /// Has an address, the agent has not answered.
    Connecting,
    /// The agent is being told to run it.
    Deploying,
    /// The agent has it.
    Running,
    /// The agent is being told to stop it.
    Draining,
    /// The instance is being terminated.
    Terminating,
    /// Waits before another attempt.
    BackingOff,
    /// Ended.
    Finished,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Launching,
        Self::Booting,
        Self::Connecting,
        Self::Deploying,
        Self::Running,
        Self::Draining,
        Self::Terminating,
        Self::BackingOff,
        Self::Finished,
    ];

    /// The name, for metric labels and people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Launching => "Launching",
            Self::Booting => "Booting",
            Self::Connecting => "Connecting",
            Self::Deploying => "Deploying",
            Self::Running => "Running",
            Self::Draining => "Draining",
            Self::Terminating => "Terminating",
            Self::BackingOff => "BackingOff",
            Self::Finished => "Finished",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One way a step may lead from a stage to another, and when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// From.
    pub from: Phase,
    /// To.
    pub to: Phase,
    /// When, in a few words.
    pub when: &'static str,
}

const fn edge(from: Phase, to: Phase, when: &'static str) -> Edge {
    Edge { from, to, when }
}

/// Every way a step may lead from a stage to another. Tests hold `step` to it in both directions.
pub const EDGES: &[Edge] = &[
    edge(Phase::Pending, Phase::Launching, "placed"),
    edge(Phase::Pending, Phase::Finished, "refused, deleted or too late"),
    edge(Phase::Launching, Phase::Booting, "launched, no address yet"),
    edge(Phase::Launching, Phase::Connecting, "launched with address"),
    edge(Phase::Launching, Phase::Pending, "no capacity, elsewhere"),
    edge(Phase::Launching, Phase::BackingOff, "no instance came of it"),
    edge(
        Phase::Launching,
        Phase::Terminating,
        "launched, not wanted any more",
    ),
    edge(Phase::Launching, Phase::Finished, "ended without instance"),
    edge(Phase::Booting, Phase::Connecting, "address known"),
    edge(Phase::Booting, Phase::Pending, "interrupted, replaced at once"),
    edge(Phase::Booting, Phase::BackingOff, "interrupted again and again"),
    edge(
        Phase::Booting,
        Phase::Terminating,
        "deadline, instance lost, or not wanted",
    ),
    edge(Phase::Connecting, Phase::Deploying, "agent answered"),
    edge(Phase::Connecting, Phase::Running, "agent has the pod already"),
    edge(
        Phase::Connecting,
        Phase::Draining,
        "agent has the pod already, too late",
    ),
    edge(
        Phase::Connecting,
        Phase::Terminating,
        "deadline, instance lost, or not wanted",
    ),
    edge(Phase::Connecting, Phase::Pending, "interrupted, replaced at once"),
    edge(
        Phase::Connecting,
        Phase::BackingOff,
        "interrupted again and again",
    ),
    edge(Phase::Deploying, Phase::Running, "agent has the pod"),
    edge(Phase::Deploying, Phase::Draining, "to be stopped"),
    edge(
        Phase::Deploying,
        Phase::Terminating,
        "deadline, instance lost, or ended",
    ),
    edge(Phase::Deploying, Phase::Pending, "interrupted, replaced at once"),
    edge(Phase::Deploying, Phase::BackingOff, "interrupted again and again"),
    edge(Phase::Running, Phase::Pending, "interrupted, replaced at once"),
    edge(Phase::Running, Phase::BackingOff, "interrupted again and again"),
    edge(Phase::Running, Phase::Deploying, "agent lost the pod"),
    edge(Phase::Running, Phase::Draining, "to be stopped"),
    edge(
        Phase::Running,
        Phase::Terminating,
        "pod ended, instance lost, or pod gone",
    ),
    edge(Phase::Draining, Phase::Terminating, "stopped, or out of time"),
    edge(
        Phase::Terminating,
        Phase::BackingOff,
        "instance gone, another attempt",
    ),
    edge(
        Phase::Terminating,
        Phase::Pending,
        "instance gone, another attempt at once",
    ),
    edge(Phase::Terminating, Phase::Finished, "instance gone"),
    edge(Phase::BackingOff, Phase::Pending, "time to try again"),
    edge(Phase::BackingOff, Phase::Finished, "deleted or too late"),
];

/// The edges as a Mermaid state diagram, for documents.
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Pending\n");
    for edge in EDGES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {} --> {}: {}", edge.from, edge.to, edge.when);
    }
    text.push_str("    Finished --> [*]\n");
    text
}

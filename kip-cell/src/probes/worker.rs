//! One task per container and probe: asks in the probe's rhythm and reports changes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::Probe;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::actions::{Target, run_probe};
use super::count::Count;
use crate::reconcile::Message;

/// Which question a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    /// The word in events.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) run_id: String,
    pub(crate) kind: Kind,
    pub(crate) verdict: Verdict,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The success threshold was reached.
    Passes,
    /// The failure threshold was reached.
    Fails,
    /// A single failure, with its text.
    Missed(String),
}

/// Probes until aborted, or until the verdict that ends this kind of probe.
pub(crate) async fn watch(
    kind: Kind,
    probe: Probe,
    target: Target,
    started_at: Timestamp,
    reports: mpsc::Sender<Message>,
) {
    let period = Duration::from_secs(u64::from(probe.period_seconds.max(1)));
    let timeout = Duration::from_secs(u64::from(probe.timeout_seconds.max(1)));
    let mut count = Count::new(probe.success_threshold, probe.failure_threshold);
    let first = started_at + SignedDuration::from_secs(i64::from(probe.initial_delay_seconds));
    let delay = Duration::try_from(first.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
    let mut ticks = interval_at(Instant::now() + delay, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        let result = run_probe(&target, probe.handler.as_ref(), timeout).await;
        let verdict = count.add(result.is_ok());
        let report = |verdict| {
            Message::Probe(Report {
                run_id: target.container_id.clone(),
                kind,
                verdict,
            })
        };
        if let Err(text) = result
            && reports.send(report(Verdict::Missed(text))).await.is_err()
        {
            return;
        }
        let Some(passes) = verdict.filter(|_| verdict != last) else {
            continue;
        };
        last = verdict;
        let verdict = if passes { Verdict::Passes } else { Verdict::Fails };
        if reports.send(report(verdict)).await.is_err() {
            return;
        }
        // A container that failed its liveness or startup probe is killed; one that has started needs no more asking.
        let over = match kind {
            Kind::Readiness => false,
            Kind::Liveness => !passes,
            Kind::Startup => true,
        };
        if over {
            return;
        }
    }
}

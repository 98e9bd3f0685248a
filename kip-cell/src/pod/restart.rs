//! When a container that ended is started again: restart policy and the kubelet's back-off curve.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::model::{Exit, Kind, Run};

/// First wait.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// Longest wait.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// A run this long forgives the past.
const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);
/// Reason the runtime gives a container whose command could not be started.
pub(crate) const START_ERROR: &str = "StartError";

/// Whether a container that ended with `code` is started again.
pub(crate) fn restarts(policy: &str, kind: Kind, code: i32) -> bool {
    match kind {
        Kind::Sidecar => true,
        // An init container that succeeded is done, whatever the policy.
        Kind::Init => code != 0 && policy != "Never",
        Kind::Main => match policy {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        },
    }
}

/// The wait after the next run, given the one before it: none, 10 s, 20 s, ... 300 s, from the start after a long run.
pub(crate) fn next_backoff(previous: Option<&Run>) -> Duration {
    match previous {
        None => Duration::ZERO,
        Some(run) if run.exit().is_some_and(ran_long) => FIRST,
        Some(run) => doubled(wait_after(run)),
    }
}

/// One step on the curve.
pub(crate) fn doubled(wait: Duration) -> Duration {
    if wait.is_zero() {
        FIRST
    } else {
        wait.saturating_mul(2).min(LONGEST)
    }
}

/// When the run after this one is due; nothing while this one has not ended.
pub(crate) fn due_at(run: &Run) -> Option<Timestamp> {
    let exit = run.exit()?;
    if ran_long(exit) {
        return Some(exit.finished_at);
    }
    let wait = SignedDuration::try_from(wait_after(run)).unwrap_or_default();
    Some(exit.finished_at.saturating_add(wait).unwrap_or(exit.finished_at))
}

/// The wait that applies to a run: what it was created with, but a command that cannot start always waits.
pub(crate) fn wait_after(run: &Run) -> Duration {
    if run.exit().is_some_and(Exit::is_start_error) {
        run.backoff.max(FIRST)
    } else {
        run.backoff
    }
}

fn ran_long(exit: &Exit) -> bool {
    exit.finished_at.duration_since(exit.started_at) >= FORGIVEN_AFTER
        && exit.started_at > Timestamp::UNIX_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::fixtures::{at, exited};

    /// Users know the kubelet's curve from their dashboards; ours must be the same.
    #[test]
    fn curve_is_the_kubelets() {
        let mut run = exited("c", 0, 1, at(0), at(1));
        let mut waits = Vec::new();
        for attempt in 1..9 {
            let backoff = next_backoff(Some(&run));
            waits.push(backoff.as_secs());
            run = exited("c", attempt, 1, at(0), at(1));
            run.backoff = backoff;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(next_backoff(None), Duration::ZERO);
    }

    /// A server that crashes once a day must not wait five minutes each time.
    #[test]
    fn long_run_forgives() {
        let mut run = exited("c", 5, 1, at(100), at(800));
        run.backoff = LONGEST;
        assert_eq!(due_at(&run), Some(at(800)));
        assert_eq!(next_backoff(Some(&run)), FIRST);
    }

    #[test]
    fn policy_table() {
        let rows = [
            ("Always", Kind::Main, 0, true),
            ("Always", Kind::Main, 1, true),
            ("OnFailure", Kind::Main, 0, false),
            ("OnFailure", Kind::Main, 1, true),
            ("Never", Kind::Main, 1, false),
            ("Always", Kind::Init, 0, false),
            ("Always", Kind::Init, 1, true),
            ("Never", Kind::Init, 1, false),
            ("Never", Kind::Sidecar, 0, true),
        ];
        for (policy, kind, code, expected) in rows {
            assert_eq!(restarts(policy, kind, code), expected, "{policy} {kind:?} {code}");
        }
    }
}

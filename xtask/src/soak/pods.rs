//! For the pods of a soak: what each does, and what must have become of it once the faults stop.

use serde_json::{Value, json};

use super::chance::Chance;
use crate::setup::image;

/// The environment variable by which the processes of a pod are known, whatever Kip says: its value is the pod's UID.
pub(super) const MARK: &str = "KIP_SOAK_POD";

/// What a pod does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Serves for ever; restarted whatever happens.
    Web,
    /// Runs once and ends with 0.
    Job,
    /// Runs once and ends with 3.
    FailingJob,
    /// Fails the first time on a cell and succeeds the second.
    RetriedJob,
    /// Ends with 1 again and again, and is restarted each time.
    CrashLoop,
    /// Would serve for ever, but has a deadline.
    Deadline,
}

/// What the API says of a pod at one moment, as far as it is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) phase: String,
    pub(super) ready: bool,
    pub(super) restarts: i64,
    pub(super) exit_code: Option<i64>,
    pub(super) reason: String,
}

impl Seen {
    pub(super) fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            phase: text(&status["phase"]),
            ready: status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True"),
            restarts: container["restartCount"].as_i64().unwrap_or(0),
            exit_code: container["state"]["terminated"]["exitCode"].as_i64(),
            reason: text(&status["reason"]),
        }
    }

    pub(super) fn is_final(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

impl Kind {
    const ALL: [(usize, Self); 6] = [
        (6, Self::Web),
        (4, Self::Job),
        (2, Self::FailingJob),
        (2, Self::RetriedJob),
        (1, Self::CrashLoop),
        (1, Self::Deadline),
    ];

    pub(super) fn draw(chance: &mut Chance) -> Self {
        chance.weighted(&Self::ALL).unwrap_or(Self::Web)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Job => "job",
            Self::FailingJob => "failing-job",
            Self::RetriedJob => "retried-job",
            Self::CrashLoop => "crash-loop",
            Self::Deadline => "deadline",
        }
    }

    /// Whether its containers may be started again after they ended, or on another cell.
    fn restart_policy(self) -> &'static str {
        match self {
            Self::Web | Self::CrashLoop | Self::Deadline => "Always",
            Self::RetriedJob => "OnFailure",
            Self::Job | Self::FailingJob => "Never",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Web | Self::Deadline => "trap 'exit 0' TERM; while :; do sleep 0.1; done",
            // Long enough to be seen, and to be hit.
            Self::Job => "sleep 3; exit 0",
            Self::FailingJob => "sleep 2; exit 3",
            Self::RetriedJob => "sleep 1; test -e /state/tried && exit 0; : > /state/tried; exit 3",
            Self::CrashLoop => "sleep 2; exit 1",
        }
    }

    pub(super) fn manifest(self, name: &str) -> Value {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": self.restart_policy(),
                "terminationGracePeriodSeconds": 2,
                "nodeSelector": {"type": "virtual-kubelet"},
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "volumes": [{"name": "state", "emptyDir": {}}],
                "containers": [{
                    "name": "main",
                    "image": image::NAME,
                    "command": ["sh", "-c", self.script()],
                    "env": [{"name": MARK, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                    "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
                }],
            },
        });
        if self == Self::Deadline {
            pod["spec"]["activeDeadlineSeconds"] = json!(20);
        }
        pod
    }

    /// How often its container may have been started, by the strikes on cells of its. `None`: as often as it likes.
    pub(super) fn most_runs(self, strikes: usize) -> Option<usize> {
        match self {
            Self::Job | Self::FailingJob => Some(1),
            Self::Web | Self::Deadline => Some(1 + strikes),
            Self::RetriedJob => Some(2 + 2 * strikes),
            Self::CrashLoop => None,
        }
    }

    /// Why the pod is not yet, or not at all, what it must become once the faults have stopped; `None`: it is.
    pub(super) fn amiss(self, seen: &Seen, runs: usize, strikes: usize) -> Option<String> {
        let is = |holds: bool, wanted: &str| (!holds).then(|| format!("should be {wanted}"));
        let (phase, code) = (seen.phase.as_str(), seen.exit_code);
        match self {
            Self::Web => is(phase == "Running" && seen.ready, "running and ready"),
            Self::CrashLoop => is(phase == "Running", "running, with restarts"),
            Self::Deadline => is(
                phase == "Failed" && seen.reason == "DeadlineExceeded",
                "failed by its deadline",
            ),
            Self::RetriedJob if strikes == 0 => is(
                phase == "Succeeded" && seen.restarts == 1 && runs == 2,
                "succeeded at its second run",
            ),
            Self::RetriedJob => is(phase == "Succeeded", "succeeded"),
            Self::Job if strikes == 0 => is(
                phase == "Succeeded" && code == Some(0) && runs == 1,
                "succeeded at its only run",
            ),
            Self::FailingJob if strikes == 0 => is(
                phase == "Failed" && code == Some(3) && runs == 1,
                "failed with 3 at its only run",
            ),
            // Its cell was taken from it: it may have ended before, or not have begun.
            Self::Job | Self::FailingJob => is(seen.is_final(), "ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(phase: &str) -> Seen {
        Seen {
            phase: phase.into(),
            ready: phase == "Running",
            ..Seen::default()
        }
    }

    #[test]
    fn a_pod_that_waits_for_ever_is_amiss_whatever_its_kind() {
        for (_, kind) in Kind::ALL {
            for strikes in [0, 1] {
                assert!(kind.amiss(&seen("Pending"), 1, strikes).is_some(), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_job_whose_cell_was_lost_may_fail_and_any_other_may_not() {
        assert_eq!(Kind::Job.amiss(&seen("Failed"), 1, 1), None);
        assert!(Kind::Job.amiss(&seen("Failed"), 1, 0).is_some());
        assert!(Kind::Web.amiss(&seen("Failed"), 1, 1).is_some());
        assert!(Kind::RetriedJob.amiss(&seen("Failed"), 1, 1).is_some());
    }

    #[test]
    fn a_pod_that_is_never_restarted_runs_once_however_many_cells_it_loses() {
        assert_eq!(Kind::Job.most_runs(3), Some(1));
        assert_eq!(Kind::Web.most_runs(0), Some(1));
    }
}

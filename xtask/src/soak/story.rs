//! For telling what became of each pod, and whether it had to.

use std::time::Duration;

use serde_json::Value;

use super::pods::{Kind, Seen};
use super::witness::Journal;

/// How long a container may still be seen after the pod that was deleted with a grace period is gone: it may be, when the
/// instance went down with it and the process table is read a little later.
const SLACK: Duration = Duration::from_secs(2);

/// How somebody deleted a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) at: Duration,
    pub(super) forced: bool,
}

/// One pod of the soak.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) kind: Kind,
    /// Cells of its that were taken from it.
    pub(super) strikes: usize,
    pub(super) deleted: Option<Deletion>,
    pub(super) last: Seen,
    /// When the API first said that it ended.
    ended: Option<Duration>,
    /// When the API first said that there is no such pod.
    gone: Option<Duration>,
    /// What happened to it, in order.
    notes: Vec<(Duration, String)>,
    /// What must not have happened to it.
    broken: Vec<String>,
}

/// What is wrong with a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lost: Vec<String>,
    pub(super) doubled: Vec<String>,
}

impl Story {
    pub(super) fn new(at: Duration, name: &str, uid: &str, kind: Kind) -> Self {
        let mut story = Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            kind,
            strikes: 0,
            deleted: None,
            last: Seen::default(),
            ended: None,
            gone: None,
            notes: Vec::new(),
            broken: Vec::new(),
        };
        story.note(at, "created");
        story
    }

    pub(super) fn note(&mut self, at: Duration, text: impl Into<String>) {
        self.notes.push((at, text.into()));
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Takes in what the API said at a time; `None`: there is no such pod.
    pub(super) fn hear(&mut self, at: Duration, pod: Option<&Value>) {
        if self.is_gone() {
            return;
        }
        let Some(pod) = pod else {
            self.gone = Some(at);
            self.note(at, "gone");
            if self.deleted.is_none() {
                self.broken.push("it is gone though nobody deleted it".into());
            }
            return;
        };
        let now = Seen::of(pod);
        if now == self.last {
            return;
        }
        if self.ended.is_some() && now.phase != self.last.phase {
            self.broken
                .push(format!("it was {} and became {}", self.last.phase, now.phase));
        }
        self.ended = self.ended.or(now.is_final().then_some(at));
        let Seen {
            phase,
            restarts,
            reason,
            ..
        } = &now;
        let ready = if now.ready { ", ready" } else { "" };
        let exit = now
            .exit_code
            .map(|code| format!(", exit code {code}"))
            .unwrap_or_default();
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!(", {reason}")
        };
        self.note(at, format!("{phase}{ready}{exit}{reason}, {restarts} restarts"));
        self.last = now;
    }

    /// What is not yet as it must become once the faults have stopped; `None`: nothing.
    pub(super) fn awaited(&self, journal: &Journal) -> Option<String> {
        match &self.deleted {
            Some(_) if self.is_gone() => None,
            Some(_) => Some("was deleted and is still there".into()),
            // A pod that vanished will not come back: it is judged in the end.
            None if self.is_gone() => None,
            None => self.kind.amiss(&self.last, self.runs(journal), self.strikes),
        }
    }

    fn runs(&self, journal: &Journal) -> usize {
        journal.runs.get(&self.uid).map_or(0, Vec::len)
    }

    /// Judges by all that was seen.
    pub(super) fn verdict(&self, journal: &Journal) -> Verdict {
        let mut verdict = Verdict {
            lost: self.broken.clone(),
            doubled: Vec::new(),
        };
        verdict.lost.extend(self.awaited(journal));
        let doubled = journal.doubled.get(&self.uid);
        verdict
            .doubled
            .extend(doubled.map(|when| format!("it ran twice at once {when}")));
        let runs = self.runs(journal);
        if let Some(most) = self.kind.most_runs(self.strikes).filter(|most| runs > *most) {
            verdict.doubled.push(format!(
                "it was started {runs} times, and at most {most} is right"
            ));
        }
        for run in journal.runs.get(&self.uid).into_iter().flatten() {
            if self.ended.is_some_and(|ended| run.first_seen > ended) {
                verdict.doubled.push(format!(
                    "it was started again after its end, in cell {}",
                    run.cell
                ));
            }
            let graceful = self.deleted.is_some_and(|deletion| !deletion.forced);
            if graceful && self.gone.is_some_and(|gone| run.last_seen > gone + SLACK) {
                verdict
                    .doubled
                    .push(format!("it went on in cell {} after it was gone", run.cell));
            }
        }
        verdict
    }

    /// Everything that happened to it, in order, one line each.
    pub(super) fn lines(&self, journal: &Journal) -> Vec<String> {
        let mut all = self.notes.clone();
        for run in journal.runs.get(&self.uid).into_iter().flatten() {
            let (pid, cell) = (run.id.pid, &run.cell);
            all.push((
                run.first_seen,
                format!("process {pid} in cell {cell} is first seen"),
            ));
            all.push((
                run.last_seen,
                format!("process {pid} in cell {cell} is last seen"),
            ));
        }
        all.sort_by_key(|(at, _)| *at);
        all.iter()
            .map(|(at, text)| format!("{:8.2} s  {text}", at.as_secs_f64()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn story(kind: Kind) -> Story {
        Story::new(Duration::ZERO, "p", "u", kind)
    }

    fn pod(phase: &str) -> Value {
        json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn a_pod_nobody_deleted_is_lost_when_it_is_gone() {
        let mut story = story(Kind::Web);
        story.hear(SECOND, Some(&pod("Running")));
        story.hear(2 * SECOND, None);
        assert_eq!(story.verdict(&Journal::default()).lost.len(), 1);
    }

    #[test]
    fn a_deleted_pod_must_go_and_may_then_be_forgotten() {
        let mut story = story(Kind::Web);
        story.hear(SECOND, Some(&pod("Running")));
        story.deleted = Some(Deletion {
            at: 2 * SECOND,
            forced: false,
        });
        assert!(story.awaited(&Journal::default()).is_some());
        story.hear(3 * SECOND, None);
        assert_eq!(story.verdict(&Journal::default()), Verdict::default());
    }

    #[test]
    fn an_end_is_final() {
        let mut story = story(Kind::Job);
        story.hear(SECOND, Some(&pod("Failed")));
        story.hear(2 * SECOND, Some(&pod("Running")));
        assert!(story.verdict(&Journal::default()).lost[0].contains("was Failed and became Running"));
    }
}

//! Whether everything is there that a controller needs, found out without changing anything.

mod ask;
mod identity;
mod judge;

use std::fmt;

pub(crate) use ask::{Asking, ask};
pub(crate) use identity::identity;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What was checked: `credentials`, or an action such as `ec2:RunInstances`.
    pub what: String,
    /// What it means.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, unless all is well.
    pub remedy: Option<String>,
}

/// What a check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It cannot be told without changing something.
    Unknown,
    /// Kip works, but something is lost.
    Warning,
    /// Kip does not work.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        })
    }
}

impl Check {
    pub(crate) fn new(what: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict,
            found: found.into(),
            remedy: None,
        }
    }

    /// The same, but a warning is a failure: nothing starts in this configuration.
    pub(crate) fn or_nothing_starts(mut self) -> Self {
        if self.verdict == Verdict::Warning {
            self.verdict = Verdict::Failed;
        }
        self
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

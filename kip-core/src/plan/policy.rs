//! How careful the planner is.

use std::time::Duration;

/// How careful the planner is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Things younger than this are left alone. Default 2 minutes: above the list lag of every cloud we know.
    pub grace: Duration,
    /// So many sweeps in a row must find a thing left over. Default 2.
    pub sweeps: u32,
    /// The same when the listing it is concluded from was wholly empty. Default 5.
    pub sweeps_when_empty: u32,
    /// The first and the last of these sweeps are at least so far apart. Default 10 seconds.
    pub confirm_after: Duration,
    /// Find, but do nothing.
    pub dry_run: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(120),
            sweeps: 2,
            sweeps_when_empty: 5,
            confirm_after: Duration::from_secs(10),
            dry_run: false,
        }
    }
}

impl Policy {
    /// Sets the age below which things are left alone.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how far apart the confirming sweeps are at least.
    #[must_use]
    pub fn with_confirm_after(mut self, confirm_after: Duration) -> Self {
        self.confirm_after = confirm_after;
        self
    }

    /// Finds but does nothing, or acts.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

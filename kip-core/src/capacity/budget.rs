//! What may be spent on probes: earned by launches that worked, so that waste is bounded by success.

use jiff::Timestamp;

use super::config::CapacityConfig;

/// An account in units of one launch that worked. A probe costs [`CapacityConfig::earn`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    units: i64,
    /// Since when the allowance of a quiet cluster runs.
    since: Option<Timestamp>,
}

impl Budget {
    /// One probe to begin with: nothing is known then, and somebody must find out.
    pub(super) fn new(config: &CapacityConfig) -> Self {
        Self {
            units: i64::from(config.earn),
            since: None,
        }
    }

    pub(super) fn can_pay(&self, config: &CapacityConfig) -> bool {
        self.units >= i64::from(config.earn)
    }

    pub(super) fn earned(&mut self, config: &CapacityConfig) {
        self.units = (self.units + 1).min(i64::from(config.earn) * i64::from(config.savings));
    }

    pub(super) fn pay(&mut self, config: &CapacityConfig) {
        let floor = -i64::from(config.earn) * i64::from(config.debt);
        self.units = (self.units - i64::from(config.earn)).max(floor);
    }

    pub(super) fn refund(&mut self, config: &CapacityConfig) {
        self.units += i64::from(config.earn);
    }

    /// Gives the allowance when its time has come. A clock that goes back only starts the time anew.
    pub(super) fn allow(&mut self, config: &CapacityConfig, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        if now < since {
            self.since = Some(now);
        } else if now.duration_since(since).unsigned_abs() >= config.allowance {
            self.since = Some(now);
            self.units = self.units.max(i64::from(config.earn));
        }
    }
}

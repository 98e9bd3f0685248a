//! How fast calls may go at most, where an operator says so.

/// A token bucket of so many calls, refilled at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestLimit {
    /// Calls per second in the long run. Zero or less, or no number, is no limit.
    pub per_second: f64,
    /// Calls that may go at once after a pause; at least one.
    pub burst: f64,
}

impl RequestLimit {
    /// Whether it limits anything.
    pub(in crate::driver) fn is_limit(&self) -> bool {
        self.per_second.is_finite() && self.per_second > 0.0
    }
}

/// The most calls to the provider that are made, by class. What the provider refuses as too many cuts a class further, so none is needed
/// where Kip is the account's only user; where others share the account's quota it leaves them their part. Default none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Launches.
    pub launch: Option<RequestLimit>,
    /// Terminations.
    pub terminate: Option<RequestLimit>,
    /// Everything that only reads.
    pub read: Option<RequestLimit>,
}

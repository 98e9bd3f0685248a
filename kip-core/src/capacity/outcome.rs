//! What a launch call taught about capacity.

use crate::error::{Error, ErrorKind, Retry};

/// How a launch call ended, as far as capacity is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// There is an instance.
    Launched,
    /// The offering has nothing to sell.
    NoCapacity,
    /// Nothing can be launched in its zone, whatever the type.
    ZoneFull,
    /// The account may have no more.
    Quota,
    /// Something that says nothing about capacity: throttled, rejected, no answer.
    Other,
}

impl Outcome {
    /// What a failed launch says.
    pub fn of_error(error: &Error) -> Self {
        match (error.kind(), error.retry()) {
            (_, Retry::OtherZone) => Self::ZoneFull,
            // A limit of one zone is, to placement, a zone that sells nothing.
            (_, Retry::Elsewhere) | (ErrorKind::InsufficientCapacity, _) => Self::NoCapacity,
            (ErrorKind::QuotaExceeded, _) => Self::Quota,
            _ => Self::Other,
        }
    }
}

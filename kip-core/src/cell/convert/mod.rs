//! Our model to the wire and back, and nothing else.

mod pod;
mod report;

pub(super) use pod::pod;
pub(super) use report::{report, stats, timestamp};

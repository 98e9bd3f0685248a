//! Remembers what launches taught about capacity, so that pods find room quickly and few calls are wasted on what has none. Pure.

mod budget;
mod closed;
mod config;
mod memory;
mod outcome;
mod traffic;

#[cfg(test)]
mod tests;

pub(crate) use closed::Reading;
pub use config::CapacityConfig;
pub use memory::{CapacityMemory, Change, Gate};
pub use outcome::Outcome;

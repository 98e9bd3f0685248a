//! The tokio shell around the pure machine: it fetches, persists and calls; it decides nothing.
//!
//! [`Kip::builder`] puts a [`Driver`] together. While it runs, a [`DriverHandle`] tells it what pods are wanted and answers what became
//! of them. It stores what a step decided *before* it does what the step asks for, so a crash at any point loses nothing: see
//! [`CellStore`] and recovery in [`Driver::run`].

mod builder;
mod catalogue;
mod clock;
mod config;
mod core;
mod executor;
mod fence;
mod follow;
mod governor;
mod handle;
mod launch_queue;
mod metrics;
mod notices;
mod persist;
mod queue;
mod recovery;
mod run;
mod source;
mod store;
mod sweep;
mod timers;

pub use builder::{Driver, Kip, KipBuilder};
pub use clock::{Clock, SystemClock, TokioClock};
pub use config::DriverConfig;
pub use governor::{RequestLimit, RequestLimits};
pub use handle::{CellSnapshot, DriverHandle};
pub use metrics::{BUCKETS, DriverMetrics, Durations, HeldBack, LaunchOutcome};
pub use source::{PodIntent, PodNotice, PodSource, Presence};
pub use store::{CellStore, MemoryCellStore};

pub use crate::model::{DamagedCell, StoredCell};

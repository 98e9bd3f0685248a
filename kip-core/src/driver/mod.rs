//! The tokio shell around the pure machine: it fetches, persists and calls; it decides nothing.

mod source;
mod store;

pub use source::{PodIntent, PodNotice, PodSource};
pub use store::{CellStore, MemoryCellStore};

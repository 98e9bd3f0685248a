//! What the cloud says now: who asks, how often, and what is made of the answers.

mod described;
mod pace;
mod pages;
mod price;
mod product;
mod refresh;
mod source;

pub(crate) use refresh::Refreshing;
pub use refresh::{PartState, Refresh};
pub use source::{Fetched, LiveSource};

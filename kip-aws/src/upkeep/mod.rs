//! What is kept in order beside the instances while a controller runs: routes to cells, and what was left over.

mod garbage;
mod routes;
mod sweep;
mod task;

pub(crate) use routes::{TAG, check, tag_value};
pub(crate) use task::Upkeep;

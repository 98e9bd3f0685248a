//! Decides what to do about the one pod: pure functions from what is wanted and what was seen to the next actions and
//! to the status. Nothing here waits, reads a clock or touches the machine; time is an argument.

pub(crate) mod decide;
pub(crate) mod image;
pub(crate) mod model;
pub(crate) mod project;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod spec;
pub(crate) mod validate;

#[cfg(test)]
pub(crate) mod fixtures;

//! Asks containers whether they live, are ready and have started, and runs their lifecycle hooks.

mod actions;
mod count;
mod worker;

pub(crate) use actions::{Target, run_hook};
pub(crate) use worker::{Kind, Report, Verdict, watch};

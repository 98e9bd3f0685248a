//! The pure state machine of one pod: [`step()`] takes a state, an event and the time, and returns the next state, what to do, and
//! when to look again.
//!
//! It does no I/O, reads no clock and holds no lock, so years of failures can be tested in milliseconds, and what is tested is what
//! runs. The driver stores and acts; it decides nothing.
//!
//! Rules it keeps, whatever the order of events:
//! - **M1** An instance id leaves a state only after the provider said `NotFound`.
//! - **M2** Never two instances for one pod that were both told to run it: cells follow one another, they do not overlap.
//! - **M3** Every action that has an effect is preceded by the [`Action::Save`] that makes it known after a crash.
//! - **M4** The workload's failures are the agent's; only the infrastructure's cost another instance.
//! - **M5** Every state that waits has a deadline and a named outcome ([`StepConfig`]); `wake_at` says when to look.
//! - **M6** While the source has not spoken, nothing is launched and nothing running is ended.
//! - **M7** Once the pod is deleted and faults stop, every state leads to [`Phase::Finished`].
#![warn(clippy::wildcard_enum_match_arm)]

mod action;
mod backoff;
mod config;
mod edges;
mod event;
mod recover;
mod stages;
mod state;
mod status;
mod step;
mod wake;

pub use action::{Action, Notice};
pub use backoff::Backoff;
pub(crate) use backoff::{after, elapsed};
pub use config::{Identity, StepConfig};
pub use edges::{EDGES, Edge, Phase, diagram};
pub use event::{Event, Failure};
pub use recover::recover;
pub use state::{
    After, BackingOff, Booting, Call, Cell, Connecting, Deploying, DrainCause, Draining, Finished,
    LaunchCall, Launching, Link, Outgoing, Pending, Pod, PodState, Release, Running, Setback, SetbackKind,
    Stage, Terminating, Verdict, Waiting, Wanted,
};
pub use status::project;
pub use step::{Step, step, step_answer};

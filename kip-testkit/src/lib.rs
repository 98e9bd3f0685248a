//! Everything needed to try Kip without a cloud: stateful fakes that can be told to fail once, a world that can be crashed at any
//! effect and started again, and the conformance suite for cloud providers.
//!
//! - A backend calls [`conformance::run`] from its tests.
//! - An embedder, and Kip itself, puts a driver into a [`World`] and breaks things.
//!
//! The fakes keep time by a [`Clock`](kip_core::driver::Clock); with tokio's paused clock hours pass in milliseconds.

mod cloud;
pub mod conformance;
#[cfg(feature = "ec2")]
pub mod ec2;
mod fault;
pub mod invariants;
mod runtime;
pub mod samples;
#[cfg(feature = "sim")]
pub mod sim;
mod source;
mod store;
mod tripwire;
mod world;

pub use cloud::{CloudCall, FakeCloud, Op};
pub use fault::{Fault, Faults};
pub use runtime::{FakeRuntime, HostOp, PodScript};
pub use source::{FakeSource, SourceOp};
pub use store::{FakeStore, StoreOp};
pub use tripwire::Tripwire;
pub use world::World;

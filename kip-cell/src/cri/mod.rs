//! Speaks to the container runtime: CRI v1 over its unix socket, and containerd's event stream beside it.
//!
//! CRI before containerd 1.7 has no event stream of its own (`GetContainerEvents` came with 1.7), so exits are learnt
//! from containerd's native one, which every supported version has on the same socket.

mod client;
mod events;

pub(crate) use client::{CallError, Runtime};
pub(crate) use events::{RuntimeEvent, watch};

/// The Container Runtime Interface, version 1.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// containerd's own event service.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod containerd {
    tonic::include_proto!("containerd.services.events.v1");
}

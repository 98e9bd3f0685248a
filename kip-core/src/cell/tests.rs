//! The controller's side of the contract against a real agent's end of a TLS socket.

mod agent;
mod conversion;
mod identity;
mod trust;

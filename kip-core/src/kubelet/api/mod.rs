//! The kubelet's HTTPS endpoint: logs, exec, attach, port-forward, pod lists, statistics and health.
//!
//! HTTP/1.1 only, because an upgrade does not exist in HTTP/2. Every route but `/healthz` needs an authenticated client that the API
//! server allows; whatever cannot be decided is refused. Interactive sessions are relayed as raw bytes to the cell's own
//! streaming server, so this module parses no SPDY and no WebSocket frames.

mod access;
mod directory;
mod duplex;
mod handler;
mod kept;
mod logs;
mod permission;
mod relay;
mod reply;
mod route;
mod server;
mod stats;
mod streams;

pub use access::{Identity, KubeReviewer, Reviewer};
pub use directory::PodDirectory;
pub use server::{EndpointServer, serving_config};

#[cfg(test)]
mod tests;

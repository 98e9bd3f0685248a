//! Runs pods on cells: the controller's side of the gRPC contract with the agent, and the authority both sides trust.
//!
//! [`CellAuthority`] signs the certificates of cells and controller; [`CellRuntime`] is the
//! [`PodRuntime`](crate::runtime::PodRuntime) that boots cells with an identity from it and talks to their agents over TLS 1.3
//! with certificates on both sides. TLS uses rustls with ring, passed explicitly: no default provider needs to be installed.

mod authority;
mod bounds;
mod cloud_init;
mod connect;
mod convert;
mod errors;
mod runtime;
mod tunnel;
mod user_data;

#[cfg(test)]
mod tests;

pub use authority::CellAuthority;
pub use cloud_init::CloudInit;
pub use kip_cell_api::{MetadataKind, MetadataService};
pub use runtime::CellRuntime;
pub use user_data::{AgentDownload, BootOptions};

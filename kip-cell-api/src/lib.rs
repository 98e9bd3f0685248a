//! The contract between Kip's controller and the agent on a cell: gRPC messages, and the boot configuration.
//!
//! Both sides depend on this crate and on nothing of each other. Compiled with protox, so no system `protoc` is needed.

mod config;

pub use config::{
    AGENT_PORT, BOOT_CONFIG_PATH, BOOT_CONFIG_VERSION, BootConfig, MetadataKind, MetadataService,
};

/// Version 1 of the wire contract, generated from `proto/kip/cell/v1/cell.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::invalid_html_tags,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("kip.cell.v1");
}

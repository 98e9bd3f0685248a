//! The agent on a cell: runs exactly one pod against a CRI runtime and tells the controller how it is.
//!
//! [`Agent`] is the whole of it; the `kip-cell` binary only adds command line and logging. How it works:
//!
//! - `reconcile` owns all state in one task. It hears messages (requests, runtime events, finished work, probe results),
//!   asks the pure functions in `pod` what to do and what to report, and starts work that reports back.
//! - What is wanted is stored on disk; what is, is rebuilt from the runtime's labels. Killing the agent at any moment
//!   touches no container, and a new one goes on from the same status.
//! - `server` speaks the contract of [`kip_cell_api`] over TLS 1.3 with certificates on both sides.

mod agent;
mod boot;
mod credentials;
pub mod cri;
mod host;
#[cfg(test)]
#[path = "../tests/support/imds.rs"]
mod imds;
mod logs;
mod metadata;
mod network;
mod pod;
mod probes;
mod reconcile;
mod server;
mod stats;
mod store;
mod tunnel;
mod volumes;

pub use agent::{Agent, AgentError};
pub use boot::{BootError, load as load_boot_config};
pub use credentials::{CREDENTIAL_PROVIDER_BIN_DIR, CREDENTIAL_PROVIDER_CONFIG_PATH, CredentialProviders};
pub use network::prepare as prepare_network;
pub use server::TlsError;

/// An error and its causes in one line, for logs and answers.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

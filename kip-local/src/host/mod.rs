//! The machine itself: its tools, processes, control groups and network, and what is left of us on it.

mod cgroup;
mod check;
mod leftovers;
mod network;
mod process;
mod subnet;
mod tool;

pub(crate) use cgroup::{Cgroups, Hierarchy, Limits};
pub use check::Missing;
pub(crate) use check::{Tools, cni_plugins, has_capability_sys_resource};
pub use leftovers::Leftovers;
pub use network::Addressing;
pub(crate) use network::Network;
pub(crate) use process::Process;
pub(crate) use subnet::Subnet;
pub(crate) use tool::run;

use std::path::Path;

/// The names of everything on this machine that belongs to one data folder. Two local clouds never share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    hash: String,
}

impl Names {
    /// The names for a data folder, given as an absolute path without links.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let hash = hmac_sha256::Hash::hash(data_dir.as_os_str().as_encoded_bytes());
        Self {
            hash: hash[..4].iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// What the names have in common.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// A number that differs from folder to folder, for choosing a network.
    pub(crate) fn number(&self) -> u32 {
        u32::from_str_radix(&self.hash, 16).unwrap_or_default()
    }

    pub(crate) fn bridge(&self) -> String {
        format!("kip{}", self.hash)
    }

    /// Name of the table in the firewall.
    pub(crate) fn table(&self) -> String {
        format!("kip_{}", self.hash)
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("kip-local/{}", self.hash)
    }

    pub(crate) fn netns_prefix(&self) -> String {
        format!("kip-{}-", &self.hash[..4])
    }

    pub(crate) fn link_prefix(&self) -> String {
        format!("kv{}", &self.hash[..4])
    }

    /// Name of an instance's network namespace, from its id without the `i-`.
    pub(crate) fn netns(&self, short: &str) -> String {
        format!("{}{short}", self.netns_prefix())
    }

    /// Name of the machine's end of an instance's link.
    pub(crate) fn link(&self, short: &str) -> String {
        format!("{}{short}", self.link_prefix())
    }
}

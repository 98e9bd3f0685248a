//! One machine as a cloud: for trying Kip, for developing it, and for tests with real containers.
//!
//! [`LocalCloud`] is a `CloudProvider` whose instances are sets of Linux namespaces on this machine, each with an init of its own,
//! a private containerd and the real `kip-cell` agent, booted from the same user-data a cloud would get. Instances have two
//! addresses on a bridge, a CPU and memory size enforced by cgroups, a price, and outlive the process that launched them.
//!
//! Instances see the machine's programs read-only and nothing else of its files, but they share its kernel and its devices: this is
//! for development and tests, not a boundary against hostile pods.
//!
//! Needs root, containerd, runc, the CNI plugins, iproute2, nftables and util-linux: [`LocalCloud::check`] says what is missing and how
//! to install it.

mod cloud;
mod config;
mod host;
mod image;
mod machine;
mod offering;
mod user_data;

pub use cloud::{Faults, LocalCloud};
pub use config::{LocalConfig, RegistryConfig};
pub use host::{Addressing, Leftovers, Missing};
pub use image::write_busybox_archive;
pub use offering::LocalOffering;

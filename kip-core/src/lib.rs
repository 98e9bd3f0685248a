//! Kip runs each Kubernetes pod on its own cloud instance.
//!
//! This crate is the whole of it but the clouds: the traits a backend or an embedder implements, sizing, the pure state machine of
//! a pod, the driver that runs it, and the virtual kubelet.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `driver` | yes | [`driver`]: the tokio shell around the machine |
//! | `kubelet` | no | `kubelet`: the virtual node on a Kubernetes API |
//! | `cell` | no | `cell`: `PodRuntime` over gRPC to the agent on a cell |
//! | `mock` | no | mocks of the traits, for proving that a call is not made |

pub mod capacity;
pub mod error;
pub mod ids;
pub mod machine;
pub mod model;
pub mod plan;
pub mod provider;
pub mod runtime;
pub mod sizing;

#[cfg(feature = "cell")]
pub mod cell;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(feature = "kubelet")]
pub mod kubelet;
#[cfg(feature = "mock")]
pub mod mock;
#[cfg(kip_mutants)]
pub mod mutants;

pub use error::{Error, ErrorKind, Result, Retry};

//! A Kubernetes API in this process, for tests and demos of any Rust controller.
//!
//! [`Cluster::builder`] starts an API over HTTPS on a loopback port within milliseconds. Real `kubectl`, kube-rs and
//! kubelets talk to it through the kubeconfig it writes:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = kip_cluster::Cluster::builder().start().await?;
//! cluster.write_kubeconfig("/tmp/kubeconfig")?;
//! // kubectl --kubeconfig /tmp/kubeconfig get pods
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Builder::in_process`] gives the same API as a `tower` service, without sockets, on a clock and with ids of the
//! caller's choice: for tests of many controllers in virtual time, the same to the byte each time.
//!
//! What is served, what is not, and how it differs from kube-apiserver is listed in the crate's README.
//!
//! The library reads no environment, installs no signal handler, no TLS provider, no tracing subscriber, and keeps
//! everything in memory: when the [`Cluster`] is gone, so is all it held.

mod api;
mod app;
mod apply;
mod auth;
mod cluster;
mod controllers;
mod defaults;
mod discovery;
mod error;
mod ids;
mod in_process;
mod object;
mod openapi;
mod origin;
mod patch;
mod proxy;
mod quantity;
mod registry;
mod scheduler;
mod schema;
mod selector;
mod server;
mod status;
mod store;
mod table;
mod validation;

pub use cluster::{Builder, Cluster};
pub use error::Error;
pub use in_process::InProcess;
pub use origin::{Origin, SeededOrigin, SystemOrigin};

/// The body of an answer of [`InProcess`].
pub type ResponseBody = api::Body;

//! The virtual kubelet: a Kubernetes Node, its pods and its HTTPS endpoint.

pub mod api;
mod config;
mod demand;
mod errors;
mod handle;
mod lease;
mod manifest;
mod node;
mod pods;
mod quantity;
mod registry;
mod status;

pub use config::{
    EndpointConfig, KubeletConfig, NodeConfig, NodeTaint, PodsConfig, ServingCertificate, SizingBasis,
};
pub use demand::{Refusal, demand};
pub use handle::PodDriver;

//! Serves the contract to the controller, over TLS 1.3 with certificates on both sides.

mod convert;
mod service;
mod tls;

pub(crate) use service::CellService;
pub use tls::TlsError;
pub(crate) use tls::{incoming, server_config};

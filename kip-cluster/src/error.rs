//! Say what went wrong while starting or steering a cluster.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a [`Cluster`](crate::Cluster) could not be started or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address to listen on is not to be had.
    #[error("cannot listen on {address}: choose another address, or port 0 for any free one")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A certificate or key could not be made.
    #[error("cannot make the {what}")]
    Certificate {
        /// Which one.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A client certificate was asked for more groups than it can carry.
    #[error("a client certificate carries at most two groups, {count} were asked for: use a token instead")]
    TooManyGroups {
        /// How many were asked for.
        count: usize,
    },
    /// A client certificate was asked of a cluster without a certificate authority.
    #[error("this cluster has no certificate authority: use a token instead")]
    NoAuthority,
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

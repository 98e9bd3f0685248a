//! For a bare machine: everything a task needs beyond Rust is put in place by the task itself.

pub(crate) mod debian;
pub(crate) mod image;
pub(crate) mod kubectl;
pub(crate) mod moto;
pub(crate) mod tools;
mod venv;

use std::path::PathBuf;

use anyhow::Result;

/// What running real pods needs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The real kubectl.
    pub(crate) kubectl: PathBuf,
    /// An image archive with `docker.io/library/busybox:1.35`.
    pub(crate) busybox: PathBuf,
}

/// Installs what running real pods needs and is not there: Debian packages, kubectl, the busybox image.
pub(crate) fn machine() -> Result<Machine> {
    debian::require_root()?;
    debian::ensure(debian::CELLS)?;
    Ok(Machine {
        kubectl: kubectl::provide()?,
        busybox: image::busybox()?,
    })
}

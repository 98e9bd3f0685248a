//! The machine image: what every instance has in its containerd from birth, unpacked once and shared by all.

mod bake;
mod oci;

pub(crate) use bake::{Baked, bake};
pub use oci::write_busybox_archive;

/// The image of every pod's sandbox. It is part of the machine image and never pulled.
pub(crate) const PAUSE_IMAGE: &str = "kip.local/pause:1";

//! The agent's own mounts: memory-backed folders and pinned sub-paths.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{TMPFS_FLAGS, VolumeError, errno, io};

/// Mounts memory at a folder; `limit` in bytes, 0 for the kernel's default.
pub(super) fn tmpfs(folder: &Path, limit: u64, mode: u32) -> Result<(), VolumeError> {
    let mut options = format!("mode={mode:o}");
    if limit > 0 {
        options.push_str(&format!(",size={limit}"));
    }
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        TMPFS_FLAGS,
        Some(options.as_str()),
    )
    .map_err(errno("mount memory at", folder))
}

/// Binds `source` over `target`.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), VolumeError> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(errno("bind a sub-path at", target))
}

/// Unmounts one place; nothing there is fine.
pub(super) fn unmount(target: &Path) -> Result<(), VolumeError> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(errno("unmount", target)(error)),
    }
}

/// Something is mounted exactly here, told by the device number.
pub(super) fn is_mount_point(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    folder
        .parent()
        .is_some_and(|parent| device(folder) != device(parent))
}

/// Unmounts whatever is mounted below a folder, deepest first.
pub(super) fn unmount_below(folder: &Path) -> Result<(), VolumeError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(io("read", table))?;
    let mut below: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(folder) && path != folder)
        .collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    below.iter().try_for_each(|path| unmount(path))
}

/// The kernel writes blanks and the like as octal escapes.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

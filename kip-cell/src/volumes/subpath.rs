//! Resolves a mount's sub-path inside its volume so that no symbolic link a container planted leads out of it: the path
//! is opened by the kernel with "stay beneath" and the opened object itself is bound, not its name.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::mounts::{bind as bind_mount, unmount};
use super::{VolumeError, io};

/// Binds `root/sub_path` at `place` (made as needed) and answers `place`. A missing sub-path becomes a folder.
pub(super) fn bind(root: &Path, sub_path: &str, place: &Path) -> Result<PathBuf, VolumeError> {
    let leaves = |error: nix::Error| VolumeError::SubPath {
        sub_path: sub_path.into(),
        source: error.into(),
    };
    let root_fd: OwnedFd = File::open(root).map_err(io("open", root))?.into();
    let object = match open_beneath(&root_fd, sub_path) {
        Err(nix::Error::ENOENT) => make(&root_fd, sub_path).map_err(leaves)?,
        other => other.map_err(leaves)?,
    };
    let is_dir =
        SFlag::from_bits_truncate(fstat(&object).map_err(leaves)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    // An earlier run's bind may point at content that was replaced since.
    unmount(place)?;
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(io("create", parent))?;
    match (is_dir, place.is_dir()) {
        (true, true) => {}
        (true, false) => {
            drop(fs::remove_file(place));
            fs::create_dir(place).map_err(io("create", place))?;
        }
        (false, was_dir) => {
            if was_dir {
                fs::remove_dir(place).map_err(io("remove", place))?;
            }
            fs::write(place, b"").map_err(io("create", place))?;
        }
    }
    bind_mount(Path::new(&format!("/proc/self/fd/{}", object.as_raw_fd())), place)?;
    Ok(place.to_path_buf())
}

fn open_beneath(root: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Makes the missing folders, each inside the one before as the kernel opened it.
fn make(root: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    let mut parent = open_beneath(root, ".")?;
    let mut so_far = PathBuf::new();
    for part in Path::new(path) {
        so_far.push(part);
        let name = so_far.to_string_lossy();
        parent = match open_beneath(root, &name) {
            Err(nix::Error::ENOENT) => {
                match mkdirat(&parent, part, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(nix::Error::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                open_beneath(root, &name)?
            }
            other => other?,
        };
    }
    Ok(parent)
}

//! Writes a volume of files so that a reader sees all of the old content or all of the new, never a mixture: the layout
//! with a `..data` link that is swapped, which programs that watch their configuration know from the kubelet.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};

use kip_cell_api::v1::File;

use super::{VolumeError, io};

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes the folder hold exactly these files. Does nothing when it already does.
pub(super) fn write(folder: &Path, files: &[File], fs_group: Option<u32>) -> Result<(), VolumeError> {
    let current = fs::read_link(folder.join(DATA)).ok();
    if current.is_some() && is_current(folder, files, fs_group) {
        return Ok(());
    }
    let stamp = OsString::from(format!("..{}", jiff::Timestamp::now().as_nanosecond()));
    let payload = folder.join(&stamp);
    make_folder(&payload, fs_group)?;
    for file in files {
        write_file(&payload, file, fs_group)?;
    }
    let next = folder.join(NEXT);
    drop(fs::remove_file(&next));
    symlink(&stamp, &next).map_err(io("create", &next))?;
    let data = folder.join(DATA);
    fs::rename(&next, &data).map_err(io("replace", &data))?;
    let tops: BTreeSet<&Path> = files.iter().filter_map(|file| top(&file.path)).collect();
    for top in &tops {
        let link = folder.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), &link).map_err(io("create", &link))?;
        }
    }
    tidy(folder, &tops, &stamp)
}

/// Removes links to files that are gone, and the content before this.
fn tidy(folder: &Path, tops: &BTreeSet<&Path>, current: &OsString) -> Result<(), VolumeError> {
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let entry = entry.map_err(io("list", folder))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == DATA || name == *current || tops.contains(Path::new(&name)) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(io("remove", &path))?;
    }
    Ok(())
}

fn write_file(payload: &Path, file: &File, fs_group: Option<u32>) -> Result<(), VolumeError> {
    let path = payload.join(&file.path);
    let mut folder = payload.to_path_buf();
    for part in Path::new(&file.path)
        .parent()
        .into_iter()
        .flat_map(Path::components)
    {
        folder.push(part);
        if !folder.is_dir() {
            make_folder(&folder, fs_group)?;
        }
    }
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("create", &path))?;
    out.write_all(&file.content).map_err(io("write", &path))?;
    if let Some(group) = fs_group {
        chown(&path, None, Some(group)).map_err(io("change the group of", &path))?;
    }
    out.set_permissions(Permissions::from_mode(mode(file, fs_group)))
        .map_err(io("set the mode of", &path))
}

/// The group that owns the volume may read every file of it.
fn mode(file: &File, fs_group: Option<u32>) -> u32 {
    let mode = file.mode & 0o777;
    if fs_group.is_some() { mode | 0o440 } else { mode }
}

fn make_folder(path: &Path, fs_group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir(path).map_err(io("create", path))?;
    let mode = match fs_group {
        None => 0o755,
        Some(group) => {
            chown(path, None, Some(group)).map_err(io("change the group of", path))?;
            0o2755
        }
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io("set the mode of", path))
}

fn is_current(folder: &Path, files: &[File], fs_group: Option<u32>) -> bool {
    let data = folder.join(DATA);
    let same = |file: &File| {
        let path = data.join(&file.path);
        fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode(file, fs_group))
            && fs::read(&path).is_ok_and(|content| content == file.content)
    };
    let mut found = BTreeSet::new();
    list(&data, &data, &mut found);
    let wanted: BTreeSet<PathBuf> = files.iter().map(|file| PathBuf::from(&file.path)).collect();
    found == wanted && files.iter().all(same)
}

fn list(root: &Path, folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(root, &path, found);
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_path_buf());
        }
    }
}

fn top(path: &str) -> Option<&Path> {
    match Path::new(path).components().next() {
        Some(Component::Normal(name)) => Some(Path::new(name)),
        _ => None,
    }
}

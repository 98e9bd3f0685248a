//! Puts the pod's volumes and the files the agent manages (hosts file, termination messages) in place, and says which
//! mounts a container gets. Everything here blocks and is idempotent.

mod files;
mod hosts;
mod mounts;
mod subpath;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kip_cell_api::v1::{Container, EmptyDir, HostPath, Pod, Volume, volume::Source};
use nix::mount::MsFlags;

use crate::cri::v1::Mount;
use crate::pod::spec;

/// Where the agent keeps one pod's things.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Volumes, hosts file, termination messages.
    pod: PathBuf,
    /// Log files, in the kubelet's layout.
    logs: PathBuf,
}

/// Why a volume could not be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("subPath {sub_path:?} leaves its volume or cannot be followed: {source}")]
    SubPath {
        sub_path: String,
        source: std::io::Error,
    },
    #[error("there is no volume {0:?}")]
    Unknown(String),
}

pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError + use<> {
    let path = path.to_path_buf();
    move |source| VolumeError::Io { what, path, source }
}

pub(crate) fn errno(what: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> VolumeError + use<> {
    let path = path.to_path_buf();
    move |error| VolumeError::Io {
        what,
        path,
        source: error.into(),
    }
}

impl Folders {
    /// The folders of a pod under the agent's state folder. The pod's names were checked, so they stay inside it.
    pub(crate) fn new(state_dir: &Path, pod: &Pod) -> Self {
        Self {
            pod: state_dir.join("pods").join(&pod.uid),
            logs: state_dir
                .join("logs")
                .join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid)),
        }
    }

    /// The pod's log folder.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.pod.join("volumes").join(name)
    }

    fn hosts(&self) -> PathBuf {
        self.pod.join("etc-hosts")
    }

    /// Where a run leaves its termination message.
    pub(crate) fn termination_message(&self, container: &str, attempt: u32) -> PathBuf {
        self.pod
            .join("containers")
            .join(container)
            .join(attempt.to_string())
            .join("termination-log")
    }

    /// Puts every volume in place, or brings file contents up to date. The first failure is the error, with the
    /// volume's name. Answers remarks worth an event.
    pub(crate) fn prepare(&self, pod: &Pod) -> Result<Vec<String>, (String, VolumeError)> {
        let fs_group = pod.security.as_ref().and_then(|security| security.fs_group);
        let fs_group = fs_group.and_then(|group| u32::try_from(group).ok());
        fs::create_dir_all(&self.logs).map_err(|e| ("logs".to_owned(), io("create", &self.logs)(e)))?;
        let mut remarks = Vec::new();
        for volume in &pod.volumes {
            match self.prepare_volume(volume, fs_group) {
                Ok(remark) => remarks.extend(remark),
                Err(error) => return Err((volume.name.clone(), error)),
            }
        }
        Ok(remarks)
    }

    fn prepare_volume(&self, volume: &Volume, fs_group: Option<u32>) -> Result<Option<String>, VolumeError> {
        let folder = self.volume(&volume.name);
        match &volume.source {
            Some(Source::EmptyDir(empty)) => empty_dir(&folder, empty, fs_group).map(|()| None),
            Some(Source::Files(files)) => {
                fs::create_dir_all(&folder).map_err(io("create", &folder))?;
                let mut remark = None;
                if files.secret
                    && !mounts::is_mount_point(&folder)
                    && let Err(error) = mounts::tmpfs(&folder, 0, 0o755)
                {
                    remark = Some(format!(
                        "secret volume {:?} lies on disk, not in memory: {error}",
                        volume.name
                    ));
                }
                files::write(&folder, &files.files, fs_group)?;
                Ok(remark)
            }
            Some(Source::HostPath(host)) => host_path(host).map(|()| None),
            None => Ok(None),
        }
    }

    /// Writes the pod's hosts file.
    pub(crate) fn write_hosts(&self, pod: &Pod, pod_ips: &[String]) -> Result<(), VolumeError> {
        let path = self.hosts();
        fs::create_dir_all(&self.pod).map_err(io("create", &self.pod))?;
        let host = if pod.host_network {
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let content = hosts::content(pod, &spec::hostname(pod), pod_ips, &host);
        fs::write(&path, content).map_err(io("write", &path))?;
        set_mode(&path, 0o644)
    }

    /// The mounts of one run of a container, sub-paths resolved.
    pub(crate) fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
    ) -> Result<Vec<Mount>, VolumeError> {
        let mut out = Vec::with_capacity(container.mounts.len() + 2);
        for (index, mount) in container.mounts.iter().enumerate() {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
            let root = match volume.map(|volume| &volume.source) {
                Some(Some(Source::HostPath(host))) => PathBuf::from(&host.path),
                Some(_) => self.volume(&mount.volume),
                None => return Err(VolumeError::Unknown(mount.volume.clone())),
            };
            let host_path = if mount.sub_path.is_empty() {
                root
            } else {
                let place = self
                    .pod
                    .join("subpaths")
                    .join(&mount.volume)
                    .join(&container.name)
                    .join(index.to_string());
                subpath::bind(&root, &mount.sub_path, &place)?
            };
            out.push(Mount {
                container_path: mount.mount_path.clone(),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: mount.read_only,
                propagation: spec::propagation(&mount.propagation).into(),
                ..Default::default()
            });
        }
        let taken = |path: &str| container.mounts.iter().any(|mount| mount.mount_path == path);
        if !taken("/etc/hosts") {
            out.push(Mount {
                container_path: "/etc/hosts".into(),
                host_path: self.hosts().to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        if !container.termination_message_path.is_empty() && !taken(&container.termination_message_path) {
            let path = self.termination_message(&container.name, attempt);
            let folder = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(io("create", folder))?;
            fs::write(&path, b"").map_err(io("create", &path))?;
            set_mode(&path, 0o666)?;
            out.push(Mount {
                container_path: container.termination_message_path.clone(),
                host_path: path.to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        Ok(out)
    }

    /// Takes down every mount made for the pod and removes its volumes. Logs stay. Safe to repeat.
    pub(crate) fn release(&self) -> Result<(), VolumeError> {
        mounts::unmount_below(&self.pod)?;
        for part in ["volumes", "subpaths"] {
            let folder = self.pod.join(part);
            match fs::remove_dir_all(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(VolumeError::Io {
                        what: "remove",
                        path: folder,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

fn empty_dir(folder: &Path, empty: &EmptyDir, fs_group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    if empty.medium == "Memory" && !mounts::is_mount_point(folder) {
        mounts::tmpfs(folder, empty.size_limit_bytes, 0o777)?;
    }
    // Whatever the agent's umask: any user of any container may write.
    match fs_group {
        None => set_mode(folder, 0o777),
        Some(group) => {
            std::os::unix::fs::chown(folder, None, Some(group)).map_err(io("change the group of", folder))?;
            set_mode(folder, 0o2777)
        }
    }
}

fn host_path(host: &HostPath) -> Result<(), VolumeError> {
    let path = Path::new(&host.path);
    let wrong = |wanted| {
        Err(VolumeError::HostPathType {
            path: host.path.clone(),
            wanted,
        })
    };
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    match (host.r#type.as_str(), kind) {
        ("Directory", Ok(kind)) if !kind.is_dir() => wrong("directory"),
        ("File" | "FileOrCreate", Ok(kind)) if !kind.is_file() => wrong("file"),
        ("DirectoryOrCreate", Ok(kind)) if !kind.is_dir() => wrong("directory"),
        ("Socket", Ok(kind)) if !kind.is_socket() => wrong("socket file"),
        ("Directory", Err(_)) => wrong("directory"),
        ("File", Err(_)) => wrong("file"),
        ("Socket", Err(_)) => wrong("socket file"),
        // Without a type a missing path becomes a folder, as the runtime of a kubelet does it.
        ("" | "DirectoryOrCreate", Err(_)) => {
            fs::create_dir_all(path).map_err(io("create", path))?;
            set_mode(path, 0o755)
        }
        ("FileOrCreate", Err(_)) => {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(io("create", path))?;
            set_mode(path, 0o644)
        }
        _ => Ok(()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set the mode of", path))
}

const TMPFS_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

#[cfg(test)]
mod tests;

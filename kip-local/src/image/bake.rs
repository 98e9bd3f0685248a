//! Unpacks image archives once into a containerd root that every instance then shares.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kip_core::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::oci;
use crate::host::{Names, Process, Tools, run};
use crate::machine::{Purpose, containerd_config};

/// Changes whenever the layout below does, so that an old image is not used.
const LAYOUT: u32 = 1;
/// How long containerd may take to start or end.
const PATIENCE: Duration = Duration::from_secs(30);
const CONTENT: &str = "io.containerd.content.v1.content";
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.overlayfs";
/// containerd's databases, by the folder each is in.
const DATABASES: [(&str, &str); 2] = [
    ("io.containerd.metadata.v1.bolt", "meta.db"),
    (SNAPSHOTS, "metadata.db"),
];

/// A machine image on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Baked {
    /// Holds `root` (containerd's root folder), and `databases`.
    pub(crate) folder: PathBuf,
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, "make machine image", message)
}

/// The machine image with these archives, made now if it was not made before.
///
/// # Errors
/// `ConfigInvalid` when an archive cannot be read or imported.
pub(crate) async fn bake(
    data_dir: &Path,
    names: &Names,
    tools: &Tools,
    archives: &[PathBuf],
) -> Result<Baked> {
    let images = data_dir.join("images");
    let version = run(&tools.containerd.to_string_lossy(), &["--version"], "").await?;
    let key = key(&version, &tools.busybox, archives)?;
    // Short: a socket's path has at most 107 bytes. What is there was left by a process that was killed: the data folder's lock says
    // nobody else is at it.
    let state = PathBuf::from(format!("/run/kip-local-bake-{}", names.hash()));
    remove(&state)?;
    let folder = images.join(&key);
    if !folder.exists() {
        let work = images.join(format!("{key}.new"));
        remove(&work)?;
        make(&work, tools, archives, &state).await?;
        fs::rename(&work, &folder).map_err(|source| failed("cannot rename it").with_source(source))?;
    }
    forget_others(&images, &key);
    Ok(Baked { folder })
}

/// Images of other archives are not needed any more: what instances use of them stays until they unmount it.
fn forget_others(images: &Path, key: &str) {
    let others = fs::read_dir(images).into_iter().flatten().flatten();
    for other in others.filter(|other| other.file_name() != *key) {
        if in_use(images, &other.path()) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(other.path()) {
            tracing::warn!(folder = %other.path().display(), %error, "cannot remove an old machine image");
        }
    }
}

/// Whether an instance was built from that image: its snapshots are links into it.
fn in_use(images: &Path, folder: &Path) -> bool {
    let Some(data_dir) = images.parent() else {
        return true;
    };
    let needle = format!("{} ", folder.display());
    fs::read_dir(data_dir.join("instances"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|instance| {
            fs::read_to_string(instance.path().join("fstab")).is_ok_and(|fstab| fstab.contains(&needle))
        })
}

fn key(version: &str, busybox: &Path, archives: &[PathBuf]) -> Result<String> {
    let mut hash = hmac_sha256::Hash::new();
    hash.update(LAYOUT.to_be_bytes());
    hash.update(version);
    for file in archives.iter().map(PathBuf::as_path).chain([busybox]) {
        let bytes = fs::read(file).map_err(|source| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "read image archive",
                "imageArchives: cannot read the file",
            )
            .with_context("file", file.display())
            .with_source(source)
        })?;
        hash.update(hmac_sha256::Hash::hash(&bytes));
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove an unfinished one").with_source(error))
        }
        _ => Ok(()),
    }
}

async fn make(work: &Path, tools: &Tools, archives: &[PathBuf], state: &Path) -> Result<()> {
    let root = work.join("root");
    let disk = |source: io::Error| failed("cannot write to the data folder").with_source(source);
    fs::create_dir_all(&root).map_err(disk)?;
    fs::create_dir_all(state).map_err(disk)?;
    let result = unpack(work, &root, state, tools, archives).await;
    let removed = fs::remove_dir_all(state);
    result?;
    removed.map_err(disk)?;
    let databases = work.join("databases");
    fs::create_dir_all(&databases).map_err(disk)?;
    for (folder, file) in DATABASES {
        fs::copy(root.join(folder).join(file), databases.join(file)).map_err(disk)?;
    }
    Ok(())
}

async fn unpack(work: &Path, root: &Path, state: &Path, tools: &Tools, archives: &[PathBuf]) -> Result<()> {
    let disk = |source: io::Error| failed("cannot write to the data folder").with_source(source);
    let pause = work.join("pause.tar");
    oci::write_pause_archive(&pause, &tools.busybox)?;
    let config = work.join("containerd.toml");
    fs::write(&config, containerd_config(Purpose::Bake { root, state }, true)).map_err(disk)?;

    let mut containerd = start(tools, &config).await?;
    let socket = state.join("containerd.sock");
    let mut imported = Ok(());
    for archive in [pause.as_path()]
        .into_iter()
        .chain(archives.iter().map(PathBuf::as_path))
    {
        let args = [
            "--address".as_ref(),
            socket.as_os_str(),
            "--namespace".as_ref(),
            "k8s.io".as_ref(),
            "images".as_ref(),
            "import".as_ref(),
            archive.as_os_str(),
        ];
        imported = run("ctr", &args, "").await.map(|_| ()).map_err(|source| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "import image archive",
                "imageArchives: containerd cannot import it; write it with `docker save` or as an OCI layout in a tar",
            )
            .with_context("file", archive.display())
            .with_source(source)
        });
        if imported.is_err() {
            break;
        }
    }
    stop(&mut containerd).await?;
    imported?;
    // Once more: while it starts, the CRI plugin writes down what it knows of each image, so that no instance has to.
    let mut containerd = start(tools, &config).await?;
    stop(&mut containerd).await?;
    fs::remove_file(&pause).map_err(disk)
}

/// Starts containerd and returns when it serves.
async fn start(tools: &Tools, config: &Path) -> Result<Child> {
    // Mounts it makes to unpack are its own, and go with it, as it goes with us even when we are killed.
    let mut child = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ])
        .arg(&tools.containerd)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed("cannot run containerd").with_source(source))?;
    let Some(stderr) = child.stderr.take() else {
        return Err(failed("containerd has no standard error"));
    };
    let mut lines = BufReader::new(stderr).lines();
    let mut last = String::new();
    let served = tokio::time::timeout(PATIENCE, async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("containerd successfully booted") {
                return true;
            }
            last = line;
        }
        false
    })
    .await;
    if served != Ok(true) {
        return Err(failed(format!("containerd did not start: {last}")));
    }
    // It must always find somebody who reads.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(child)
}

async fn stop(child: &mut Child) -> Result<()> {
    // Asked, not killed: its databases must be whole. `unshare` is its parent, and not told.
    let children = child
        .id()
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok())
        .unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        Process::open(pid, None)
            .and_then(|process| process.map_or(Ok(()), |process| process.ask_to_end()))
            .map_err(|source| failed("cannot end containerd").with_source(source))?;
    }
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(failed("cannot wait for containerd").with_source(source)),
        Err(_) => Err(failed("containerd did not end")),
    }
}

impl Baked {
    /// Makes an instance's containerd root from it. Costs a few links: unpacked layers are shared, and read-only to the instance.
    ///
    /// Inside of an instance the image is at `/kip/image` and its databases are copied to `/run/kip-databases`.
    pub(crate) fn clone_into(&self, root: &Path) -> io::Result<()> {
        let inside = Path::new("/kip/image/root");
        let snapshots = Path::new(SNAPSHOTS).join("snapshots");
        fs::create_dir_all(root.join(&snapshots))?;
        for snapshot in fs::read_dir(self.folder.join("root").join(&snapshots))? {
            let name = snapshot?.file_name();
            symlink(
                inside.join(&snapshots).join(&name),
                root.join(&snapshots).join(&name),
            )?;
        }
        let blobs = Path::new(CONTENT).join("blobs/sha256");
        fs::create_dir_all(root.join(&blobs))?;
        for blob in fs::read_dir(self.folder.join("root").join(&blobs))? {
            let blob = blob?;
            fs::hard_link(blob.path(), root.join(&blobs).join(blob.file_name()))?;
        }
        for (folder, file) in DATABASES {
            fs::create_dir_all(root.join(folder))?;
            symlink(
                Path::new("/run/kip-databases").join(file),
                root.join(folder).join(file),
            )?;
        }
        Ok(())
    }
}

//! What happens before the first instance: the data folder, its lock and records, the agent, the network.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kip_core::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::START;
use super::record::Record;
use crate::config::LocalConfig;
use crate::host::{Names, Network, Subnet};

/// The network that was chosen, kept while instances use it.
#[derive(Serialize, Deserialize)]
struct ChosenNetwork {
    subnet: String,
    bridge: String,
}

/// Makes the data folder and takes its lock.
pub(super) fn open_data_dir(data_dir: &Path) -> Result<(PathBuf, File)> {
    let failed = |message: &str| {
        let message = format!("dataDir: {message}");
        Error::new(ErrorKind::ConfigInvalid, START, message).with_context("folder", data_dir.display())
    };
    let disk = |source| failed("cannot use the folder").with_source(source);
    fs::create_dir_all(data_dir).map_err(disk)?;
    // Private keys of instances are below it.
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(disk)?;
    let data_dir = fs::canonicalize(data_dir).map_err(disk)?;
    for folder in ["instances", "images"] {
        fs::create_dir_all(data_dir.join(folder)).map_err(disk)?;
    }
    let kind = nix::sys::statfs::statfs(&data_dir)
        .map_err(|source| disk(source.into()))?
        .filesystem_type();
    if kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
        return Err(failed(
            "it is on an overlay file system (as inside of a container), where containers cannot have theirs: use a volume",
        ));
    }
    if kind == nix::sys::statfs::NFS_SUPER_MAGIC {
        return Err(failed(
            "it is on NFS, where containers cannot have their file systems: use a local disk",
        ));
    }
    let lock = File::create(data_dir.join("lock")).map_err(disk)?;
    match lock.try_lock() {
        Ok(()) => Ok((data_dir, lock)),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Conflict,
            START,
            "another process runs the local cloud of this folder: stop it, or use another `dataDir`",
        )
        .with_context("folder", data_dir.display())),
        Err(fs::TryLockError::Error(source)) => Err(disk(source)),
    }
}

pub(super) fn agent_path(configured: Option<&Path>) -> Result<PathBuf> {
    let path = match configured {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .ok()
            .and_then(|program| program.parent().map(|folder| folder.join("kip-cell")))
            .unwrap_or_else(|| PathBuf::from("kip-cell")),
    };
    let meta = fs::metadata(&path);
    if meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0) {
        return fs::canonicalize(&path).map_err(|source| {
            Error::new(ErrorKind::ConfigInvalid, START, "agentPath: cannot resolve it").with_source(source)
        });
    }
    Err(Error::new(
        ErrorKind::ConfigInvalid,
        START,
        "agentPath: there is no program; build the agent with `cargo build -p kip-cell` or set the field",
    )
    .with_context("path", path.display()))
}

/// Reads the records of all instances. A folder without one belongs to a launch that nobody was told of: it is removed.
pub(super) fn load_records(data_dir: &Path) -> Result<Vec<Record>> {
    let disk =
        |source| Error::new(ErrorKind::Unexpected, START, "cannot read the data folder").with_source(source);
    let mut records = Vec::new();
    for entry in fs::read_dir(data_dir.join("instances")).map_err(disk)? {
        let folder = entry.map_err(disk)?.path();
        let unreadable = |source| {
            Error::new(
                ErrorKind::Unexpected,
                START,
                "the record of an instance cannot be read: start the version that wrote it, or remove its folder to lose the instance",
            )
            .with_context("folder", folder.display())
            .with_source(source)
        };
        match Record::load(&folder).map_err(unreadable)? {
            Some(record) => records.push(record),
            None => fs::remove_dir_all(&folder).map_err(disk)?,
        }
    }
    Ok(records)
}

pub(super) async fn plan_network(
    config: &LocalConfig,
    data_dir: &Path,
    names: &Names,
    in_use: bool,
) -> Result<Network> {
    let file = data_dir.join("network.json");
    let chosen: Option<ChosenNetwork> = fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let kept = chosen
        .as_ref()
        .and_then(|chosen| Subnet::parse(&chosen.subnet).ok());
    let network = Network::plan(
        names,
        data_dir,
        config.bridge.as_deref(),
        config.subnet.as_deref(),
        kept,
    )
    .await?;
    let now = ChosenNetwork {
        subnet: network.subnet.to_string(),
        bridge: network.bridge.clone(),
    };
    if in_use
        && let Some(before) = &chosen
        && (before.subnet != now.subnet || before.bridge != now.bridge)
    {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            START,
            format!(
                "instances are running on bridge {} in {}: set `bridge` and `subnet` to these until they are gone",
                before.bridge, before.subnet
            ),
        ));
    }
    serde_json::to_vec(&now)
        .map_err(std::io::Error::other)
        .and_then(|bytes| fs::write(&file, bytes))
        .map_err(|source| {
            Error::new(ErrorKind::Unexpected, START, "cannot write to the data folder").with_source(source)
        })?;
    Ok(network)
}

/// The name servers an instance can reach: the machine's own loopback is not its.
pub(super) fn nameservers(config: &LocalConfig) -> Vec<IpAddr> {
    if !config.nameservers.is_empty() {
        return config.nameservers.clone();
    }
    // The second has the real ones where the first names a local resolver.
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found: Vec<IpAddr> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|server| server.trim().parse().ok())
            .filter(|server: &IpAddr| !server.is_loopback())
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    tracing::warn!("this machine has no name server that instances can reach: set `nameservers`");
    Vec::new()
}

//! For proving that nothing is left: what the cells of one local cloud can leave on a machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::command::{cmd, outcome, read};
use crate::control_plane::hex;
use crate::daemon::wait_until;
use crate::processes::{self, Process};

/// The names a local cloud gives what it makes, all derived from its data folder. Known here a second time, on purpose:
/// the cloud's own idea of what is left is not what proves that nothing is.
#[derive(Debug, Clone)]
pub(crate) struct LocalCloud {
    data: PathBuf,
    hash: String,
}

impl LocalCloud {
    /// The local cloud of a data folder, which must exist.
    pub(crate) fn of(data: &Path) -> Result<Self> {
        let data = data
            .canonicalize()
            .with_context(|| format!("cannot find {}", data.display()))?;
        let hash = hex(&Sha256::digest(data.as_os_str().as_encoded_bytes()))[..8].to_owned();
        Ok(Self { data, hash })
    }

    /// The control group all its cells are in, each in a group below by the name of its instance.
    pub(crate) fn group(&self) -> String {
        format!("kip-local/{}", self.hash)
    }

    /// The processes of its cells.
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        processes::in_cgroup(&self.group())
    }

    /// The UID of the pod an instance was launched for, by the instance's tags; `cell` is the name of its control group.
    /// `None` when it is just being made or removed.
    pub(crate) fn pod_of(&self, cell: &str) -> Option<String> {
        let record = self
            .data
            .join("instances")
            .join(format!("i-{cell}/instance.json"));
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        record["tags"]["kip.elotl.co/pod-uid"].as_str().map(str::to_owned)
    }

    /// Everything on this machine that is its, each as one line. Empty: nothing.
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let short = &self.hash[..4];
        let named = |what: &str, names: Vec<String>, prefixes: &[String]| -> Vec<String> {
            let ours = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
            names
                .into_iter()
                .filter(ours)
                .map(|name| format!("{what} {name}"))
                .collect()
        };
        left.extend(named(
            "network namespace",
            entries("/run/netns"),
            &[format!("kip-{short}-")],
        ));
        left.extend(named(
            "network link",
            entries("/sys/class/net"),
            &[format!("kv{short}"), format!("kip{}", self.hash)],
        ));
        let tables = read(&mut cmd("nft", ["list", "tables"]))?;
        let tables = tables
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .map(str::to_owned)
            .collect();
        left.extend(named("firewall table", tables, &[format!("kip_{}", self.hash)]));
        left.extend(
            cgroups(Path::new("/sys/fs/cgroup"), 4)
                .into_iter()
                .filter(|path| path.contains(&self.hash))
                .map(|path| format!("control group {path}")),
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        let points = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
        left.extend(
            points
                .filter(|point| Path::new(point).starts_with(&self.data))
                .map(|point| format!("mount {point}")),
        );
        left.extend(
            entries(self.data.join("instances"))
                .into_iter()
                .map(|name| format!("instance {name}")),
        );
        let mut running = self.processes()?;
        running.extend(processes::mentioning(&self.data)?);
        left.extend(
            running
                .iter()
                .map(|process| format!("process {} {}", process.pid, process.program)),
        );
        Ok(left)
    }

    /// What is left after giving it a moment to go. Empty: nothing.
    pub(crate) fn still_left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let gone = wait_until("nothing to be left", Duration::from_secs(20), || {
            left = self.left()?;
            Ok(left.is_empty().then_some(()))
        });
        match gone {
            Err(error) if left.is_empty() => Err(error),
            _ => Ok(left),
        }
    }

    /// Fails with what is left, after giving it a moment to go.
    pub(crate) fn prove_none_left(&self) -> Result<()> {
        let left = self.still_left()?;
        if !left.is_empty() {
            bail!("left behind:\n  {}", left.join("\n  "));
        }
        Ok(())
    }
}

impl LocalCloud {
    /// Removes what is left, as far as it goes: after a failure that was told, so that the machine is as it was.
    pub(crate) fn clear(&self) {
        let mut running = self.processes().unwrap_or_default();
        running.extend(processes::mentioning(&self.data).unwrap_or_default());
        for process in running {
            // What has ended, or was never there, is as good as removed: here and below.
            kill(Pid::from_raw(process.pid), Signal::SIGKILL).ok();
        }
        let short = &self.hash[..4];
        let remove = |program: &str, args: &[&str]| drop(outcome(&mut cmd(program, args)));
        for name in entries("/run/netns") {
            if name.starts_with(&format!("kip-{short}-")) {
                remove("ip", &["netns", "delete", &name]);
            }
        }
        for name in entries("/sys/class/net") {
            if name.starts_with(&format!("kv{short}")) || name.starts_with(&format!("kip{}", self.hash)) {
                remove("ip", &["link", "delete", &name]);
            }
        }
        remove("nft", &["delete", "table", "ip", &format!("kip_{}", self.hash)]);
        // A group goes once its processes have, and after the groups in it.
        let groups = cgroups(Path::new("/sys/fs/cgroup"), 8);
        let ours = |path: &&String| path.contains(&self.hash);
        wait_until("the control groups to be empty", Duration::from_secs(5), || {
            let left = groups
                .iter()
                .rev()
                .filter(ours)
                .filter(|path| std::fs::remove_dir(path).is_err() && Path::new(path).exists())
                .count();
            Ok((left == 0).then_some(()))
        })
        .ok();
    }
}

/// The names in a folder; none when there is no such folder.
fn entries(folder: impl AsRef<Path>) -> Vec<String> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    listed
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn cgroups(folder: &Path, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // A cgroup may go away while it is read; what is gone is not left.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        found.insert(path.to_string_lossy().into_owned());
        if depth > 1 {
            found.extend(cgroups(&path, depth - 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_an_instance_under_the_folder_count_as_left() {
        let folder = tempfile::tempdir().unwrap();
        let instance = folder.path().join("instances/i-1");
        std::fs::create_dir_all(&instance).unwrap();
        let script = instance.join("stay");
        std::fs::write(&script, "").unwrap();
        let mut child = std::process::Command::new("tail")
            .arg("-f")
            .arg(&script)
            .spawn()
            .unwrap();
        let found = LocalCloud::of(folder.path()).unwrap().left().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            found,
            ["instance i-1".to_owned(), format!("process {} tail", child.id())],
            "a leak would go unseen"
        );
    }
}

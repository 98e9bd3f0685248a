//! For proving that nothing is left: what a set of cells can leave on a machine, found by the data folder they lived
//! in and by comparison with how the machine was before.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{cmd, read};
use crate::processes;

/// What there was on the machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    namespaces: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<String>,
}

impl Machine {
    /// Takes stock.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self {
            namespaces: first_words(&read(&mut cmd("ip", ["netns", "list"]))?),
            links: read(&mut cmd("ip", ["-o", "link", "show"]))?
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1))
                .map(|name| {
                    name.trim_end_matches(':')
                        .split('@')
                        .next()
                        .unwrap_or(name)
                        .to_owned()
                })
                .collect(),
            cgroups: cgroups(Path::new("/sys/fs/cgroup"), 3),
        })
    }
}

/// What is left of the cells under `data` since `before`, each as one line. Empty: nothing.
///
/// Network namespaces, links and cgroups count when their name is Kip's: other programs on this machine make theirs.
pub(crate) fn since(before: &Machine, data: &Path) -> Result<Vec<String>> {
    let now = Machine::now()?;
    let mut left = Vec::new();
    for (what, was, is) in [
        ("network namespace", &before.namespaces, &now.namespaces),
        ("network link", &before.links, &now.links),
        ("cgroup", &before.cgroups, &now.cgroups),
    ] {
        left.extend(
            is.difference(was)
                .filter(|name| name.contains("kip"))
                .map(|name| format!("{what} {name}")),
        );
    }
    let data_text = data.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    left.extend(
        mounts
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .filter(|point| point.starts_with(&*data_text))
            .map(|point| format!("mount {point}")),
    );
    left.extend(
        processes::mentioning(data)?
            .iter()
            .map(|process| format!("process {} {}", process.pid, process.program)),
    );
    Ok(left)
}

/// Fails with what is left, after giving it a moment to go.
pub(crate) fn prove_none(before: &Machine, data: &Path) -> Result<()> {
    let mut left = Vec::new();
    let gone = crate::daemon::wait_until(
        "the machine to be as before",
        std::time::Duration::from_secs(20),
        || {
            left = since(before, data)?;
            Ok(left.is_empty().then_some(()))
        },
    );
    if gone.is_err() && !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    gone
}

fn first_words(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
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
    fn a_process_under_the_folder_counts_as_left() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("stay");
        std::fs::write(&script, "").unwrap();
        let mut child = std::process::Command::new("tail")
            .arg("-f")
            .arg(&script)
            .spawn()
            .unwrap();
        let found = processes::mentioning(folder.path()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "a leaked process would go unseen: {found:?}");
    }
}

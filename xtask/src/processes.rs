//! For finding processes by what they are, from `/proc`.

use std::path::Path;

use anyhow::{Context, Result};

/// A running process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// The file name of its program.
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// Resident memory in KiB; 0 once it has ended.
    pub(crate) fn resident_kib(&self) -> u64 {
        resident_kib(self.pid)
    }
}

/// Resident memory of a process in KiB; 0 once it has ended.
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Every process in a control group of that name or below it, in any of this machine's hierarchies.
pub(crate) fn in_cgroup(name: &str) -> Result<Vec<Process>> {
    let needle = format!("/{name}");
    let is_inside = |process: &Process| {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        groups.lines().any(|line| {
            line.split(&needle)
                .nth(1)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    Ok(all()?.into_iter().filter(is_inside).collect())
}

/// Every process one of whose arguments mentions `path`, apart from this one.
pub(crate) fn mentioning(path: &Path) -> Result<Vec<Process>> {
    let needle = path.to_string_lossy().into_owned();
    let mine = std::process::id().cast_signed();
    Ok(all()?
        .into_iter()
        .filter(|process| process.pid != mine && process.arguments.iter().any(|arg| arg.contains(&needle)))
        .collect())
}

fn all() -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry.context("cannot read /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the two reads; then it is not there.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let arguments: Vec<String> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let Some(first) = arguments.first() else { continue };
        let program = first.rsplit('/').next().unwrap_or(first).to_owned();
        found.push(Process {
            pid,
            program,
            arguments,
        });
    }
    Ok(found)
}

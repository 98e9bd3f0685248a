//! Control groups: an instance's size, enforced by the kernel, in version 1 and version 2.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::{Bytes, CpuMillis};

use super::Process;

/// How long the kernel may take to end a process that was killed.
const DEATH: Duration = Duration::from_secs(10);
/// Length of the period CPU time is counted in, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Version 2 only: the group for an instance's own processes, beside the containers' groups.
const LEAF: &str = "init";

/// A mounted hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// What it is mounted with: the controllers, or a name. Empty for version 2.
    pub(crate) options: String,
}

impl Hierarchy {
    pub(crate) fn is_v2(&self) -> bool {
        self.options.is_empty()
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) cpu: CpuMillis,
    pub(crate) memory: Bytes,
}

impl Limits {
    /// CPU time a period: a type below one CPU is shared-core and may use a whole one when nobody else wants it.
    fn quota_us(self) -> u64 {
        self.cpu.0.max(1000) * (PERIOD_US / 1000)
    }

    /// Its share when the machine is busy, 1024 a CPU.
    fn shares(self) -> u64 {
        (self.cpu.0 * 1024 / 1000).clamp(2, 262_144)
    }

    /// The same share on version 2's scale, by the kernel documentation's formula.
    fn weight(self) -> u64 {
        1 + (self.shares() - 2) * 9999 / 262_142
    }
}

/// The machine's control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroups {
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// What is mounted on this machine.
    pub(crate) fn of_machine() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|source| {
            Error::new(
                ErrorKind::Unexpected,
                "read mounts",
                "cannot read /proc/self/mountinfo",
            )
            .with_source(source)
        })?;
        let found = Self::parse(&mounts);
        if found.hierarchies.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "start local cloud",
                "no control groups are mounted at /sys/fs/cgroup: mount cgroup2 there, or run on a machine that does",
            ));
        }
        Ok(found)
    }

    /// The hierarchies in a mount table. A version 2 hierarchy beside version 1 ones (hybrid mode) is left alone: containers use
    /// version 1 then.
    fn parse(mountinfo: &str) -> Self {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = before.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut after = after.split(' ');
            let kind = after.next();
            let options = after.nth(1).unwrap_or_default();
            match kind {
                Some("cgroup") => {
                    // Mounted twice, or by hand elsewhere: the first is as good as the others.
                    let options: Vec<_> = options
                        .split(',')
                        .filter(|option| {
                            !matches!(*option, "rw" | "ro" | "xattr" | "clone_children" | "seclabel")
                        })
                        .filter(|option| !option.starts_with("release_agent="))
                        .collect();
                    let options = options.join(",");
                    if !options.is_empty() && !v1.iter().any(|one: &Hierarchy| one.options == options) {
                        v1.push(Hierarchy { mount, options });
                    }
                }
                Some("cgroup2") if mount == Path::new("/sys/fs/cgroup") => {
                    v2 = Some(Hierarchy {
                        mount,
                        options: String::new(),
                    });
                }
                _ => {}
            }
        }
        if let Some(v2) = v2 {
            return Self {
                hierarchies: vec![v2],
            };
        }
        Self { hierarchies: v1 }
    }

    /// Makes the group `name` in every hierarchy and sets its limits. Safe to repeat.
    pub(crate) fn create(&self, name: &str, limits: Limits) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let failed = |source: io::Error| {
                Error::new(
                    ErrorKind::Unexpected,
                    "make control group",
                    "the kernel refused it",
                )
                .with_context("group", hierarchy.mount.join(name).display())
                .with_source(source)
            };
            create_in(hierarchy, name).map_err(failed)?;
            let group = hierarchy.mount.join(name);
            let set = |file: &str, value: String| fs::write(group.join(file), value).map_err(failed);
            let (quota, shares, memory) = (limits.quota_us(), limits.shares(), limits.memory.0);
            if hierarchy.is_v2() {
                fs::create_dir_all(group.join(LEAF)).map_err(failed)?;
                set("cpu.max", format!("{quota} {PERIOD_US}"))?;
                set("cpu.weight", limits.weight().to_string())?;
                set("memory.max", memory.to_string())?;
            }
            if hierarchy.has("cpu") {
                set("cpu.shares", shares.to_string())?;
                // Kernels without bandwidth control have no such file; shares are then all there is.
                if group.join("cpu.cfs_quota_us").exists() {
                    set("cpu.cfs_period_us", PERIOD_US.to_string())?;
                    set("cpu.cfs_quota_us", quota.to_string())?;
                }
            }
            if hierarchy.has("memory") {
                set("memory.limit_in_bytes", memory.to_string())?;
            }
        }
        Ok(())
    }

    /// The files a process writes its number to in order to join the group.
    pub(crate) fn entrances(&self, name: &str) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mount.join(name).join("cgroup.procs"))
            .collect()
    }

    /// Version 2 only: the group that an instance's own processes move to, so that its top can have groups below.
    pub(crate) fn leaf(&self, name: &str) -> Option<PathBuf> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.is_v2())
            .map(|hierarchy| hierarchy.mount.join(name).join(LEAF))
    }

    /// Every process in the group and below.
    pub(crate) fn processes(&self, name: &str) -> Vec<i32> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            for group in groups_below(&hierarchy.mount.join(name)) {
                // A group that vanishes while it is read has no processes.
                let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                found.extend(
                    text.lines()
                        .filter_map(|line| line.parse::<i32>().ok())
                        .filter(|pid| *pid > 0),
                );
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Kills every process in the group and below and waits for their end; false when some would not end.
    pub(crate) async fn kill(&self, name: &str) -> io::Result<bool> {
        // Whoever is killed cannot fork any more, but what it forked before may not have been listed: look again until none is left.
        loop {
            let mut victims = Vec::new();
            for pid in self.processes(name) {
                if let Some(process) = Process::open(pid, None)? {
                    process.kill()?;
                    victims.push(process);
                }
            }
            if victims.is_empty() {
                return Ok(true);
            }
            for process in victims {
                if !process.ended_within(DEATH).await? {
                    return Ok(false);
                }
            }
        }
    }

    /// Removes the group and all below it. That there is none is success.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut groups = groups_below(&hierarchy.mount.join(name));
            groups.reverse();
            for group in groups {
                remove_group(&group)?;
            }
        }
        Ok(())
    }

    /// Removes the groups above, as far as they are empty.
    pub(crate) fn remove_parents(&self, name: &str) {
        for hierarchy in &self.hierarchies {
            let mut group = Path::new(name).to_owned();
            while !group.as_os_str().is_empty() {
                // Others may still use it; it is then not ours to remove.
                if fs::remove_dir(hierarchy.mount.join(&group)).is_err() {
                    break;
                }
                group.pop();
            }
        }
    }

    /// Names of the groups directly below `name`, from all hierarchies.
    pub(crate) fn children(&self, name: &str) -> Vec<String> {
        let mut found: Vec<String> = self
            .hierarchies
            .iter()
            .filter_map(|hierarchy| fs::read_dir(hierarchy.mount.join(name)).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The kernel counts a group as busy for an instant after its last process was reaped; there is no event for the end of that.
fn remove_group(group: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 100 => {
                tries += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
}

/// The group itself and every group below it, parents before children; empty when it does not exist.
fn groups_below(group: &Path) -> Vec<PathBuf> {
    if !group.is_dir() {
        return Vec::new();
    }
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let below: Vec<_> = fs::read_dir(parent)
            .into_iter()
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(below);
        next += 1;
    }
    found
}

fn create_in(hierarchy: &Hierarchy, name: &str) -> io::Result<()> {
    let mut parent = hierarchy.mount.clone();
    for part in Path::new(name) {
        if hierarchy.is_v2() {
            for controller in ["+cpu", "+memory", "+pids"] {
                append(&parent.join("cgroup.subtree_control"), controller)?;
            }
        }
        let group = parent.join(part);
        match fs::create_dir(&group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if hierarchy.has("cpuset") {
            // A new group has no CPUs and no memory nodes, and takes no process until it has.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(parent.join(file))?;
                append(&group.join(file), value.trim())?;
            }
        }
        parent = group;
    }
    Ok(())
}

fn append(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
28 25 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_hierarchies_are_found_with_their_options_and_a_hybrid_version_2_is_left_alone() {
        let found = Cgroups::parse(V1).hierarchies;
        let options: Vec<_> = found.iter().map(|one| one.options.as_str()).collect();
        assert_eq!(options, ["cpu,cpuacct", "name=systemd"]);
        assert!(found[0].has("cpu") && !found[0].has("memory") && !found[0].is_v2());
    }

    #[test]
    fn version_2_is_recognised() {
        let found =
            Cgroups::parse("28 25 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").hierarchies;
        assert!(found.len() == 1 && found[0].is_v2());
    }

    /// Too small a share would starve a cell, too large a quota would make its price a lie.
    #[test]
    fn limits_are_what_the_offering_says_and_shared_core_types_may_burst_to_one_cpu() {
        let limits = |cpu| Limits {
            cpu: CpuMillis(cpu),
            memory: Bytes::mib(256),
        };
        assert_eq!((limits(250).quota_us(), limits(250).shares()), (100_000, 256));
        assert_eq!((limits(2000).quota_us(), limits(2000).shares()), (200_000, 2048));
        assert_eq!(limits(1000).weight(), 39);
        assert_eq!(limits(1).weight(), 1);
    }
}

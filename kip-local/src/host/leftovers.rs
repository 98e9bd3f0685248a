//! What is on the machine that belongs to a local cloud: to prove that nothing is left, and to remove what a killed one left.

use std::fmt;
use std::fs;
use std::path::Path;

use kip_core::error::{Error, ErrorKind, Result};

use super::network::{bridges_of, delete_link, delete_netns, delete_table, forwarding_back, tables};
use super::{Cgroups, Names};
use crate::cloud::first_of;

/// Everything on this machine that belongs to the local cloud of one data folder, by kind. All empty: nothing is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Network namespaces.
    pub namespaces: Vec<String>,
    /// Network links, the bridge included.
    pub links: Vec<String>,
    /// Tables in the firewall.
    pub tables: Vec<String>,
    /// Numbers of processes.
    pub processes: Vec<i32>,
    /// Mount points below the data folder.
    pub mounts: Vec<String>,
    /// Control groups.
    pub cgroups: Vec<String>,
    /// Folders of instances.
    pub instances: Vec<String>,
}

impl Leftovers {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Looks. The data folder need not exist.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub async fn of(data_dir: &Path) -> Result<Self> {
        let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let names = Names::of(&data_dir);
        let cgroups = Cgroups::of_machine()?;
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(|source| {
            Error::new(
                ErrorKind::Unexpected,
                "look for leftovers",
                "cannot read /proc/self/mountinfo",
            )
            .with_source(source)
        })?;
        let mut links = listed(Path::new("/sys/class/net"), |name| {
            name.starts_with(&names.link_prefix())
        });
        links.extend(bridges_of(&data_dir).await?);
        Ok(Self {
            namespaces: listed(Path::new("/run/netns"), |name| {
                name.starts_with(&names.netns_prefix())
            }),
            links,
            tables: tables()
                .await?
                .into_iter()
                .filter(|table| *table == names.table())
                .collect(),
            processes: cgroups.processes(&names.cgroup()),
            mounts: mountinfo
                .lines()
                .filter_map(|line| line.split(' ').nth(4))
                .filter(|mount| Path::new(mount).starts_with(&data_dir) && Path::new(mount) != data_dir)
                .map(str::to_owned)
                .collect(),
            cgroups: cgroups.children(&names.cgroup()),
            instances: listed(&data_dir.join("instances"), |_| true),
        })
    }

    /// Removes everything that belongs to the local cloud of a data folder from the machine, its instances' folders included.
    ///
    /// For a folder no `LocalCloud` has open: with an open one use [`LocalCloud::purge`](crate::LocalCloud::purge). Safe to repeat.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn remove(data_dir: &Path) -> Result<()> {
        let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let names = Names::of(&data_dir);
        let cgroups = Cgroups::of_machine()?;
        Self::remove_unowned(&names, &cgroups, &[]).await?;
        for bridge in bridges_of(&data_dir).await? {
            delete_link(&bridge).await?;
        }
        delete_table(&names.table()).await?;
        forwarding_back().await?;
        cgroups.remove_parents(&names.cgroup());
        match fs::remove_dir_all(data_dir.join("instances")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::Unexpected,
                "remove leftovers",
                "cannot remove the instances' folders",
            )
            .with_source(error)),
            _ => Ok(()),
        }
    }

    /// Removes from the machine what no instance of `keep` (their short ids) owns: processes, control groups, links, namespaces.
    /// All of it that can be; the error is the first.
    pub(crate) async fn remove_unowned(names: &Names, cgroups: &Cgroups, keep: &[String]) -> Result<()> {
        let mut problems = Vec::new();
        for group in cgroups.children(&names.cgroup()) {
            if !keep.contains(&group) {
                let group = format!("{}/{group}", names.cgroup());
                problems.extend(end_group(cgroups, &group).await.err());
            }
        }
        let unowned = |name: &str, prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|short| !keep.iter().any(|kept| kept == short))
        };
        for link in listed(Path::new("/sys/class/net"), |name| {
            unowned(name, &names.link_prefix())
        }) {
            problems.extend(delete_link(&link).await.err());
        }
        for netns in listed(Path::new("/run/netns"), |name| {
            unowned(name, &names.netns_prefix())
        }) {
            problems.extend(delete_netns(&netns).await.err());
        }
        first_of(problems)
    }
}

/// Ends every process of a group and removes it.
async fn end_group(cgroups: &Cgroups, group: &str) -> Result<()> {
    const OP: &str = "remove leftovers";
    let failed = |source: std::io::Error| {
        Error::new(ErrorKind::Unexpected, OP, "cannot end what was left")
            .with_context("group", group)
            .with_source(source)
    };
    if !cgroups.kill(group).await.map_err(failed)? {
        let message = "a process of a former instance would not end";
        return Err(Error::new(ErrorKind::Unavailable, OP, message).with_context("group", group));
    }
    cgroups.remove(group).map_err(failed)
}

/// Sorted names of a folder's entries; none when there is no such folder.
fn listed(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .collect();
    names.sort_unstable();
    names
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is left");
        }
        let processes: Vec<String> = self.processes.iter().map(i32::to_string).collect();
        let mut first = true;
        for (kind, names) in [
            ("network namespaces", &self.namespaces),
            ("network links", &self.links),
            ("firewall tables", &self.tables),
            ("processes", &processes),
            ("mounts", &self.mounts),
            ("control groups", &self.cgroups),
            ("instances", &self.instances),
        ] {
            if !names.is_empty() {
                write!(f, "{}{kind}: {}", if first { "" } else { "; " }, names.join(", "))?;
                first = false;
            }
        }
        Ok(())
    }
}

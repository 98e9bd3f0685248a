//! What the local cloud needs of the machine, and how to install what is missing.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Cgroups;

/// Something the local cloud needs and this machine has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is, such as `containerd`.
    pub what: String,
    /// What to do about it, such as `apt-get install containerd`.
    pub fix: String,
    /// The Debian package that has it, where there is one.
    pub package: Option<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.fix)
    }
}

/// Where the machine's programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) containerd: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Programs and the Debian package that has each.
const PROGRAMS: [(&str, &str); 15] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("pivot_root", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("sh", "dash"),
    ("sleep", "coreutils"),
];

/// CNI plugins an instance uses.
const PLUGINS: [&str; 4] = ["loopback", "ptp", "static", "portmap"];

impl Tools {
    /// Finds all programs.
    pub(crate) fn find() -> Result<Self, Vec<Missing>> {
        let mut missing = Vec::new();
        if !nix::unistd::geteuid().is_root() {
            missing.push(Missing {
                what: "root".into(),
                fix: "namespaces, mounts and links need it: run the same command with sudo".into(),
                package: None,
            });
        }
        for (program, package) in PROGRAMS {
            if find(program).is_none() {
                missing.push(absent(program, package));
            }
        }
        if cni_plugins().is_none() {
            missing.push(absent(
                "CNI plugins (ptp, static, portmap, loopback)",
                "containernetworking-plugins",
            ));
        }
        let busybox = find("busybox").filter(|path| is_static(path));
        if busybox.is_none() {
            missing.push(absent("a static busybox", "busybox-static"));
        }
        for feature in ["pid", "mnt", "net", "uts", "ipc", "cgroup"] {
            if !Path::new("/proc/self/ns").join(feature).exists() {
                missing.push(Missing {
                    what: format!("{feature} namespaces"),
                    fix: "use a kernel that is built with them".into(),
                    package: None,
                });
            }
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !filesystems.lines().any(|line| line.ends_with("\toverlay")) {
            missing.push(Missing {
                what: "the overlay file system".into(),
                fix: "load it with `modprobe overlay`".into(),
                package: None,
            });
        }
        if let Err(error) = Cgroups::of_machine() {
            missing.push(Missing {
                what: "control groups".into(),
                fix: error.message().to_owned(),
                package: None,
            });
        }
        match (find("containerd"), busybox) {
            (Some(containerd), Some(busybox)) if missing.is_empty() => Ok(Self { containerd, busybox }),
            _ => Err(missing),
        }
    }
}

fn absent(what: &str, package: &'static str) -> Missing {
    Missing {
        what: what.into(),
        fix: format!("install it with `apt-get install {package}`"),
        package: Some(package),
    }
}

/// The folder with the CNI plugins, where the usual distributions put it.
pub(crate) fn cni_plugins() -> Option<&'static Path> {
    ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]
        .map(Path::new)
        .into_iter()
        .find(|folder| PLUGINS.iter().all(|plugin| folder.join(plugin).exists()))
}

fn find(program: &str) -> Option<PathBuf> {
    // The instances' own search path: a program that is elsewhere would not be found inside of them.
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(program))
    .find(|path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// Whether a program needs no libraries, so that it runs alone in an image.
fn is_static(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let Ok(bytes) = std::fs::read(path) else {
        return false;
    };
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let headers = || {
        // A 64-bit ELF file: the table's place, the size of an entry, and how many there are.
        let (table, size, count) = (usize::try_from(long(32)?).ok()?, half(54)?, half(56)?);
        (0..usize::from(count))
            .map(|i| word(table.checked_add(i * usize::from(size))?))
            .collect::<Option<Vec<_>>>()
    };
    bytes.starts_with(b"\x7fELF\x02") && headers().is_some_and(|kinds| !kinds.contains(&PT_INTERP))
}

/// Whether we may lower the chance that a process is killed when memory runs out.
pub(crate) fn has_capability_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
}

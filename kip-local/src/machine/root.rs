//! Builds an instance's file system: the machine's programs, read-only, around folders of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kip_core::error::{Error, ErrorKind, Result};

use super::containerd::{self, Purpose};
use crate::config::RegistryConfig;
use crate::host::{Addressing, Hierarchy};
use crate::image::Baked;
use crate::user_data::BootFile;

/// The search path inside of an instance.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Folders at the top of the machine's file system that hold programs and libraries.
const SYSTEM: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "nix"];
/// What an instance takes from the machine's /etc: how names and certificates are found.
const ETC: [&str; 7] = [
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "pki",
    "ssl",
];

/// Everything an instance's file system is built from.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) hostname: String,
    pub(crate) agent: PathBuf,
    pub(crate) image: Baked,
    pub(crate) plugins: PathBuf,
    pub(crate) hierarchies: Vec<Hierarchy>,
    pub(crate) addressing: Addressing,
    /// Of the network the addresses are in.
    pub(crate) prefix: u8,
    pub(crate) mtu: u32,
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) registries: BTreeMap<String, RegistryConfig>,
    pub(crate) restrict_oom_score: bool,
    pub(crate) files: Vec<BootFile>,
}

/// Builds it in the instance's folder. What an earlier, interrupted attempt left is replaced.
pub(crate) fn build(instance: &Path, blueprint: &Blueprint) -> Result<()> {
    build_io(instance, blueprint).map_err(|source| {
        Error::new(
            ErrorKind::Unexpected,
            "build instance",
            "cannot build its file system",
        )
        .with_context("folder", instance.display())
        .with_source(source)
    })
}

fn build_io(instance: &Path, blueprint: &Blueprint) -> io::Result<()> {
    let root = instance.join("root");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (folder, mode) in [
        ("", 0o755),
        (".old", 0o700),
        ("dev", 0o755),
        ("etc", 0o755),
        ("etc/cni/net.d", 0o755),
        ("etc/containerd/certs.d", 0o755),
        ("home", 0o755),
        ("kip/image", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var/lib/containerd", 0o711),
        ("var/lib/kip-cell", 0o700),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(mode))?;
    }
    symlink("/run", root.join("var/run"))?;

    let mut mounts = Mounts::new(&root);
    mounts.system()?;
    mounts.etc()?;
    mounts.kernel(&blueprint.hierarchies);
    fs::write(root.join("kip/kip-cell"), "")?;
    mounts.bind(&blueprint.agent, "kip/kip-cell", "ro,nosuid,nodev");
    mounts.bind(&blueprint.image.folder, "kip/image", "ro,nosuid,nodev");
    if blueprint.plugins.starts_with("/opt") {
        let inside = blueprint.plugins.strip_prefix("/").unwrap_or(&blueprint.plugins);
        fs::create_dir_all(root.join(inside))?;
        mounts.bind(&blueprint.plugins, &inside.to_string_lossy(), "ro,nosuid,nodev");
    }
    fs::write(instance.join("fstab"), mounts.fstab)?;

    let own = |path: &str, content: &str| fs::write(root.join(path), content);
    own(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    )?;
    own("etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    own("etc/hostname", &format!("{}\n", blueprint.hostname))?;
    own(
        "etc/hosts",
        &format!(
            "127.0.0.1 localhost\n{} {}\n",
            blueprint.addressing.management, blueprint.hostname
        ),
    )?;
    own("etc/resolv.conf", &resolv_conf(&blueprint.nameservers))?;
    own(
        "etc/cni/net.d/10-kip.conflist",
        &cni_config(blueprint.addressing, blueprint.prefix, blueprint.mtu),
    )?;
    own(
        "etc/containerd/config.toml",
        &containerd::config(
            Purpose::Instance {
                plugins: &blueprint.plugins,
            },
            blueprint.restrict_oom_score,
        ),
    )?;
    for (host, registry) in &blueprint.registries {
        fs::create_dir_all(root.join("etc/containerd/certs.d").join(host))?;
        own(
            &format!("etc/containerd/certs.d/{host}/hosts.toml"),
            &hosts_toml(host, registry),
        )?;
    }
    own("kip/hostname", &blueprint.hostname)?;
    own("kip/init.sh", include_str!("init.sh"))?;
    fs::write(instance.join("boot.sh"), include_str!("boot.sh"))?;
    fs::write(instance.join("launch.sh"), include_str!("launch.sh"))?;
    blueprint.image.clone_into(&root.join("var/lib/containerd"))?;

    // Last, as a cloud would: user-data may replace anything above.
    for file in &blueprint.files {
        let path = root.join(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, "")?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
        fs::write(&path, &file.content)?;
    }
    Ok(())
}

/// Collects what an instance mounts before it moves into its root.
struct Mounts<'a> {
    root: &'a Path,
    fstab: String,
}

impl<'a> Mounts<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            fstab: String::new(),
        }
    }

    fn add(&mut self, source: &str, target: &str, kind: &str, options: &str) {
        // Writing to a String cannot fail. No path has white space: the data folder's was checked, the others are ours.
        let _ = writeln!(
            self.fstab,
            "{source} {}/{target} {kind} {options} 0 0",
            self.root.display()
        );
    }

    fn bind(&mut self, source: &Path, target: &str, options: &str) {
        self.add(
            &source.display().to_string(),
            target,
            "none",
            &format!("bind,{options}"),
        );
    }

    /// Programs and libraries: links stay links, folders are shared read-only.
    fn system(&mut self) -> io::Result<()> {
        for name in SYSTEM {
            let on_machine = Path::new("/").join(name);
            let Ok(meta) = fs::symlink_metadata(&on_machine) else {
                continue;
            };
            if meta.is_symlink() {
                symlink(fs::read_link(&on_machine)?, self.root.join(name))?;
            } else if meta.is_dir() {
                fs::create_dir(self.root.join(name))?;
                self.bind(&on_machine, name, "ro");
            }
        }
        Ok(())
    }

    fn etc(&mut self) -> io::Result<()> {
        for name in ETC {
            let on_machine = Path::new("/etc").join(name);
            let here = self.root.join("etc").join(name);
            let Ok(meta) = fs::symlink_metadata(&on_machine) else {
                continue;
            };
            if meta.is_symlink() {
                symlink(fs::read_link(&on_machine)?, here)?;
            } else if meta.is_dir() {
                fs::create_dir(here)?;
                self.bind(&on_machine, &format!("etc/{name}"), "ro");
            } else {
                fs::copy(&on_machine, here)?;
            }
        }
        symlink("../usr/lib/os-release", self.root.join("etc/os-release"))
    }

    fn kernel(&mut self, hierarchies: &[Hierarchy]) {
        self.add("proc", "proc", "proc", "nosuid,nodev,noexec");
        self.add("sysfs", "sys", "sysfs", "nosuid,nodev,noexec");
        self.add("/dev", "dev", "none", "rbind");
        self.add("shm", "dev/shm", "tmpfs", "nosuid,nodev,mode=1777");
        self.add("run", "run", "tmpfs", "nosuid,nodev,mode=755");
        if hierarchies.iter().any(Hierarchy::is_v2) {
            self.add("cgroup2", "sys/fs/cgroup", "cgroup2", "nosuid,nodev,noexec");
            return;
        }
        // Each hierarchy at the machine's own place for it; the instance sees its own group as the top.
        self.add("cgroup", "sys/fs/cgroup", "tmpfs", "nosuid,nodev,noexec,mode=755");
        for hierarchy in hierarchies {
            let Some(name) = hierarchy.mount.file_name() else {
                continue;
            };
            let target = format!("sys/fs/cgroup/{}", name.to_string_lossy());
            self.add(
                "cgroup",
                &target,
                "cgroup",
                &format!("X-mount.mkdir,{}", hierarchy.options),
            );
        }
    }
}

fn resolv_conf(nameservers: &[IpAddr]) -> String {
    nameservers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

/// The pod's network: a link of its own to the instance, with the instance's second address.
///
/// The two addresses of an instance are a /31: the plugin wants the gateway inside the address's network.
fn cni_config(addressing: Addressing, prefix: u8, mtu: u32) -> String {
    // A pair that is a /31 needs no more. Any other could have its network's broadcast address in the smallest that holds both.
    let prefix = if u32::from(addressing.management) ^ u32::from(addressing.pod) == 1 {
        31
    } else {
        prefix
    };
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "kip",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "mtu": mtu,
                "ipam": {
                    "type": "static",
                    "addresses": [{ "address": format!("{}/{prefix}", addressing.pod), "gateway": addressing.management }],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    })
    .to_string()
}

/// How containerd fetches from one registry.
fn hosts_toml(host: &str, registry: &RegistryConfig) -> String {
    let block = |url: &str| {
        let skip = if registry.insecure {
            "skip_verify = true\n"
        } else {
            ""
        };
        format!("[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{skip}")
    };
    let scheme = if registry.insecure { "http" } else { "https" };
    let mut text = format!("server = \"{scheme}://{host}\"\n");
    if let Some(mirror) = &registry.mirror {
        text += &block(mirror);
    }
    if registry.insecure {
        text += &block(&format!("http://{host}"));
    }
    text
}

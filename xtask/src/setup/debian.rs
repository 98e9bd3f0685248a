//! For the programs that come as Debian packages: installed when missing, never silently.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{cmd, is_installed, run};
use crate::ui;

/// A package and how to see that what it brings is there already, from whatever source.
#[derive(Debug)]
pub(crate) struct Package {
    name: &'static str,
    sign: Sign,
}

#[derive(Debug)]
enum Sign {
    Program(&'static str),
    AnyFile(&'static [&'static str]),
}

const fn program(name: &'static str, program: &'static str) -> Package {
    Package {
        name,
        sign: Sign::Program(program),
    }
}

/// What cells on this machine need, and what drives and inspects them.
pub(crate) const CELLS: &[Package] = &[
    program("containerd", "containerd"),
    program("runc", "runc"),
    Package {
        name: "containernetworking-plugins",
        sign: Sign::AnyFile(&["/usr/lib/cni/ptp", "/opt/cni/bin/ptp"]),
    },
    program("iproute2", "ip"),
    program("iptables", "iptables"),
    program("nftables", "nft"),
    program("util-linux", "setpriv"),
    Package {
        name: "busybox-static",
        sign: Sign::AnyFile(&["/bin/busybox", "/usr/bin/busybox"]),
    },
    program("curl", "curl"),
    program("openssl", "openssl"),
];

/// Fails with what to do unless this process may make namespaces and mounts.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "not root: cells are network namespaces with containers in them, and only root can make those. Run the same \
         command as root (for example `sudo -E env PATH=\"$PATH\" cargo xtask ...`)"
    )
}

/// Installs the packages whose sign is missing.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !is_there(package))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_installed("apt-get") {
        bail!("{list} missing and not installable: this is no Debian (no apt-get). Install them by hand");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "{list} missing, and installing needs root: `sudo apt-get install --no-install-recommends {list}`"
        );
    }
    ui::step(&format!("installing Debian packages: {list}"));
    if install(&missing).is_err() {
        // The usual reason on a fresh machine: no package lists yet.
        run(cmd("apt-get", ["-q", "-o=Acquire::Retries=3", "update"])
            .env("DEBIAN_FRONTEND", "noninteractive"))
        .with_context(|| format!("{list} missing and not installable: apt-get update failed"))?;
        install(&missing)
            .with_context(|| format!("{list} missing and not installable: apt-get install failed"))?;
    }
    let still: Vec<&str> = packages
        .iter()
        .filter(|package| !is_there(package))
        .map(|package| package.name)
        .collect();
    if !still.is_empty() {
        bail!(
            "installed {}, but what they should bring is still not found",
            still.join(" ")
        );
    }
    Ok(())
}

/// Python with virtual environments, for a machine that has none.
pub(crate) fn install_python() -> Result<()> {
    if !is_installed("apt-get") || !nix::unistd::geteuid().is_root() {
        bail!("python3 with venv is missing and not installable here: install python3 and python3-venv");
    }
    ui::step("installing Debian packages: python3 python3-venv");
    if install(&["python3", "python3-venv"]).is_err() {
        run(&mut cmd("apt-get", ["-q", "update"]))?;
        install(&["python3", "python3-venv"]).context("python3-venv missing and not installable")?;
    }
    Ok(())
}

fn install(names: &[&str]) -> Result<()> {
    let mut apt = cmd(
        "apt-get",
        [
            "-q",
            "-y",
            "-o=Dpkg::Use-Pty=0",
            "install",
            "--no-install-recommends",
        ],
    );
    run(apt.args(names).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_there(package: &Package) -> bool {
    match package.sign {
        Sign::Program(program) => is_installed(program),
        Sign::AnyFile(files) => files.iter().any(|file| Path::new(file).is_file()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        ensure(&[program("no-such-package-kip", "sh")]).unwrap();
    }
}

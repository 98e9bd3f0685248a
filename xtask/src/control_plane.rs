//! For having a real Kubernetes control plane to test against: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler, built once from Go modules into a cache outside the target folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::{cmd, run};
use crate::{paths, ui};

/// The release; `control-plane/go.mod` must name the same.
pub(crate) const KUBERNETES: &str = "v1.37.2";

/// Program → the Go package it is built from; the quickest first, so that a broken set-up shows early.
const PROGRAMS: [(&str, &str); 4] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
];

/// The folder with the four programs: `KUBEBUILDER_ASSETS` if set, else the cache, filled first if need be.
/// What was built stays; a build that was interrupted goes on with the program it had come to.
pub(crate) fn provide() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        let missing = missing_in(&folder);
        if !missing.is_empty() {
            bail!(
                "KUBEBUILDER_ASSETS is {} but that folder lacks {}; add them, or unset KUBEBUILDER_ASSETS to build all \
                 four",
                folder.display(),
                missing.join(", ")
            );
        }
        return Ok(folder);
    }
    let module = paths::workspace().join("xtask/control-plane");
    let folder = paths::cache()?
        .join("control-plane")
        .join(format!("{KUBERNETES}-{}", key(&module)?));
    if missing_in(&folder).is_empty() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock_path = folder.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        ui::step("another build of the control plane is under way; waiting for it");
        lock.lock()
            .with_context(|| format!("cannot lock {}", lock_path.display()))?;
    }
    build_missing(&module, &folder)?;
    Ok(folder)
}

fn build_missing(module: &Path, folder: &Path) -> Result<()> {
    let missing = missing_in(folder);
    if missing.is_empty() {
        return Ok(());
    }
    check_go()?;
    ui::step(&format!(
        "building {} of Kubernetes {KUBERNETES} into {} (once; about 10 minutes on 2 idle cores for all four)",
        missing.join(", "),
        folder.display()
    ));
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}");
    for (program, package) in PROGRAMS {
        if !missing.contains(&program) {
            continue;
        }
        let start = Instant::now();
        let partial = folder.join(format!("{program}.partial"));
        let mut go = cmd(
            "go",
            ["build", "-mod=readonly", "-trimpath", "-ldflags", &flags, "-o"],
        );
        go.arg(&partial)
            .arg(package)
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false");
        run(&mut go).with_context(|| format!("cannot build {program}"))?;
        std::fs::rename(&partial, folder.join(program))
            .with_context(|| format!("cannot put {program} in place"))?;
        ui::ok(&format!("{program} ({})", ui::duration(start.elapsed())));
    }
    Ok(())
}

/// Go from 1.21 on fetches the toolchain a `go.mod` asks for by itself; an older one cannot read the file.
fn check_go() -> Result<()> {
    const HELP: &str = "install Go 1.26 (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, \
                        kube-apiserver, kube-controller-manager and kube-scheduler";
    let version = crate::command::read(&mut cmd("go", ["env", "GOVERSION"]))
        .with_context(|| format!("building the control plane needs Go: {HELP}"))?;
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor < 21 => bail!("{} is too old: {HELP}", version.trim()),
        _ => Ok(()),
    }
}

fn missing_in(folder: &Path) -> Vec<&'static str> {
    PROGRAMS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| !folder.join(program).is_file())
        .collect()
}

/// Changes whenever what is built changes.
fn key(module: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        hash.update(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hex(&hash.finalize())[..12].to_owned())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_one_the_module_pins() {
        let text = std::fs::read_to_string(paths::workspace().join("xtask/control-plane/go.mod")).unwrap();
        assert!(
            text.contains(&format!("k8s.io/kubernetes {KUBERNETES}")),
            "a cached control plane would carry the wrong version in its name"
        );
        for (_, package) in PROGRAMS {
            assert!(text.contains(package), "go.mod has no tool line for {package}");
        }
    }
}

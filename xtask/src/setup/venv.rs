//! For programs from PyPI: a virtual environment of their own under the target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian;
use crate::command::{cmd, outcome, run};
use crate::paths;

/// Where the environment called `name` is, whether it was made or not.
pub(super) fn folder(name: &str) -> PathBuf {
    paths::target().join("venv").join(name)
}

/// Makes the environment anew and has its pip install what `what` says. Installs Python first where it is missing.
pub(super) fn make(venv: &Path, what: &[&str]) -> Result<()> {
    if let Some(parent) = venv.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let make = || outcome(cmd("python3", ["-m", "venv", "--clear"]).arg(venv));
    if !make().is_ok_and(|output| output.status.success()) {
        debian::install_python()?;
        let output = make()?;
        anyhow::ensure!(
            output.status.success(),
            "cannot make a Python virtual environment: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    run(cmd(
        venv.join("bin/pip"),
        ["install", "--quiet", "--disable-pip-version-check"],
    )
    .args(what))
}

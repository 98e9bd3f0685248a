//! For an EC2 of other people's making: the `moto` server from PyPI, in a virtual environment under the target folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::venv;
use crate::{paths, ui};

/// Which packages, relative to the workspace: the tests install the same when they are run alone.
const REQUIREMENTS: &str = "kip-aws/tests/ec2/moto-requirements.txt";

/// The path of `moto_server`, installed first if need be.
pub(crate) fn provide() -> Result<PathBuf> {
    let requirements = paths::workspace().join(REQUIREMENTS);
    let want = std::fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let venv = venv::folder("moto");
    let (server, stamp) = (venv.join("bin/moto_server"), venv.join("installed"));
    if server.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        return Ok(server);
    }
    ui::step(&format!("installing moto from PyPI into {}", venv.display()));
    venv::make(&venv, &["-r", &requirements.display().to_string()])
        .context("cannot install moto from PyPI")?;
    anyhow::ensure!(server.is_file(), "the packages brought no {}", server.display());
    std::fs::write(&stamp, want).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(server)
}

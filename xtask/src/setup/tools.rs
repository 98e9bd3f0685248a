//! For Cargo subcommands that CI needs: built once into the cache, pinned.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::{cmd, run};
use crate::{paths, ui};

const CARGO_DENY: &str = "0.20.2";

/// The path of cargo-deny, built first if need be (some minutes, once per version).
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = paths::cache()?
        .join("tools")
        .join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        ui::step(&format!(
            "building cargo-deny {CARGO_DENY} into {} (once, some minutes)",
            root.display()
        ));
        let mut install = cmd(
            "cargo",
            [
                "install",
                "--quiet",
                "--locked",
                "--version",
                CARGO_DENY,
                "--root",
            ],
        );
        // Its own target folder: with ours, a clean of the workspace would rebuild it.
        install
            .arg(&root)
            .arg("cargo-deny")
            .env_remove("CARGO_TARGET_DIR");
        run(&mut install).context("cannot install cargo-deny")?;
    }
    Ok(program)
}

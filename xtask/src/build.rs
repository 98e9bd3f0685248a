//! For building the programs a task runs, with the same profile and features everywhere, so that nothing is compiled
//! twice: what `cargo test --workspace` compiled is what the end-to-end tests run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::{cmd, line, run};
use crate::{interrupt, paths, ui};

/// The flags every debug build of the workspace shares.
pub(crate) const WORKSPACE: [&str; 2] = ["--workspace", "--all-features"];

/// How much is built to get one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything, with the features `cargo test` uses: what a full run needs anyway.
    Workspace,
    /// Only what the program itself needs: the quickest way to one program.
    Package,
}

/// The debug build of a workspace binary.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let flags = [&WORKSPACE[..], &["--bins", "--examples"]].concat();
    artifacts(&flags)?
        .into_iter()
        .find(|artifact| artifact.is("bin", name))
        .and_then(|artifact| artifact.executable)
        .with_context(|| format!("the workspace builds no binary {name}"))
}

/// The debug build of a crate's example.
pub(crate) fn example(scope: Scope, package: &str, name: &str) -> Result<PathBuf> {
    let flags = match scope {
        Scope::Workspace => [&WORKSPACE[..], &["--bins", "--examples"]].concat(),
        Scope::Package => vec!["-p", package, "--example", name],
    };
    artifacts(&flags)?
        .into_iter()
        .find(|artifact| artifact.is("example", name) && artifact.package_id.contains(package))
        .and_then(|artifact| artifact.executable)
        .with_context(|| format!("{package} has no example {name}"))
}

/// Release builds of the two programs a user runs, the command with only the `local` cloud.
pub(crate) fn release() -> Result<Release> {
    let mut cargo = cmd("cargo", ["build", "--release", "-p", "kip-bin", "-p", "kip-cell"]);
    cargo.args(["--no-default-features", "--features", "kip-bin/local"]);
    run(cargo.current_dir(paths::workspace()))?;
    let folder = paths::target().join("release");
    Ok(Release {
        kip: folder.join("kip"),
        agent: folder.join("kip-cell"),
    })
}

/// Builds a crate's example in release mode, where its figures count.
pub(crate) fn release_example(package: &str, name: &str) -> Result<()> {
    let mut cargo = cmd("cargo", ["build", "--release", "-p", package, "--example", name]);
    run(cargo.current_dir(paths::workspace()))
}

/// The programs a user runs.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) kip: PathBuf,
    pub(crate) agent: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    #[serde(default)]
    package_id: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Artifact {
    fn is(&self, kind: &str, name: &str) -> bool {
        self.target
            .as_ref()
            .is_some_and(|target| target.name == name && target.kind.iter().any(|k| k == kind))
    }
}

fn artifacts(flags: &[&str]) -> Result<Vec<Artifact>> {
    let mut cargo = cmd("cargo", ["build", "--message-format=json-render-diagnostics"]);
    cargo.args(flags).current_dir(paths::workspace());
    ui::command(&line(&cargo));
    interrupt::check()?;
    let child = cargo
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let guard = interrupt::foreground(child.id());
    let output = child.wait_with_output().context("waiting for cargo")?;
    drop(guard);
    interrupt::check()?;
    anyhow::ensure!(output.status.success(), "the workspace does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).context("cargo printed a message of unknown form"))
        .collect()
}

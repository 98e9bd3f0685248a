//! A moto server on a free port, for as long as a test takes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long installing and starting may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server. Ends when it is dropped.
pub(crate) struct Moto {
    url: String,
    _process: Child,
}

impl Moto {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        tokio::time::timeout(PATIENCE, Self::started())
            .await
            .context("moto did not start in time")?
    }

    async fn started() -> Result<Self> {
        let program = program().await?;
        let mut process = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = process.stderr.take().context("moto has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let url = loop {
            let line = lines.next_line().await?.context("moto ended before it served")?;
            if let Some((_, url)) = line.split_once("Running on ") {
                break url.trim().to_owned();
            }
        };
        // It writes a line for each request; nobody reading would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            url,
            _process: process,
        })
    }

    /// Where it serves.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// The server's program: `KIP_TEST_MOTO`, which `cargo xtask test` sets, or one that is installed now beside Cargo's other files.
async fn program() -> Result<PathBuf> {
    static INSTALLED: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    if let Some(program) = std::env::var_os("KIP_TEST_MOTO") {
        return Ok(program.into());
    }
    INSTALLED.get_or_try_init(install).await.cloned()
}

async fn install() -> Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ec2/moto-requirements.txt");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-venv");
    let (program, stamp) = (venv.join("bin/moto_server"), venv.join("installed"));
    let want = std::fs::read_to_string(&requirements)?;
    if program.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        return Ok(program);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&requirements))
    .await?;
    std::fs::write(&stamp, want)?;
    Ok(program)
}

async fn run(command: &mut Command) -> Result<()> {
    let output =
        command.kill_on_drop(true).output().await.with_context(|| {
            format!("cannot run {command:?}: `cargo xtask test` installs what is missing")
        })?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

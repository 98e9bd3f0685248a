//! Runs a program of the machine and turns its failure into an error that says what it said.

use std::ffi::OsStr;
use std::process::Stdio;

use kip_core::error::{Error, ErrorKind, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a program to its end with the given standard input. Returns its standard output.
pub(crate) async fn run<S: AsRef<OsStr> + Sync>(program: &str, args: &[S], input: &str) -> Result<String> {
    let failed = |message: String| Error::new(ErrorKind::Unexpected, "run tool", message);
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed(format!("cannot run `{program}`")).with_source(source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says why on its standard error, which is read below.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|source| failed(format!("cannot wait for `{program}`")).with_source(source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let line: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    Err(failed(format!(
        "`{program} {}` failed ({}): {}",
        line.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

//! For running other programs so that the reader sees what is run, and an error says what failed and why.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::{interrupt, ui};

/// `Command::new` with its arguments in one call.
pub(crate) fn cmd<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args).stdin(Stdio::null());
    // Cargo tells this program about itself, and crates with build scripts would be built again for each who is told.
    for (key, _) in std::env::vars_os().filter(|(key, _)| is_of_our_cargo(key)) {
        command.env_remove(key);
    }
    command
}

/// Whether cargo set this variable for the program it runs.
fn is_of_our_cargo(key: &OsStr) -> bool {
    let key = key.to_string_lossy();
    key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_")
}

/// The command as a user would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        let plain = !arg.is_empty()
            && arg
                .chars()
                .all(|c| c.is_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain {
            arg.into_owned()
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    }));
    words.join(" ")
}

/// Runs in the foreground with its output passed on, after printing the command. Fails unless it exits 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    ui::command(&line(command));
    run_quiet(command)
}

/// [`run`] without printing the command.
pub(crate) fn run_quiet(command: &mut Command) -> Result<()> {
    interrupt::check()?;
    let mut child = command.spawn().with_context(|| missing(command))?;
    let guard = interrupt::foreground(child.id());
    let status = child
        .wait()
        .with_context(|| format!("waiting for `{}`", line(command)))?;
    drop(guard);
    interrupt::check()?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs and collects what it prints, whatever the exit status.
pub(crate) fn outcome(command: &mut Command) -> Result<Output> {
    interrupt::check()?;
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing(command))?;
    let guard = interrupt::foreground(child.id());
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for `{}`", line(command)))?;
    drop(guard);
    interrupt::check()?;
    Ok(output)
}

/// Runs and returns its standard output. Fails with its standard error unless it exits 0.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = outcome(command)?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is no UTF-8", line(command)))
}

/// Whether a program is found, in `PATH` or where system administration tools live.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into))
        .any(|folder| folder.join(program).is_file())
}

fn missing(command: &Command) -> String {
    format!(
        "cannot start `{}`: is it installed and in PATH?",
        command.get_program().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted_into_a_shell() {
        let command = cmd(
            "kubectl",
            ["get", "pods", "-o", "jsonpath={.items[*].metadata.name}", "it's"],
        );
        assert_eq!(
            line(&command),
            r"kubectl get pods -o 'jsonpath={.items[*].metadata.name}' 'it'\''s'"
        );
    }

    #[test]
    fn a_failing_command_says_what_it_printed() {
        let error = read(&mut cmd("sh", ["-c", "echo broken >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }
}

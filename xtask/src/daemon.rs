//! For programs that run beside the tests: started in the background with their output in a file, always ended.
//!
//! Each runs in a process group of its own, so that Ctrl-C reaches us alone and the order of the teardown is ours, and
//! under a death watch (`setpriv --pdeathsig`), so that even `kill -9` of this process leaves none running. The watch
//! follows the *thread* that started the program: start them from the main thread.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt;

/// A running background program. Dropping it ends it: SIGTERM, then SIGKILL when the grace has passed.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    grace: Duration,
}

impl Daemon {
    /// Starts `command` with both output streams appended to `log`. `on_our_death` is the signal it gets should this
    /// process die without a word.
    pub(crate) fn start(name: &str, command: &Command, log: &Path, on_our_death: Signal) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut watched = Command::new("setpriv");
        watched.args([
            "--pdeathsig",
            on_our_death.as_str().trim_start_matches("SIG"),
            "--",
        ]);
        watched.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => watched.env(key, value),
                None => watched.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            watched.current_dir(folder);
        }
        let child = watched
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("cannot share the log file")?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("cannot start {name} (`setpriv` is in the Debian package util-linux)")
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            grace: Duration::from_secs(20),
        })
    }

    /// The process id, which is the program's own: `setpriv` replaces itself by it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Fails with the end of the log when the program has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self
            .child
            .try_wait()
            .with_context(|| format!("cannot ask after {}", self.name))?
        {
            bail!(
                "{} ended ({status}); the end of {}:\n{}",
                self.name,
                self.log.display(),
                tail(&self.log, 25)
            );
        }
        Ok(())
    }

    /// Waits until a line of the log starts with `prefix` and returns the rest of that line.
    pub(crate) fn wait_for_line(&mut self, prefix: &str, limit: Duration) -> Result<String> {
        let (log, name) = (self.log.clone(), self.name.clone());
        wait_until(&format!("{name} to print `{prefix}`"), limit, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // A line counts once it is complete.
            let found = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .find_map(|line| line.trim_end().strip_prefix(prefix).map(str::to_owned));
            if found.is_none() {
                self.check_alive()?;
            }
            Ok(found)
        })
    }

    /// SIGKILL, as a crash would be.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("cannot reap {}", self.name))?;
        Ok(())
    }

    /// SIGTERM, then waits for the end; SIGKILL and an error when it takes longer than `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for the end; SIGKILL and an error when it takes longer than `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .with_context(|| format!("cannot ask after {}", self.name))?
            {
                return Ok(status);
            }
            if start.elapsed() > limit {
                self.kill()?;
                bail!(
                    "{} did not end within {limit:?} and was killed; the end of {}:\n{}",
                    self.name,
                    self.log.display(),
                    tail(&self.log, 15)
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        match self.child.try_wait() {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                if let Err(error) = self.stop(self.grace) {
                    eprintln!("   while ending {}: {error:#}", self.name);
                }
            }
        }
    }
}

/// Whether a program ended as told: by itself with 0, or by the SIGTERM it was sent.
pub(crate) fn ended_as_told(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(Signal::SIGTERM as i32)
}

/// Asks again and again, 20 ms apart, until the answer is there. For things that cannot tell by themselves.
pub(crate) fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        interrupt::check()?;
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cmd;

    #[test]
    fn a_dropped_daemon_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut daemon = Daemon::start(
            "sleeper",
            &cmd("sh", ["-c", "echo here: 7; exec sleep 100"]),
            &log,
            Signal::SIGKILL,
        )
        .unwrap();
        assert_eq!(
            daemon.wait_for_line("here: ", Duration::from_secs(10)).unwrap(),
            "7"
        );
        let pid = daemon.pid();
        drop(daemon);
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "a test program outlived its guard"
        );
    }

    #[test]
    fn a_daemon_that_ends_early_says_so_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut daemon = Daemon::start(
            "quitter",
            &cmd("sh", ["-c", "echo port is taken; exit 4"]),
            &log,
            Signal::SIGKILL,
        )
        .unwrap();
        let error = daemon
            .wait_for_line("ready", Duration::from_secs(10))
            .unwrap_err()
            .to_string();
        assert!(error.contains("port is taken") && error.contains('4'), "{error}");
    }
}

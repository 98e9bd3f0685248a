//! A process that cannot be mistaken for another one with the same number.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// A running process, held by a descriptor: its number may be reused, the descriptor never means another process.
#[derive(Debug)]
pub(crate) struct Process {
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process of this number, if it runs and, where a start time is given, started then.
    pub(crate) fn open(pid: i32, started: Option<u64>) -> io::Result<Option<Self>> {
        let Some(raw) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the descriptor was opened: if it is the right one now, it is the one we hold.
        match (read_start(pid), started) {
            (Some(found), Some(wanted)) if found != wanted => return Ok(None),
            (None, _) => return Ok(None),
            _ => {}
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call; what it guards against, closing the descriptor too early, an OwnedFd rules out"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Some(Self { fd }))
    }

    /// Kills it. That it has ended already is success.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks it to end. That it has ended already is success.
    pub(crate) fn ask_to_end(&self) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended. For the first process of a process namespace that is when everything in it has ended.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.fd.readable().await.map(|_| ())
    }

    /// Waits until it has ended, at most so long; whether it has.
    pub(crate) async fn ended_within(&self, patience: Duration) -> io::Result<bool> {
        match tokio::time::timeout(patience, self.ended()).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// When a process started, in clock ticks since boot; None when there is none or it is a zombie.
fn read_start(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything but ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    // The state was the third field, the start time is the twenty-second.
    fields.nth(18)?.parse().ok()
}

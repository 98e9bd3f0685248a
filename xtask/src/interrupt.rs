//! For ending on Ctrl-C as tidily as on success: the first signal stops what runs in the foreground and makes every
//! wait return an error, so that `Drop` tears down what was started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Foreground children: told to end when we are.
static FOREGROUND: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Installs the handler. Call once, first thing in `main`.
pub(crate) fn install() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("cannot listen for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            let children = FOREGROUND.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for pid in children {
                // The child may have ended by itself in this moment; that is as good.
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            }
        }
    });
    Ok(())
}

/// Fails once a signal has come. Every loop that waits calls it.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Forgets the signal, so that the clean-up which follows an interruption may itself wait.
pub(crate) fn clear() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// Marks a child as running in the foreground for as long as the guard lives.
pub(crate) fn foreground(pid: u32) -> Foreground {
    let pid = pid.cast_signed();
    FOREGROUND
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(pid);
    Foreground(pid)
}

pub(crate) struct Foreground(i32);

impl Drop for Foreground {
    fn drop(&mut self) {
        FOREGROUND
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|&pid| pid != self.0);
    }
}

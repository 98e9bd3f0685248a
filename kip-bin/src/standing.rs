//! What this process is doing at the moment, for whoever asks over HTTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kip_core::driver::DriverHandle;

use crate::freshness::Freshness;

/// Whether this process acts for its node, and by which driver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
enum State {
    /// Another acts, or nobody.
    #[default]
    By,
    /// It leads, and starts.
    Starting,
    /// It acts by a driver, on what a cloud sells.
    Acting(DriverHandle, Option<Freshness>),
}

impl Standing {
    /// It leads from now on.
    pub(crate) fn leads(&self) {
        *self.locked() = State::Starting;
    }

    /// It acts from now on by this driver, on a list of offerings whose age may be known.
    pub(crate) fn acts(&self, driver: DriverHandle, freshness: Option<Freshness>) {
        *self.locked() = State::Acting(driver, freshness);
    }

    /// It does nothing any more; the driver is forgotten.
    pub(crate) fn stands_by(&self) {
        *self.locked() = State::By;
    }

    /// Whether it leads.
    pub(crate) fn is_leading(&self) -> bool {
        !matches!(*self.locked(), State::By)
    }

    /// The driver it acts by.
    pub(crate) fn driver(&self) -> Option<DriverHandle> {
        match &*self.locked() {
            State::Acting(driver, _) => Some(driver.clone()),
            State::By | State::Starting => None,
        }
    }

    /// How fresh what the cloud sells is, where it acts and that is known.
    pub(crate) fn freshness(&self) -> Option<Freshness> {
        match &*self.locked() {
            State::Acting(_, freshness) => freshness.clone(),
            State::By | State::Starting => None,
        }
    }

    /// Whether all is well: ready to act at once, or acting on all there is. `Err` says what it waits for.
    pub(crate) fn readiness(&self) -> Result<&'static str, String> {
        let driver = match &*self.locked() {
            State::By => return Ok("ok: standing by\n"),
            State::Starting => return Err("waiting for the controller to start\n".to_owned()),
            State::Acting(driver, _) => driver.clone(),
        };
        let waiting = [
            ("recovery of what was there", driver.is_recovered()),
            ("the list of pods", driver.is_synced()),
        ];
        let missing: Vec<&str> = waiting
            .iter()
            .filter(|(_, done)| !done)
            .map(|(what, _)| *what)
            .collect();
        if missing.is_empty() {
            Ok("ok\n")
        } else {
            Err(format!("waiting for {}\n", missing.join(" and ")))
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the state whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_stands_by_is_healthy_or_a_rollout_of_two_would_never_end() {
        let standing = Standing::default();
        assert!(standing.readiness().is_ok());
        assert!(!standing.is_leading());
        standing.leads();
        assert!(standing.is_leading());
        assert!(standing.readiness().is_err(), "it does not act yet");
        standing.stands_by();
        assert!(standing.readiness().is_ok());
    }
}

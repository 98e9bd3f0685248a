//! Faults that strike once, by operation.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kip_core::{Error, ErrorKind, Result};

/// What goes wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails without effect.
    Fail(ErrorKind),
    /// It takes effect, and then fails all the same: the reply was lost.
    LostReply(ErrorKind),
    /// It is answered after so long.
    Slow(Duration),
    /// It takes effect at once, and is answered only after so long: the answer is as old as that.
    LateReply(Duration),
    /// It fails without effect, and says so only after so long.
    LateFail(Duration, ErrorKind),
    /// It takes effect and is never answered.
    Hang,
}

/// Faults to come, by operation. Each strikes one call.
#[derive(Debug)]
pub struct Faults<K>(Mutex<BTreeMap<K, VecDeque<Fault>>>);

impl<K> Default for Faults<K> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Ord + Copy> Faults<K> {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<K, VecDeque<Fault>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next call of this operation that has no fault yet meet one.
    pub fn add(&self, op: K, fault: Fault) {
        self.locked().entry(op).or_default().push_back(fault);
    }

    /// Forgets all faults to come.
    pub fn clear(&self) {
        self.locked().clear();
    }

    /// Whether all faults have struck.
    pub fn is_empty(&self) -> bool {
        self.locked().values().all(VecDeque::is_empty)
    }

    /// Makes a call that may meet a fault.
    pub(crate) async fn strike<T>(
        &self,
        op: K,
        name: &'static str,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let fault = self.locked().get_mut(&op).and_then(VecDeque::pop_front);
        match fault {
            None => effect(),
            Some(Fault::Fail(kind)) => Err(Error::new(kind, name, "injected fault")),
            Some(Fault::LostReply(kind)) => {
                let _ = effect();
                Err(Error::new(kind, name, "injected fault: the reply was lost"))
            }
            Some(Fault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                effect()
            }
            Some(Fault::LateReply(delay)) => {
                let result = effect();
                tokio::time::sleep(delay).await;
                result
            }
            Some(Fault::LateFail(delay, kind)) => {
                tokio::time::sleep(delay).await;
                Err(Error::new(kind, name, "injected fault"))
            }
            Some(Fault::Hang) => {
                let _ = effect();
                pending().await
            }
        }
    }
}

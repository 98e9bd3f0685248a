//! Instances launched a moment ago, which EC2 may not know everywhere yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kip_core::ids::InstanceId;
use tokio::time::Instant;

/// What this process launched within the time that EC2 may need to show it.
#[derive(Debug)]
pub(crate) struct Young {
    lag: Duration,
    launched: Mutex<HashMap<InstanceId, Launched>>,
}

#[derive(Debug)]
struct Launched {
    at: Instant,
    /// Another call than the launch has shown that EC2 knows it.
    is_known: bool,
}

impl Young {
    pub(crate) fn new(lag: Duration) -> Self {
        Self {
            lag,
            launched: Mutex::default(),
        }
    }

    /// EC2 answered a launch with this instance.
    pub(crate) fn add(&self, id: &InstanceId) {
        let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        launched.retain(|_, one| one.at.elapsed() < self.lag);
        let new = Launched {
            at: Instant::now(),
            is_known: false,
        };
        launched.insert(id.clone(), new);
    }

    /// Whether EC2 may not know it yet although it is there.
    pub(crate) fn has(&self, id: &InstanceId) -> bool {
        let launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        launched.get(id).is_some_and(|one| one.at.elapsed() < self.lag)
    }

    /// EC2 showed that it knows an instance. Whether that is news about a young one.
    pub(crate) fn is_news(&self, id: &InstanceId) -> bool {
        let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        launched
            .get_mut(id)
            .is_some_and(|one| one.at.elapsed() < self.lag && !std::mem::replace(&mut one.is_known, true))
    }
}

//! Which subnet and image a token's launch went to: a repeat must go the same way, or EC2 refuses it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use kip_core::error::Result;
use kip_core::ids::LaunchToken;

use crate::images::BootImage;

/// Launches remembered: more than are ever under way. A forgotten one is found by its fingerprint instead.
const MOST: usize = 16 * 1024;

/// The way of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) subnet: String,
    pub(crate) image: BootImage,
}

/// The ways of the latest launches.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_token: HashMap<LaunchToken, Route>,
    order: VecDeque<LaunchToken>,
}

impl Routes {
    /// The way of a token's launch, if this process has begun one.
    pub(crate) fn known(&self, token: &LaunchToken) -> Option<Route> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.by_token.get(token).cloned()
    }

    /// The way of a token's launch; chosen now if it is the first.
    ///
    /// # Errors
    /// What `choose` answers.
    pub(crate) fn of(&self, token: &LaunchToken, choose: impl FnOnce() -> Result<Route>) -> Result<Route> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = inner.by_token.get(token) {
            return Ok(route.clone());
        }
        let route = choose()?;
        inner.by_token.insert(token.clone(), route.clone());
        inner.order.push_back(token.clone());
        if inner.order.len() > MOST
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.by_token.remove(&oldest);
        }
        Ok(route)
    }

    /// Forgets the way of a token's launch if it used an image that is gone.
    pub(crate) fn forget(&self, token: &LaunchToken, image: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner
            .by_token
            .get(token)
            .is_some_and(|route| route.image.id == image)
        {
            inner.by_token.remove(token);
            inner.order.retain(|known| known != token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(subnet: &str) -> Route {
        Route {
            subnet: subnet.into(),
            image: BootImage {
                id: "ami-1".into(),
                root_device: "/dev/xvda".into(),
                root_gib: 8,
                kept_volumes: Vec::new(),
            },
        }
    }

    #[test]
    fn a_repeat_goes_the_same_way_and_memory_is_bounded() {
        let routes = Routes::default();
        let token = |i: usize| LaunchToken::from_stored(i.to_string());
        routes.of(&token(0), || Ok(route("subnet-a"))).unwrap();
        let again = routes.of(&token(0), || Ok(route("subnet-b"))).unwrap();
        assert_eq!(again.subnet, "subnet-a");
        for i in 1..=MOST {
            routes.of(&token(i), || Ok(route("subnet-a"))).unwrap();
        }
        assert_eq!(routes.0.lock().unwrap().by_token.len(), MOST);
    }
}

//! What Kip asks of a cloud: six calls, and optional powers as optional objects.

mod capability;
mod options;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

pub use capability::{Capabilities, InterruptionFeed, InterruptionNotice, ProviderInfo};
pub use options::{LaunchRequest, ListOptions, OfferingQuery, UserData};

use crate::error::Result;
use crate::ids::InstanceId;
use crate::model::{Instance, Offering};

/// Names of the tags every instance carries from the call that creates it. Whatever costs money can be found by them.
pub mod tags {
    /// UID of the Kubernetes cluster.
    pub const CLUSTER: &str = "kip.elotl.co/cluster";
    /// Name of the virtual node.
    pub const NODE: &str = "kip.elotl.co/node";
    /// UID of the pod.
    pub const POD_UID: &str = "kip.elotl.co/pod-uid";
    /// Namespace and name of the pod, for people.
    pub const POD: &str = "kip.elotl.co/pod";
    /// Name of the cell.
    pub const CELL: &str = "kip.elotl.co/cell";
    /// Which attempt for the pod it is, from 1. With the other tags it proves the token.
    pub const ATTEMPT: &str = "kip.elotl.co/attempt";
    /// The launch token.
    pub const TOKEN: &str = "kip.elotl.co/launch-token";
}

/// A cloud that launches instances.
///
/// # Guarantees an implementer gives
/// - **Idempotent launch.** The same token and parameters give the same instance, however often and from wherever it is
///   called, as long as that instance exists. A token that comes back with other parameters is
///   [`ErrorKind::AlreadyExists`](crate::error::ErrorKind::AlreadyExists).
/// - **Tagged at birth.** All tags of the request are on the instance from the same call that creates it.
/// - **Honest absence.** [`terminate`](Self::terminate) and [`get`](Self::get) answer
///   [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) only when the instance is really gone; callers repeat until then.
///
/// # What an implementer may assume
/// Callers bring their own retries; an implementation does not retry by itself beyond what its SDK does for one request.
///
/// # Cancellation
/// Dropping a returned future may leave the effect done. Kip never drops a launch; others must look by token afterwards.
///
/// # Consistency
/// `list` may lag `launch` by [`Capabilities::list_lag`]; `get` with an id from `launch` may answer `NotFound` within that time.
#[async_trait]
pub trait CloudProvider: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Name, region and what this provider can do. Cheap, constant.
    fn info(&self) -> &ProviderInfo;

    /// Launches one instance, or returns the one this token launched before.
    ///
    /// # Errors
    /// `InsufficientCapacity` (try elsewhere), `QuotaExceeded`, `RateLimited`, `InvalidRequest`, `AlreadyExists` (token reused with
    /// other parameters); `Timeout` and `Unavailable` mean it may have happened.
    async fn launch(&self, request: LaunchRequest) -> Result<Instance>;

    /// Begins to terminate an instance, or continues. Safe to repeat. After a success `NotFound` is believed at once, however young
    /// the instance is: a cloud that may only not know it yet answers success again.
    ///
    /// # Errors
    /// `NotFound` once it is really gone: that is the answer callers wait for.
    async fn terminate(&self, id: &InstanceId) -> Result<()>;

    /// One instance.
    ///
    /// # Errors
    /// `NotFound` when there is none with this id.
    async fn get(&self, id: &InstanceId) -> Result<Instance>;

    /// All instances that match, in no order. An error item ends the stream: what came before is then not the whole list.
    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>>;

    /// What can be bought now. Answers from a cache where the cloud is slow.
    ///
    /// # Errors
    /// When nothing is known yet; a stale answer is better than an error.
    async fn offerings(&self, query: &OfferingQuery) -> Result<Vec<Offering>>;

    /// Notices that an instance will be taken back, where the cloud gives them.
    fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
        None
    }
}

macro_rules! forward {
    ($wrapper:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: CloudProvider + ?Sized> CloudProvider for $wrapper<T> {
            fn info(&self) -> &ProviderInfo {
                (**self).info()
            }
            async fn launch(&self, request: LaunchRequest) -> Result<Instance> {
                (**self).launch(request).await
            }
            async fn terminate(&self, id: &InstanceId) -> Result<()> {
                (**self).terminate(id).await
            }
            async fn get(&self, id: &InstanceId) -> Result<Instance> {
                (**self).get(id).await
            }
            fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>> {
                (**self).list(options)
            }
            async fn offerings(&self, query: &OfferingQuery) -> Result<Vec<Offering>> {
                (**self).offerings(query).await
            }
            fn interruptions(&self) -> Option<&dyn InterruptionFeed> {
                (**self).interruptions()
            }
        }
    };
}
forward!(Arc);
forward!(Box);

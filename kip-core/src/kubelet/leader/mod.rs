//! For running several controllers of one node of which only one acts: leader election by a Lease.
//!
//! Every replica makes a [`LeaderElection`] and awaits [`lead`](LeaderElection::lead). Whoever gets a [`Leader`] acts, and stops at once
//! when [`Leader::lost`] answers. Whoever ends in good order calls [`Leader::release`], so that another leads a moment later; after a
//! crash it takes until the lease runs out.
//!
//! ```no_run
//! # use kip_core::ids::NodeName;
//! # use kip_core::kubelet::{LeaderConfig, LeaderElection};
//! # async fn example(
//! #     client: kube::Client, act: impl Future<Output = ()>, told_to_end: impl Future<Output = ()>,
//! # ) -> kip_core::Result<()> {
//! let config = LeaderConfig::new("kip", LeaderConfig::lease_name(&NodeName::new("my-node")), "replica-1_4f1c");
//! let mut leader = LeaderElection::new(client, config)?.lead().await?;
//! tokio::select! {
//!     () = act => {}
//!     () = told_to_end => {}
//!     // What acted is dropped here: as if this process had crashed.
//!     why = leader.lost() => return Err(why),
//! }
//! leader.release().await
//! # }
//! ```
//!
//! # What it promises, and what not
//! A replica judges another's lease only by its own monotonic clock: the lease counts as given up once it did not change for its whole
//! duration *since this replica last saw it change*. The clocks of replicas may differ as they like. A leader counts from before its
//! request was sent, and stops acting after the renew deadline, which is shorter than the lease. So two act at once only when one
//! was stopped as a whole (a paused machine) and has not noticed yet; what it writes then is refused by the resource versions of the
//! Cell objects.

mod config;
mod election;
mod lease;

pub use config::LeaderConfig;
pub use lease::{Leader, LeaderElection};

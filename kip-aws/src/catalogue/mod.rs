//! What EC2 sells in a region: instance types, the zones they are in, and for how much.
//!
//! A [`Catalogue`] begins with the [`Seed`] that is compiled in, so a controller without any permission can place pods from its first second.
//! What is learned from the cloud later comes in as [`Live`] parts, which a [`LiveSource`] asks for: each replaces its part of the [`Facts`]
//! by the pure [`merge()`], and readers see all of the old or all of the new.
//!
//! ```
//! use kip_aws::catalogue::Catalogue;
//!
//! let catalogue = Catalogue::seeded("us-east-1")?;
//! let snapshot = catalogue.snapshot();
//! let m5 = |offering: &&kip_core::model::Offering| offering.id.to_string() == "m5.large/us-east-1a/on-demand";
//! let offering = snapshot.offerings().iter().find(m5).expect("m5.large is sold there");
//! assert_eq!(offering.price.to_string(), "$0.0960/h");
//! # Ok::<(), kip_aws::catalogue::CatalogueError>(())
//! ```

mod burstable;
mod classic;
mod error;
mod facts;
mod instance_data;
mod kind;
mod labels;
mod live;
mod merge;
mod offerings;
mod seed;
mod shared;
mod spot;

pub use burstable::{baseline, surplus_cpu_hour};
pub use classic::classic_policy;
pub use error::CatalogueError;
pub use facts::{Facts, PriceSource, Stamp};
pub use instance_data::from_instance_data;
pub use kind::{Gpu, InstanceKind, Neuron, UsageClass};
pub use labels::labels;
pub(crate) use live::Refreshing;
pub use live::{Fetched, LiveSource, PartState, Refresh};
pub use merge::{Live, LivePart, merge};
pub use offerings::offerings;
pub use seed::{Region, Seed, SeededKind};
pub use shared::{Catalogue, Snapshot};
pub use spot::estimate as spot_estimate;

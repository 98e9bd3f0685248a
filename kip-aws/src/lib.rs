//! Amazon EC2 as a cloud for Kip.
//!
//! [`catalogue`] knows what EC2 sells: instance types, zones and prices, from data that is compiled in and, later, from the cloud itself.
//! [`AwsCloud`] launches, watches and terminates instances there: each launch is one RunInstances call that carries everything, from tags to
//! user-data, with the launch token as idempotency token.
//!
//! ```no_run
//! # async fn example() -> kip_core::Result<()> {
//! use kip_aws::{AwsCloud, AwsConfig, ImageSpec};
//! let mut config = AwsConfig::default();
//! config.images.ids = vec!["ami-0abc".into()];
//! let cloud = AwsCloud::builder(config).open().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing of the AWS SDK is in the public interface, except as the source of an error.

mod api;
mod batch;
mod builder;
pub mod catalogue;
mod config;
mod environment;
mod errors;
mod http;
mod images;
mod interruption;
mod labels;
mod launch;
mod observe;
mod permissions;
mod preflight;
mod provider;
mod routes;
mod sold;
mod subnets;
mod tags;
mod terminate;
#[cfg(test)]
mod testing;
mod upkeep;
mod user_data;
mod volumes;
mod young;

pub use builder::AwsBuilder;
pub use config::{AwsConfig, AwsCredentials, CpuCredits, PublicAddress, SecurityGroup};
pub use images::ImageSpec;
pub use permissions::{cell_iam_policy, iam_policy, permission_table};
pub use preflight::{Check, Verdict};
pub use provider::AwsCloud;
pub use user_data::user_data_len;

//! `kip catalogue`, and what `kip size` chooses from: what is compiled in about a cloud, or what the cloud says now.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod live;

use std::process::ExitCode;

use kip_core::model::Offering;
use kip_core::sizing::SizingPolicy;

use crate::args::{CatalogueArgs, CloudName};
use crate::config::{Cloud, Config};

/// What there is to choose from.
#[derive(Debug)]
pub(crate) struct Known {
    /// What is sold.
    pub(crate) offerings: Vec<Offering>,
    /// Whose prices these are and of which day, what of it is an estimate, what is assumed; for people, a line each.
    pub(crate) notes: Vec<String>,
}

/// Runs the command. The exit code is 1 when a pattern matches no type, or the cloud does not tell all it was asked for.
///
/// # Errors
/// When nothing about the cloud is compiled in, or the region is not known.
pub(crate) fn run(args: &CatalogueArgs) -> anyhow::Result<ExitCode> {
    match args.cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => aws::run(args),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!(NO_AWS),
    }
}

/// What is compiled in about a region.
///
/// # Errors
/// When nothing about the cloud is compiled in, or the region is not known.
pub(crate) fn compiled_in(cloud: CloudName, region: &str) -> anyhow::Result<Known> {
    match cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => aws::compiled_in(region),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!("{NO_AWS} (asked for region {region})"),
    }
}

/// What a region sells by what the cloud says now.
///
/// # Errors
/// As [`compiled_in`], and without credentials for the cloud.
pub(crate) fn live(cloud: CloudName, region: &str, config: &Config) -> anyhow::Result<Known> {
    match cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => live::region(region, config),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!("{NO_AWS} (asked for region {region} of {})", config.cloud.name()),
    }
}

/// What the configured cloud sells, without launching anything; by what it says now when it is to be asked.
///
/// # Errors
/// When the cloud cannot be asked, or has nothing to be asked for.
pub(crate) fn configured(config: &Config, ask: bool) -> anyhow::Result<Known> {
    match &config.cloud {
        #[cfg(feature = "local")]
        Cloud::Local(local) => {
            anyhow::ensure!(
                !ask,
                "--live: the local cloud has its price list from the configuration; leave it out"
            );
            Ok(Known {
                offerings: local.price_list()?,
                notes: Vec::new(),
            })
        }
        #[cfg(feature = "aws")]
        Cloud::Aws(aws) if ask => live::configured(aws, config),
        #[cfg(feature = "aws")]
        Cloud::Aws(aws) => aws::configured(aws),
        other => anyhow::bail!(
            "this build has no {} support{}",
            other.name(),
            if ask { " (--live)" } else { "" }
        ),
    }
}

/// How the old Kip chose in a cloud.
///
/// # Errors
/// When nothing about the cloud is compiled in.
pub(crate) fn classic_policy(cloud: CloudName) -> anyhow::Result<SizingPolicy> {
    match cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => Ok(kip_aws::catalogue::classic_policy()),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!(NO_AWS),
    }
}

#[cfg(not(feature = "aws"))]
const NO_AWS: &str = "--cloud: this build has no aws support; build it with --features aws";

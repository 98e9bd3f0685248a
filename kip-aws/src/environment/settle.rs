//! From what is configured to where instances go and which security groups they get.

use std::net::IpAddr;

use kip_core::error::Result;

use super::security_group::explained;
use super::{Cidr, Metadata, OwnGroup, Owner, Vpc, ensure, vpc};
use crate::api::Api;
use crate::config::{AwsConfig, SecurityGroup};

/// The group that Kip is to keep; None when the configuration names one, wants none, or nobody says whose it would be.
pub(crate) fn own_group(
    config: &AwsConfig,
    owner: Option<&Owner>,
    vpc: Option<&Vpc>,
    controller: Option<IpAddr>,
) -> Option<OwnGroup> {
    if config.security_group != SecurityGroup::Kept {
        return None;
    }
    Some(OwnGroup {
        owner: owner?.clone(),
        vpc: vpc?.clone(),
        // Those that cannot be read are problems of the configuration, which were told.
        extra: config
            .extra_cidrs
            .iter()
            .filter_map(|text| text.parse::<Cidr>().ok())
            .collect(),
        controller,
        tags: config.tags.clone(),
    })
}

/// Finds the VPC and writes it into the configuration. None when nobody needs to know more of it than its id, which then costs no permission.
///
/// # Errors
/// As [`vpc::resolve`].
pub(crate) async fn place(
    api: &Api,
    metadata: &Metadata,
    config: &mut AwsConfig,
    owner: Option<&Owner>,
) -> Result<Option<Vpc>> {
    let keeps_group = owner.is_some() && config.security_group == SecurityGroup::Kept;
    let names_vpc = config
        .vpc_id
        .as_deref()
        .is_some_and(|id| !id.eq_ignore_ascii_case(vpc::DEFAULT));
    if !keeps_group && names_vpc {
        return Ok(None);
    }
    if !keeps_group && config.vpc_id.is_none() && !config.subnet_ids.is_empty() {
        // Whoever keeps things in order must know where; without an owner nothing is kept.
        if owner.is_some() {
            config.vpc_id = Some(vpc::of_subnets(api, &config.subnet_ids).await?);
        }
        return Ok(None);
    }
    let found = vpc::resolve(api, metadata, config).await;
    let found = found.map_err(|error| if keeps_group { explained(error) } else { error })?;
    config.vpc_id = Some(found.id.clone());
    Ok(Some(found))
}

/// Makes sure of the security groups and writes them into the configuration: Kip's own or the one named instead, then the extra ones.
///
/// # Errors
/// As [`ensure`].
pub(crate) async fn guard(api: &Api, config: &mut AwsConfig, own: Option<&OwnGroup>) -> Result<()> {
    let first = match (&config.security_group, own) {
        (SecurityGroup::Given(id), _) => Some(id.clone()),
        (SecurityGroup::Kept, Some(own)) => Some(ensure(api, own).await?),
        (SecurityGroup::Kept | SecurityGroup::None, _) => None,
    };
    if let Some(first) = first {
        config.security_group_ids.retain(|id| *id != first);
        config.security_group_ids.insert(0, first);
    }
    Ok(())
}

//! Which VPC instances go to.

use aws_sdk_ec2::types::{self, VpcCidrBlockState, VpcCidrBlockStateCode};
use kip_core::error::{Error, ErrorKind, Result};

use super::{Cidr, Metadata};
use crate::api::{self, Api};
use crate::builder::START;
use crate::config::AwsConfig;

/// What `vpc_id` says for the region's default VPC.
pub(crate) const DEFAULT: &str = "default";

/// A VPC and its address ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vpc {
    /// Its id.
    pub(crate) id: String,
    /// Its ranges of IPv4, as far as they are in use.
    pub(crate) ranges: Vec<Cidr>,
}

/// The VPC that instances go to: the configured one, else the one of the configured subnets, else the one this process runs in, else the
/// region's default one.
///
/// # Errors
/// `ConfigInvalid` when there is none, or when the subnets are in several; what the calls answer.
pub(crate) async fn resolve(api: &Api, metadata: &Metadata, config: &AwsConfig) -> Result<Vpc> {
    let invalid = |message: String| Error::new(ErrorKind::ConfigInvalid, START, message);
    match config.vpc_id.as_deref() {
        Some(id) if id.eq_ignore_ascii_case(DEFAULT) => return default(api).await,
        Some(id) => return known(api, id).await,
        None => {}
    }
    if !config.subnet_ids.is_empty() {
        return known(api, &of_subnets(api, &config.subnet_ids).await?).await;
    }
    match metadata.vpcs().await.as_slice() {
        [] => {}
        [here] => match known(api, here).await {
            // Kip runs in another region or account than the instances.
            Err(error) if error.kind() == ErrorKind::ConfigInvalid => {
                tracing::info!(
                    vpc = here,
                    "the VPC this process runs in is not there in the region"
                );
            }
            answer => return answer,
        },
        several => {
            return Err(invalid(format!(
                "vpc_id: this machine is in {} VPCs ({}): name one of them",
                several.len(),
                several.join(", ")
            )));
        }
    }
    default(api).await
}

/// The one VPC of some subnets.
///
/// # Errors
/// `ConfigInvalid` when they are in several; what the call answers.
pub(super) async fn of_subnets(api: &Api, ids: &[String]) -> Result<String> {
    let subnets = api.describe_subnets(START, ids, Vec::new()).await?;
    let mut vpcs: Vec<String> = subnets.into_iter().filter_map(|subnet| subnet.vpc_id).collect();
    vpcs.sort();
    vpcs.dedup();
    match vpcs.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let message = format!(
                "subnet_ids: are in {} VPCs ({}): name subnets of one VPC",
                vpcs.len(),
                vpcs.join(", ")
            );
            Err(Error::new(ErrorKind::ConfigInvalid, START, message))
        }
    }
}

async fn known(api: &Api, id: &str) -> Result<Vpc> {
    let found = api.describe_vpcs(&[id.to_owned()], Vec::new()).await?;
    found.first().and_then(of).ok_or_else(|| {
        let message = format!("vpc_id: EC2 shows no VPC {id}: check the region and the account");
        Error::new(ErrorKind::ConfigInvalid, START, message)
    })
}

async fn default(api: &Api) -> Result<Vpc> {
    let found = api
        .describe_vpcs(&[], vec![api::exactly("is-default", "true")])
        .await?;
    found.first().and_then(of).ok_or_else(|| {
        let message = "the region has no default VPC: name a VPC or subnets";
        Error::new(ErrorKind::ConfigInvalid, START, message)
    })
}

fn of(found: &types::Vpc) -> Option<Vpc> {
    let associated = found.cidr_block_association_set().iter().filter(|range| {
        let state = range.cidr_block_state().and_then(VpcCidrBlockState::state);
        state.is_none_or(|state| *state == VpcCidrBlockStateCode::Associated)
    });
    let mut ranges: Vec<Cidr> = associated
        .filter_map(|range| range.cidr_block())
        .chain(found.cidr_block())
        .filter_map(|range| range.parse().ok())
        .collect();
    ranges.sort();
    ranges.dedup();
    Some(Vpc {
        id: found.vpc_id()?.to_owned(),
        ranges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::VpcCidrBlockAssociation;

    #[test]
    fn ranges_that_are_on_their_way_out_are_not_let_in() {
        let range = |cidr: &str, state| {
            VpcCidrBlockAssociation::builder()
                .cidr_block(cidr)
                .cidr_block_state(VpcCidrBlockState::builder().state(state).build())
                .build()
        };
        let found = types::Vpc::builder()
            .vpc_id("vpc-1")
            .cidr_block("10.0.0.0/16")
            .cidr_block_association_set(range("10.0.0.0/16", VpcCidrBlockStateCode::Associated))
            .cidr_block_association_set(range("100.64.0.0/10", VpcCidrBlockStateCode::Associated))
            .cidr_block_association_set(range("10.1.0.0/16", VpcCidrBlockStateCode::Disassociated))
            .build();
        let ranges: Vec<String> = of(&found).unwrap().ranges.iter().map(Cidr::to_string).collect();
        assert_eq!(ranges, ["10.0.0.0/16", "100.64.0.0/10"]);
    }
}

//! The fake's VPCs.

use std::collections::BTreeMap;

use super::state::Answer;
use super::wire::{self, Params, element, set};

/// A VPC.
#[derive(Clone, Debug)]
pub struct Vpc {
    /// Its address ranges, the first one first.
    pub cidrs: Vec<String>,
    /// Whether it is the region's default.
    pub is_default: bool,
}

/// All VPCs, by id: at first the default one, `vpc-1`, with 10.0.0.0/16.
pub(super) fn usual() -> BTreeMap<String, Vpc> {
    let vpc = Vpc {
        cidrs: vec!["10.0.0.0/16".to_owned()],
        is_default: true,
    };
    BTreeMap::from([("vpc-1".to_owned(), vpc)])
}

/// Answers DescribeVpcs.
pub(super) fn describe(vpcs: &BTreeMap<String, Vpc>, params: &Params) -> Answer {
    let ids = params.list("VpcId");
    if let Some(id) = ids.iter().find(|id| !vpcs.contains_key(*id)) {
        let message = format!("The vpc ID '{id}' does not exist");
        return Err(("InvalidVpcID.NotFound".to_owned(), message));
    }
    let filters = params.filters();
    let shown = vpcs
        .iter()
        .filter(|(id, vpc)| {
            (ids.is_empty() || ids.contains(id))
                && filters.iter().all(|(name, patterns)| {
                    let value = match name.as_str() {
                        "is-default" => vpc.is_default.to_string(),
                        "vpc-id" => (*id).clone(),
                        _ => return false,
                    };
                    patterns.iter().any(|pattern| wire::matches(pattern, &value))
                })
        })
        .map(|(id, vpc)| {
            let ranges = vpc.cidrs.iter().map(|cidr| {
                element("cidrBlock", cidr) + &wire::wrap("cidrBlockState", &element("state", "associated"))
            });
            element("vpcId", id)
                + &element("cidrBlock", vpc.cidrs.first().map_or("", String::as_str))
                + &element("isDefault", &vpc.is_default.to_string())
                + &element("state", "available")
                + &set("cidrBlockAssociationSet", ranges)
        });
    Ok(set("vpcSet", shown))
}

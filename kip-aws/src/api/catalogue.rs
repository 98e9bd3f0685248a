//! The calls that tell what EC2 sells, a page each.

use std::time::SystemTime;

use aws_sdk_ec2::types::{InstanceTypeInfo, InstanceTypeOffering, LocationType, SpotPrice};
use kip_core::error::Result;

use super::Api;
use crate::errors;

/// The operation in the errors of these calls.
pub(crate) const REFRESH: &str = "refresh the catalogue";

/// Instance types a page: the most EC2 gives. Source: DescribeInstanceTypes, Amazon EC2 API Reference.
const KINDS: i32 = 100;
/// Offerings a page: the most EC2 gives. Source: DescribeInstanceTypeOfferings, the same.
const OFFERINGS: i32 = 1000;
/// Spot prices a page: the most EC2 gives. Source: DescribeSpotPriceHistory, the same.
const SPOT_PRICES: i32 = 1000;
/// What Linux is called in spot prices; the second name is that of accounts from before VPCs.
pub(crate) const LINUX: [&str; 2] = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"];

/// One page, and the token of the next.
pub(crate) type Page<T> = (Vec<T>, Option<String>);

impl Api {
    /// A page of the instance types of the region.
    pub(crate) async fn instance_types(&self, page: Option<String>) -> Result<Page<InstanceTypeInfo>> {
        let output = self
            .0
            .describe_instance_types()
            .set_next_token(page)
            .max_results(KINDS)
            .send()
            .await
            .map_err(|error| errors::of_sdk(REFRESH, "DescribeInstanceTypes", error))?;
        Ok((output.instance_types.unwrap_or_default(), output.next_token))
    }

    /// A page of which zones have which types.
    pub(crate) async fn type_offerings(&self, page: Option<String>) -> Result<Page<InstanceTypeOffering>> {
        let output = self
            .0
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .set_next_token(page)
            .max_results(OFFERINGS)
            .send()
            .await
            .map_err(|error| errors::of_sdk(REFRESH, "DescribeInstanceTypeOfferings", error))?;
        Ok((
            output.instance_type_offerings.unwrap_or_default(),
            output.next_token,
        ))
    }

    /// A page of the spot prices of Linux in force at a time.
    pub(crate) async fn spot_prices(&self, at: SystemTime, page: Option<String>) -> Result<Page<SpotPrice>> {
        let output = self
            .0
            .describe_spot_price_history()
            .set_product_descriptions(Some(LINUX.map(str::to_owned).to_vec()))
            .start_time(at.into())
            .set_next_token(page)
            .max_results(SPOT_PRICES)
            .send()
            .await
            .map_err(|error| errors::of_sdk(REFRESH, "DescribeSpotPriceHistory", error))?;
        Ok((output.spot_price_history.unwrap_or_default(), output.next_token))
    }
}

//! From a launch request to the one RunInstances call that makes all of it: nothing is changed after boot.

use aws_sdk_ec2::operation::run_instances::RunInstancesInput;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types::{
    CreditSpecificationRequest, HttpTokensState, IamInstanceProfileSpecification,
    InstanceInterruptionBehavior, InstanceMarketOptionsRequest, InstanceMetadataEndpointState,
    InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, InstanceType, MarketType,
    Placement, ResourceType, ShutdownBehavior, SpotInstanceType, SpotMarketOptions, TagSpecification,
    Tenancy,
};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::CapacityType;
use kip_core::provider::LaunchRequest;

use crate::config::{AwsConfig, CpuCredits, PublicAddress};
use crate::images::BootImage;
use crate::{tags, user_data, volumes};

const OP: &str = "launch";
/// Longest client token. Source: "Ensuring idempotency in Amazon EC2 API requests".
const TOKEN: usize = 64;
/// Most security groups of an interface, where the account's quota L-2AFB9258 was raised; 5 else. Source: "Amazon VPC quotas".
pub(crate) const GROUPS: usize = 16;

/// The input of RunInstances for a request. Pure: equal arguments, equal bytes on the wire, so that a repeat is a repeat for EC2 too.
///
/// # Errors
/// `InvalidRequest` for what EC2 would refuse, before anything is sent; `Unsupported` for reserved capacity.
pub(crate) fn input(
    request: &LaunchRequest,
    config: &AwsConfig,
    image: &BootImage,
    subnet: &str,
) -> Result<RunInstancesInputBuilder> {
    let refused = |message: String| {
        Error::new(ErrorKind::InvalidRequest, OP, message).with_context("offering", &request.offering)
    };
    let token = request.token.as_str();
    if token.is_empty() || token.len() > TOKEN || !token.is_ascii() {
        return Err(refused(format!(
            "the token must be 1 to {TOKEN} ASCII characters"
        )));
    }
    let mut input = RunInstancesInput::builder()
        .client_token(token)
        .min_count(1)
        .max_count(1)
        .image_id(&image.id)
        .instance_type(InstanceType::from(request.offering.instance_type.as_str()))
        .network_interfaces(network_interface(request, config, subnet).map_err(refused)?)
        .set_block_device_mappings(Some(
            volumes::mappings(&request.options, config.root_volume, image).map_err(refused)?,
        ))
        .metadata_options(metadata_options())
        // Whatever shuts an instance down ends it, or a stopped one would be paid for and never found.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate);
    if let Some(text) = user_data::encoded(&request.user_data)
        .map_err(|error| error.with_context("offering", &request.offering))?
    {
        input = input.user_data(text);
    }
    let is_spot = request.offering.capacity_type == CapacityType::Spot;
    let tags = tags::of_launch(request, &config.tags, config.nametag.as_deref())?;
    let resources = [
        ResourceType::Instance,
        ResourceType::Volume,
        ResourceType::NetworkInterface,
    ];
    for resource in resources
        .into_iter()
        .chain(is_spot.then_some(ResourceType::SpotInstancesRequest))
    {
        let specification = TagSpecification::builder()
            .resource_type(resource)
            .set_tags(Some(tags.clone()));
        input = input.tag_specifications(specification.build());
    }
    if let Some(profile) = request
        .options
        .identity
        .as_ref()
        .or(config.instance_profile.as_ref())
    {
        let builder = IamInstanceProfileSpecification::builder();
        let builder = if profile.starts_with("arn:") {
            builder.arn(profile)
        } else {
            builder.name(profile)
        };
        input = input.iam_instance_profile(builder.build());
    }
    if request.options.dedicated {
        input = input.placement(Placement::builder().tenancy(Tenancy::Dedicated).build());
    }
    if is_burstable(request.offering.instance_type.as_str()) {
        let credits = match config.cpu_credits {
            CpuCredits::Unlimited => "unlimited",
            CpuCredits::Standard => "standard",
        };
        let credits = CreditSpecificationRequest::builder().cpu_credits(credits).build();
        input = input.credit_specification(credits);
    }
    match request.offering.capacity_type {
        CapacityType::OnDemand => Ok(input),
        CapacityType::Spot => Ok(input.instance_market_options(spot())),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            OP,
            format!("{other} capacity cannot be launched on EC2"),
        )),
    }
}

fn network_interface(
    request: &LaunchRequest,
    config: &AwsConfig,
    subnet: &str,
) -> Result<InstanceNetworkInterfaceSpecification, String> {
    let groups = security_groups(request, config)?;
    let public = match config.public_address {
        _ if request.options.private_address_only => Some(false),
        PublicAddress::AsSubnet => None,
        PublicAddress::Never => Some(false),
        PublicAddress::Always => Some(true),
    };
    Ok(InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .subnet_id(subnet)
        .delete_on_termination(true)
        .set_groups((!groups.is_empty()).then_some(groups))
        .set_secondary_private_ip_address_count(config.secondary_address.then_some(1))
        .set_associate_public_ip_address(public)
        .build())
}

/// The configured groups, then the pod's.
fn security_groups(request: &LaunchRequest, config: &AwsConfig) -> Result<Vec<String>, String> {
    const ANNOTATION: &str = "pod.elotl.co/security-groups";
    let mut groups = config.security_group_ids.clone();
    for group in &request.options.security_groups {
        if !group.starts_with("sg-") {
            return Err(format!(
                "{ANNOTATION}: `{group}` is no security group: write ids such as sg-0123456789abcdef0, separated by commas"
            ));
        }
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    if groups.len() > GROUPS {
        return Err(format!(
            "{ANNOTATION}: with the configured ones there would be {} security groups, EC2 takes {GROUPS}",
            groups.len()
        ));
    }
    Ok(groups)
}

/// Version 2 with tokens only, and no further than the instance itself: a pod with its own network cannot ask.
fn metadata_options() -> InstanceMetadataOptionsRequest {
    InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .build()
}

fn spot() -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate);
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options.build())
        .build()
}

/// Whether EC2 takes CPU credits for a type: the T families from the second generation on.
fn is_burstable(instance_type: &str) -> bool {
    let mut chars = instance_type.chars();
    chars.next() == Some('t')
        && chars
            .next()
            .is_some_and(|generation| generation.is_ascii_digit() && generation != '1')
}

#[cfg(test)]
mod tests;

//! From a launch request to the one RunInstances call that makes all of it: nothing is changed after boot.

use aws_sdk_ec2::operation::run_instances::RunInstancesInput;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, CreditSpecificationRequest, EbsBlockDevice, HttpTokensState,
    IamInstanceProfileSpecification, InstanceInterruptionBehavior, InstanceMarketOptionsRequest,
    InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification,
    InstanceType, MarketType, ResourceType, ShutdownBehavior, SpotInstanceType, SpotMarketOptions,
    TagSpecification, VolumeType,
};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::{Bytes, CapacityType};
use kip_core::provider::LaunchRequest;

use crate::config::{AwsConfig, CpuCredits, PublicAddress};
use crate::images::BootImage;
use crate::{tags, user_data};

const OP: &str = "launch";
/// Longest client token. Source: "Ensuring idempotency in Amazon EC2 API requests".
const TOKEN: usize = 64;
/// Largest gp3 volume in GiB. Source: "Amazon EBS volume types", Amazon EBS User Guide.
const LARGEST: u64 = 64 * 1024;

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
        .network_interfaces(network_interface(config, subnet))
        .block_device_mappings(root_volume(request, config, image).map_err(refused)?)
        .metadata_options(metadata_options())
        // Whatever shuts an instance down ends it, or a stopped one would be paid for and never found.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate);
    if let Some(text) = user_data::encoded(&request.user_data)
        .map_err(|error| error.with_context("offering", &request.offering))?
    {
        input = input.user_data(text);
    }
    let tags = tags::of_launch(request, &config.tags, config.nametag.as_deref())?;
    for resource in [
        ResourceType::Instance,
        ResourceType::Volume,
        ResourceType::NetworkInterface,
    ] {
        let specification = TagSpecification::builder()
            .resource_type(resource)
            .set_tags(Some(tags.clone()));
        input = input.tag_specifications(specification.build());
    }
    if let Some(profile) = &config.instance_profile {
        let builder = IamInstanceProfileSpecification::builder();
        let builder = if profile.starts_with("arn:") {
            builder.arn(profile)
        } else {
            builder.name(profile)
        };
        input = input.iam_instance_profile(builder.build());
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

fn network_interface(config: &AwsConfig, subnet: &str) -> InstanceNetworkInterfaceSpecification {
    let groups = &config.security_group_ids;
    InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .subnet_id(subnet)
        .delete_on_termination(true)
        .set_groups((!groups.is_empty()).then(|| groups.clone()))
        .set_secondary_private_ip_address_count(config.secondary_address.then_some(1))
        .set_associate_public_ip_address(match config.public_address {
            PublicAddress::AsSubnet => None,
            PublicAddress::Never => Some(false),
            PublicAddress::Always => Some(true),
        })
        .build()
}

fn root_volume(
    request: &LaunchRequest,
    config: &AwsConfig,
    image: &BootImage,
) -> Result<BlockDeviceMapping, String> {
    let asked = match request.options.volume_size {
        Bytes(0) => config.root_volume,
        asked => asked,
    };
    let gib = asked.0.div_ceil(Bytes::gib(1).0).max(1);
    let size = i32::try_from(gib)
        .ok()
        .filter(|_| gib <= LARGEST)
        .ok_or_else(|| format!("the root volume would have {gib} GiB, EC2 sells {LARGEST} at most"))?;
    let volume = EbsBlockDevice::builder()
        .volume_size(size.max(image.root_gib))
        .volume_type(VolumeType::Gp3)
        .delete_on_termination(true);
    Ok(BlockDeviceMapping::builder()
        .device_name(&image.root_device)
        .ebs(volume.build())
        .build())
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

//! From EC2's record of an instance to Kip's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_sdk_ec2::types::{self, InstanceLifecycleType, InstanceStateName};
use jiff::Timestamp;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::{InstanceId, InstanceType, LaunchToken, OfferingId, Zone};
use kip_core::model::{Addresses, CapacityType, Instance, InstancePhase};
use kip_core::provider::tags;

/// Kip's record for EC2's.
///
/// # Errors
/// `Unexpected` when something is missing that every instance has.
pub(crate) fn instance(operation: &'static str, found: &types::Instance) -> Result<Instance> {
    let missing = |field: &'static str| {
        let message = format!("EC2 shows an instance without {field}");
        let error = Error::new(ErrorKind::Unexpected, operation, message);
        match found.instance_id() {
            Some(id) => error.with_context("instance", id),
            None => error,
        }
    };
    let id = found.instance_id().ok_or_else(|| missing("an id"))?;
    let instance_type = found.instance_type().ok_or_else(|| missing("a type"))?;
    let zone = found
        .placement()
        .and_then(types::Placement::availability_zone)
        .ok_or_else(|| missing("a zone"))?;
    let launched_at = found
        .launch_time()
        .and_then(|time| Timestamp::from_second(time.secs()).ok())
        .ok_or_else(|| missing("a launch time"))?;
    let offering = OfferingId {
        instance_type: InstanceType::new(instance_type.as_str()),
        zone: Zone::new(zone),
        capacity_type: match found.instance_lifecycle() {
            Some(InstanceLifecycleType::Spot) => CapacityType::Spot,
            _ => CapacityType::OnDemand,
        },
    };
    let mut instance = Instance::new(
        InstanceId::new(id),
        format!("aws:///{zone}/{id}"),
        offering,
        launched_at,
    );
    instance.phase = phase(found.state().and_then(types::InstanceState::name));
    instance.addresses = addresses(found);
    instance.tags = tags_of(found);
    instance.token = instance.tags.get(tags::TOKEN).map(LaunchToken::from_stored);
    if !matches!(instance.phase, InstancePhase::Pending | InstancePhase::Running) {
        instance.reason = reason(found);
    }
    Ok(instance)
}

fn phase(state: Option<&InstanceStateName>) -> InstancePhase {
    match state {
        Some(InstanceStateName::Running) => InstancePhase::Running,
        // Kip never stops an instance, so a stopped one is on its way out by another's hand: it runs no pod any more.
        Some(InstanceStateName::ShuttingDown | InstanceStateName::Stopping | InstanceStateName::Stopped) => {
            InstancePhase::Terminating
        }
        Some(InstanceStateName::Terminated) => InstancePhase::Terminated,
        _ => InstancePhase::Pending,
    }
}

/// The primary private address of the first interface for the agent, another of its private addresses for the pod.
fn addresses(found: &types::Instance) -> Addresses {
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    let management = found.private_ip_address().and_then(parse);
    let pod = found
        .network_interfaces()
        .iter()
        .find(|interface| {
            interface
                .attachment()
                .is_none_or(|attachment| attachment.device_index() == Some(0))
        })
        .into_iter()
        .flat_map(|interface| interface.private_ip_addresses())
        .filter(|address| address.primary() != Some(true))
        .filter_map(|address| address.private_ip_address().and_then(parse))
        .find(|address| Some(*address) != management);
    Addresses { management, pod }
}

pub(crate) fn tags_of(found: &types::Instance) -> BTreeMap<String, String> {
    found
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

/// Why it ended: EC2's code and sentence, else what it says about the last transition.
fn reason(found: &types::Instance) -> Option<String> {
    let state = found.state_reason();
    let words = state
        .and_then(|reason| reason.message().or(reason.code()))
        .or(found.state_transition_reason())?;
    Some(words.to_owned()).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;
    use aws_sdk_ec2::types::{
        InstanceNetworkInterface, InstancePrivateIpAddress, InstanceState, Placement, StateReason, Tag,
    };

    fn found() -> types::builders::InstanceBuilder {
        types::Instance::builder()
            .instance_id("i-1")
            .instance_type(types::InstanceType::T3Small)
            .placement(Placement::builder().availability_zone("us-east-1a").build())
            .launch_time(DateTime::from_secs(1_790_000_000))
    }

    fn in_state(state: InstanceStateName) -> types::Instance {
        found()
            .state(InstanceState::builder().name(state).build())
            .build()
    }

    #[test]
    fn every_state_of_ec2_has_its_phase() {
        for (state, phase) in [
            (InstanceStateName::Pending, InstancePhase::Pending),
            (InstanceStateName::Running, InstancePhase::Running),
            (InstanceStateName::ShuttingDown, InstancePhase::Terminating),
            (InstanceStateName::Stopping, InstancePhase::Terminating),
            (InstanceStateName::Stopped, InstancePhase::Terminating),
            (InstanceStateName::Terminated, InstancePhase::Terminated),
            (InstanceStateName::from("new-one"), InstancePhase::Pending),
        ] {
            assert_eq!(
                instance("get", &in_state(state.clone())).unwrap().phase,
                phase,
                "{state:?}"
            );
        }
    }

    #[test]
    fn addresses_tags_token_and_capacity_type_are_read_back() {
        let address = |ip: &str, primary| {
            InstancePrivateIpAddress::builder()
                .private_ip_address(ip)
                .primary(primary)
                .build()
        };
        let interface = InstanceNetworkInterface::builder()
            .private_ip_addresses(address("10.0.0.5", true))
            .private_ip_addresses(address("10.0.0.9", false));
        let spot = found()
            .private_ip_address("10.0.0.5")
            .network_interfaces(interface.build())
            .instance_lifecycle(InstanceLifecycleType::Spot)
            .tags(Tag::builder().key(tags::TOKEN).value("t").build())
            .build();
        let instance = instance("get", &spot).unwrap();
        assert_eq!(instance.addresses.management, "10.0.0.5".parse().ok());
        assert_eq!(instance.addresses.pod, "10.0.0.9".parse().ok());
        assert_eq!(instance.token, Some(LaunchToken::from_stored("t")));
        assert_eq!(instance.provider_id, "aws:///us-east-1a/i-1");
        assert_eq!(instance.offering.to_string(), "t3.small/us-east-1a/spot");
    }

    /// A launch that went pending to terminated is explained by this alone.
    #[test]
    fn an_ended_instance_says_why_in_the_clouds_words() {
        let mut ended = in_state(InstanceStateName::Terminated);
        ended.state_reason = Some(
            StateReason::builder()
                .code("Client.InvalidKMSKey.InvalidState")
                .message("The KMS key is disabled")
                .build(),
        );
        let ended = instance("get", &ended).unwrap();
        assert_eq!(ended.reason.as_deref(), Some("The KMS key is disabled"));
    }

    #[test]
    fn an_answer_without_an_id_is_an_error_and_no_instance() {
        let error = instance("get", &types::Instance::builder().build()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
    }
}

use std::collections::BTreeSet;

use aws_sdk_ec2::types::VolumeType;
use kip_core::Retry;
use kip_core::ids::LaunchToken;
use kip_core::model::{Bytes, LaunchOptions};
use kip_core::provider::{UserData, tags as names};

use super::*;
use crate::testing::{incompressible, offering, request};

fn image() -> BootImage {
    BootImage {
        id: "ami-1".into(),
        root_device: "/dev/xvda".into(),
        root_gib: 8,
        kept_volumes: vec!["/dev/sdb".into()],
    }
}

fn made(request: &LaunchRequest, config: &AwsConfig) -> RunInstancesInput {
    input(request, config, &image(), "subnet-1")
        .unwrap()
        .build()
        .unwrap()
}

fn refusal(request: &LaunchRequest) -> Error {
    input(request, &AwsConfig::default(), &image(), "subnet-1").unwrap_err()
}

/// EC2 answers a repeat with the first instance only when every byte is the same.
#[test]
fn the_same_request_makes_the_same_call() {
    let request = request().with_tag(names::CLUSTER, "c").with_tag("a", "b");
    let config = AwsConfig::default();
    assert_eq!(made(&request, &config), made(&request.clone(), &config));
    assert_eq!(
        made(&request, &config).client_token(),
        Some(request.token.as_str())
    );
}

#[test]
fn one_instance_of_the_offering_is_asked_for_in_the_chosen_subnet() {
    let made = made(&request(), &AwsConfig::default());
    assert_eq!((made.min_count(), made.max_count()), (Some(1), Some(1)));
    assert_eq!(made.instance_type().unwrap().as_str(), "t3.small");
    assert_eq!(made.image_id(), Some("ami-1"));
    let interface = &made.network_interfaces()[0];
    assert_eq!(interface.subnet_id(), Some("subnet-1"));
    assert_eq!(interface.delete_on_termination(), Some(true));
    assert_eq!(interface.secondary_private_ip_address_count(), Some(1));
    assert_eq!(interface.associate_public_ip_address(), None);
    assert!(made.instance_market_options().is_none());
    assert_eq!(
        made.instance_initiated_shutdown_behavior(),
        Some(&ShutdownBehavior::Terminate)
    );
}

/// A pod that can reach the metadata service has the instance's role and its user-data.
#[test]
fn the_metadata_service_takes_tokens_only_and_ends_at_the_instance() {
    let made = made(&request(), &AwsConfig::default());
    let options = made.metadata_options().unwrap();
    assert_eq!(options.http_tokens(), Some(&HttpTokensState::Required));
    assert_eq!(options.http_put_response_hop_limit(), Some(1));
}

/// Untagged volumes and interfaces outlive a failed launch and nobody knows whose they are.
#[test]
fn instance_volume_and_interface_carry_all_tags() {
    let config = AwsConfig {
        tags: [("team".to_owned(), "a".to_owned())].into(),
        ..AwsConfig::default()
    };
    let request = request()
        .with_tag(names::CLUSTER, "c")
        .with_tag(names::POD_UID, "u");
    let made = made(&request, &config);
    let kinds: Vec<_> = made
        .tag_specifications()
        .iter()
        .map(|tags| tags.resource_type().unwrap().as_str())
        .collect();
    assert_eq!(kinds, ["instance", "volume", "network-interface"]);
    for specification in made.tag_specifications() {
        let has = |key: &str, value: &str| {
            specification
                .tags()
                .iter()
                .any(|tag| tag.key() == Some(key) && tag.value() == Some(value))
        };
        assert!(has(names::CLUSTER, "c") && has(names::POD_UID, "u") && has("team", "a"));
    }
}

/// A volume that outlives its instance is paid for, and nobody knows whose it was.
#[test]
fn the_root_volume_is_as_large_as_asked_and_no_volume_outlives_the_instance() {
    let made = made(&request().with_volume_size(Bytes::gib(30)), &AwsConfig::default());
    let [root, data] = made.block_device_mappings() else {
        panic!("{made:?}");
    };
    assert_eq!(root.device_name(), Some("/dev/xvda"));
    let ebs = root.ebs().unwrap();
    assert_eq!(ebs.volume_size(), Some(30));
    assert_eq!(ebs.volume_type(), Some(&VolumeType::Gp3));
    assert_eq!(ebs.delete_on_termination(), Some(true));
    assert_eq!(data.device_name(), Some("/dev/sdb"));
    let ebs = data.ebs().unwrap();
    assert_eq!(ebs.delete_on_termination(), Some(true));
    assert_eq!(
        (ebs.volume_size(), ebs.volume_type()),
        (None, None),
        "as the image says"
    );
}

#[test]
fn spot_is_asked_for_once_and_ends_when_it_is_taken_back() {
    let mut request = request();
    request.offering = offering("c7g.large", CapacityType::Spot);
    let made = made(&request, &AwsConfig::default());
    let market = made.instance_market_options().unwrap();
    assert_eq!(market.market_type(), Some(&MarketType::Spot));
    let spot = market.spot_options().unwrap();
    assert_eq!(spot.spot_instance_type(), Some(&SpotInstanceType::OneTime));
    assert_eq!(
        spot.instance_interruption_behavior(),
        Some(&InstanceInterruptionBehavior::Terminate)
    );
    let tagged = made.tag_specifications().iter();
    assert!(
        tagged
            .map(|tags| tags.resource_type().unwrap())
            .any(|resource| *resource == ResourceType::SpotInstancesRequest),
        "the spot request cannot be told from others'"
    );
}

#[test]
fn what_is_configured_reaches_the_call() {
    let config = AwsConfig {
        security_group_ids: vec!["sg-1".into(), "sg-2".into()],
        instance_profile: Some("cell".into()),
        public_address: PublicAddress::Never,
        secondary_address: false,
        ..AwsConfig::default()
    };
    let input = made(&request(), &config);
    let interface = &input.network_interfaces()[0];
    assert_eq!(interface.groups(), ["sg-1", "sg-2"]);
    assert_eq!(interface.associate_public_ip_address(), Some(false));
    assert_eq!(interface.secondary_private_ip_address_count(), None);
    assert_eq!(input.iam_instance_profile().unwrap().name(), Some("cell"));
    let config = AwsConfig {
        instance_profile: Some("arn:aws:iam::1:instance-profile/cell".into()),
        ..AwsConfig::default()
    };
    let input = made(&request(), &config);
    assert_eq!(input.iam_instance_profile().unwrap().name(), None);
}

#[test]
fn what_the_pod_asks_for_reaches_the_call() {
    let config = AwsConfig {
        security_group_ids: vec!["sg-2".into(), "sg-1".into()],
        instance_profile: Some("cell".into()),
        public_address: PublicAddress::Always,
        ..AwsConfig::default()
    };
    let mut options = LaunchOptions::default();
    options.security_groups = ["sg-0", "sg-1"].map(str::to_owned).into();
    options.identity = Some("arn:aws:iam::1:instance-profile/mine".into());
    options.private_address_only = true;
    options.dedicated = true;
    options.labels = [("app".to_owned(), "web".to_owned())].into();
    let input = made(&request().with_options(options), &config);
    let interface = &input.network_interfaces()[0];
    assert_eq!(
        interface.groups(),
        ["sg-2", "sg-1", "sg-0"],
        "the configured ones first, none twice"
    );
    assert_eq!(interface.associate_public_ip_address(), Some(false));
    assert_eq!(
        input.iam_instance_profile().unwrap().arn(),
        Some("arn:aws:iam::1:instance-profile/mine")
    );
    assert_eq!(input.placement().unwrap().tenancy(), Some(&Tenancy::Dedicated));
    for specification in input.tag_specifications() {
        let has = specification
            .tags()
            .iter()
            .any(|tag| (tag.key(), tag.value()) == (Some("app"), Some("web")));
        assert!(has, "{specification:?}");
    }
    assert!(made(&request(), &config).placement().is_none());
}

#[test]
fn security_groups_that_ec2_would_refuse_are_refused_by_the_annotations_name() {
    let refused = |groups: BTreeSet<String>| {
        let mut options = LaunchOptions::default();
        options.security_groups = groups;
        let error = refusal(&request().with_options(options));
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::InvalidRequest, Retry::Never)
        );
        assert!(
            error.message().contains("pod.elotl.co/security-groups"),
            "{error}"
        );
    };
    refused(["default".to_owned()].into());
    refused((0..17).map(|i| format!("sg-{i}")).collect());
}

/// EC2 refuses credits for any other type, and the launch with it.
#[test]
fn cpu_credits_are_set_for_burstable_types_only() {
    for (instance_type, credits) in [
        ("t3.small", Some("standard")),
        ("t4g.nano", Some("standard")),
        ("t2.micro", Some("standard")),
        ("t1.micro", None),
        ("trn1.2xlarge", None),
        ("m7i-flex.large", None),
        ("c7g.large", None),
    ] {
        let mut request = request();
        request.offering = offering(instance_type, CapacityType::OnDemand);
        let config = AwsConfig {
            cpu_credits: CpuCredits::Standard,
            ..AwsConfig::default()
        };
        let made = made(&request, &config);
        let set = made
            .credit_specification()
            .map(|credits| credits.cpu_credits().unwrap());
        assert_eq!(set, credits, "{instance_type}");
    }
}

#[test]
fn what_ec2_would_refuse_is_not_sent() {
    let mut large = request();
    large.user_data = incompressible(UserData::MAX_BYTES + 1);
    let error = refusal(&large);
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.message().contains("16385 bytes"), "{error}");

    let mut token = request();
    token.token = LaunchToken::from_stored("x".repeat(65));
    assert_eq!(refusal(&token).kind(), ErrorKind::InvalidRequest);

    let volume = request().with_volume_size(Bytes(u64::MAX));
    assert_eq!(refusal(&volume).kind(), ErrorKind::InvalidRequest);

    let mut reserved = request();
    reserved.offering = offering("t3.small", CapacityType::Reserved);
    assert_eq!(refusal(&reserved).kind(), ErrorKind::Unsupported);
}

/// It holds the cell's private key.
#[test]
fn user_data_is_sent_as_base64_and_never_printed() {
    let mut with = request();
    with.user_data = UserData::new("secret");
    let made_with = made(&with, &AwsConfig::default());
    assert_eq!(made_with.user_data(), Some("c2VjcmV0"));
    let printed = format!("{made_with:?} {with:?}");
    assert!(
        !printed.contains("c2VjcmV0") && !printed.contains("secret"),
        "{printed}"
    );
    let mut without = request();
    without.user_data = UserData::new("");
    assert_eq!(made(&without, &AwsConfig::default()).user_data(), None);
}

//! What goes over the wire: the exact parameters of each call, how often it is made, and what answers lead to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kip_aws::{AwsCloud, PublicAddress};
use kip_core::model::{Bytes, CapacityType};
use kip_core::provider::{CloudProvider as _, ListOptions, UserData, tags};
use kip_core::{ErrorKind, Retry};

use crate::behaviour::{listed, request};
use crate::fake::{FakeEc2, Fault, Leads as _, offering};

fn lines(params: &BTreeMap<String, String>) -> String {
    params
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

/// Everything is in the one call that costs money: what came later could be lost.
#[tokio::test]
async fn a_launch_is_one_call_with_exactly_these_parameters() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let volumes = vec![("/dev/sdb", 20, false), ("/dev/sdc", 20, true)];
    ec2.state().volumes.insert("ami-0amd".into(), volumes);
    let mut config = ec2.config();
    config.security_group_ids = vec!["sg-1".into()];
    config.instance_profile = Some("cell".into());
    config.public_address = PublicAddress::Never;
    config.tags = BTreeMap::from([("team".into(), "a".into())]);
    let cloud = ec2.open(config).await?;
    let mut request = request("token-1").with_volume_size(Bytes::gib(20));
    request.offering.capacity_type = CapacityType::Spot;
    request.options.security_groups = ["sg-2".to_owned()].into();
    request.options.dedicated = true;
    request.options.labels = [("app".to_owned(), "web".to_owned())].into();
    cloud.launch(request).await?;

    let calls = ec2.calls("RunInstances");
    ensure!(calls.len() == 1);
    let mut sent = calls[0].0.clone();
    // Its value is checked by the unit tests; here it matters that all four resources have it.
    for resource in 1..=4 {
        let fingerprint = format!("TagSpecification.{resource}.Tag.4.");
        ensure!(
            sent.remove(&format!("{fingerprint}Key")).as_deref() == Some("kip.elotl.co/launch-fingerprint"),
            "{}",
            lines(&sent)
        );
        ensure!(
            sent.remove(&format!("{fingerprint}Value"))
                .is_some_and(|value| value.len() == 32)
        );
    }
    let mut expected = String::from(
        "BlockDeviceMapping.1.DeviceName=/dev/xvda
BlockDeviceMapping.1.Ebs.DeleteOnTermination=true
BlockDeviceMapping.1.Ebs.VolumeSize=20
BlockDeviceMapping.1.Ebs.VolumeType=gp3
BlockDeviceMapping.2.DeviceName=/dev/sdb
BlockDeviceMapping.2.Ebs.DeleteOnTermination=true
ClientToken=token-1
CreditSpecification.CpuCredits=unlimited
IamInstanceProfile.Name=cell
ImageId=ami-0amd
InstanceInitiatedShutdownBehavior=terminate
InstanceMarketOptions.MarketType=spot
InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior=terminate
InstanceMarketOptions.SpotOptions.SpotInstanceType=one-time
InstanceType=t3.small
MaxCount=1
MetadataOptions.HttpEndpoint=enabled
MetadataOptions.HttpPutResponseHopLimit=1
MetadataOptions.HttpTokens=required
MinCount=1
NetworkInterface.1.AssociatePublicIpAddress=false
NetworkInterface.1.DeleteOnTermination=true
NetworkInterface.1.DeviceIndex=0
NetworkInterface.1.SecondaryPrivateIpAddressCount=1
NetworkInterface.1.SecurityGroupId.1=sg-1
NetworkInterface.1.SecurityGroupId.2=sg-2
NetworkInterface.1.SubnetId=subnet-a
Placement.Tenancy=dedicated
UserData=I2Nsb3VkLWNvbmZpZwo=
",
    );
    for (i, resource) in [
        "instance",
        "volume",
        "network-interface",
        "spot-instances-request",
    ]
    .into_iter()
    .enumerate()
    {
        let prefix = format!("TagSpecification.{}", i + 1);
        expected += &format!("{prefix}.ResourceType={resource}\n");
        for (tag, key, value) in [
            (1, "Name", "Kip cell-token-1"),
            (2, "app", "web"),
            (3, "kip.elotl.co/cluster", "c"),
            (5, "kip.elotl.co/launch-token", "token-1"),
            (6, "team", "a"),
        ] {
            expected += &format!("{prefix}.Tag.{tag}.Key={key}\n{prefix}.Tag.{tag}.Value={value}\n");
        }
    }
    let sort = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sort(&lines(&sent)), sort(&expected));
    Ok(())
}

#[tokio::test]
async fn the_other_calls_ask_for_exactly_what_is_needed() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    assert_eq!(
        lines(&ec2.calls("DescribeSubnets")[0].0),
        "Filter.1.Name=vpc-id\nFilter.1.Value.1=vpc-1\n"
    );
    assert_eq!(
        lines(&ec2.calls("DescribeImages")[0].0),
        "ImageId.1=ami-0amd\nImageId.2=ami-0arm\n"
    );
    let id = cloud.launch(request("t")).await?.id;
    cloud.get(&id).await?;
    assert_eq!(
        lines(&ec2.calls("DescribeInstances")[0].0),
        format!("Filter.1.Name=instance-id\nFilter.1.Value.1={id}\nMaxResults=1000\n")
    );
    listed(&cloud, ListOptions::default().with_tag(tags::CLUSTER, "c*")).await?;
    assert_eq!(
        lines(&ec2.calls("DescribeInstances")[1].0),
        "Filter.1.Name=instance-state-name\nFilter.1.Value.1=pending\nFilter.1.Value.2=running\n\
         Filter.1.Value.3=shutting-down\nFilter.1.Value.4=stopping\nFilter.1.Value.5=stopped\n\
         Filter.2.Name=tag:kip.elotl.co/cluster\nFilter.2.Value.1=c\\*\nMaxResults=1000\n"
    );
    cloud.terminate(&id).await?;
    assert_eq!(
        lines(&ec2.calls("TerminateInstances")[0].0),
        format!("InstanceId.1={id}\n")
    );
    Ok(())
}

/// A reply that is lost is the way to a second bill.
#[tokio::test]
async fn whatever_happens_to_the_reply_the_repeat_finds_the_one_instance() -> Result<()> {
    for (fault, kind) in [
        (Fault::LostReply, ErrorKind::Unavailable),
        (Fault::LostCall, ErrorKind::Unavailable),
        (Fault::Silence, ErrorKind::Timeout),
        (Fault::Refused("InternalError", 500), ErrorKind::Unavailable),
    ] {
        let ec2 = FakeEc2::start().await?;
        let mut config = ec2.config();
        config.call_timeout = Duration::from_millis(500);
        let cloud = ec2.open(config).await?;
        ec2.fail("RunInstances", [fault.clone()]);
        let error = cloud.launch(request("t")).await.unwrap_err();
        ensure!(
            error.kind() == kind && error.is_ambiguous(),
            "{fault:?}: {error:?}"
        );
        ensure!(
            ec2.calls("RunInstances").len() == 1,
            "{fault:?}: the SDK repeated it by itself"
        );
        let launched = cloud.launch(request("t")).await?;
        ensure!(ec2.state().instances.len() == 1, "{fault:?}");
        ensure!(
            ec2.state().instances.contains_key(launched.id.as_str()),
            "{fault:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn refusals_mean_what_the_machine_needs_to_know_and_are_not_repeated() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let after = Retry::After(None);
    for (i, (code, status, kind, retry)) in [
        (
            "InsufficientInstanceCapacity",
            500,
            ErrorKind::InsufficientCapacity,
            Retry::Elsewhere,
        ),
        ("RequestLimitExceeded", 503, ErrorKind::RateLimited, after),
        ("VcpuLimitExceeded", 400, ErrorKind::QuotaExceeded, after),
        (
            "UnauthorizedOperation",
            403,
            ErrorKind::PermissionDenied,
            Retry::Never,
        ),
        ("AuthFailure", 401, ErrorKind::Unauthenticated, Retry::Never),
        (
            "InvalidAMIID.NotFound",
            400,
            ErrorKind::ConfigInvalid,
            Retry::Never,
        ),
        (
            "InvalidParameterValue",
            400,
            ErrorKind::InvalidRequest,
            Retry::Never,
        ),
        ("Unsupported", 400, ErrorKind::Unsupported, Retry::Elsewhere),
    ]
    .into_iter()
    .enumerate()
    {
        ec2.fail("RunInstances", [Fault::Refused(code, status)]);
        let error = cloud.launch(request(&format!("t{i}"))).await.unwrap_err();
        ensure!(
            (error.kind(), error.retry()) == (kind, retry),
            "{code}: {error:?}"
        );
        ensure!(error.to_string().contains(code), "{error}");
        ensure!(ec2.calls("RunInstances").len() == i + 1, "{code} was repeated");
    }
    ensure!(ec2.state().instances.is_empty());
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_that_can_be_known_to_fail() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let mut large = request("1");
    // No two bytes of it repeat in a way that could be compressed.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    large.user_data = UserData::new(noise.take(17 * 1024).collect::<Vec<u8>>());
    let mut elsewhere = request("2");
    elsewhere.offering = offering("t3.small", "us-east-1f", CapacityType::OnDemand);
    for refused in [large, elsewhere] {
        let error = cloud.launch(refused).await.unwrap_err();
        ensure!(error.kind() == ErrorKind::InvalidRequest, "{error:?}");
    }
    ensure!(ec2.calls("RunInstances").is_empty());
    Ok(())
}

/// A configuration that cannot work is told when Kip starts, by the name of what to change.
#[tokio::test]
async fn opening_says_what_is_wrong_with_the_configuration() -> Result<()> {
    type Change = fn(&mut kip_aws::AwsConfig);
    let ec2 = FakeEc2::start().await?;
    let cases: [(Change, ErrorKind, &str); 9] = [
        (|c| c.images.ids.clear(), ErrorKind::ConfigInvalid, "images"),
        (
            |c| c.images.ids = vec!["ami-9".into()],
            ErrorKind::ConfigInvalid,
            "ami-9",
        ),
        (
            |c| c.vpc_id = Some("vpc-9".into()),
            ErrorKind::ConfigInvalid,
            "vpc-9",
        ),
        (
            |c| c.subnet_ids = vec!["subnet-9".into()],
            ErrorKind::ConfigInvalid,
            "subnet-9",
        ),
        (
            |c| {
                c.images.ids.clear();
                c.images.filters = vec![("name".into(), vec!["nothing-*".into()])];
            },
            ErrorKind::ConfigInvalid,
            "bootImageSpec",
        ),
        (
            |c| key(c, "AKIAEXPIRED"),
            ErrorKind::Unauthenticated,
            "RequestExpired",
        ),
        (
            |c| key(c, "AKIADENIED"),
            ErrorKind::PermissionDenied,
            "UnauthorizedOperation",
        ),
        (
            |c| c.endpoint_url = Some("ec2.example".into()),
            ErrorKind::ConfigInvalid,
            "endpoint_url",
        ),
        (
            |c| c.endpoint_url = Some("http://127.0.0.1:1".into()),
            ErrorKind::Unavailable,
            "cannot be reached",
        ),
    ];
    for (change, kind, says) in cases {
        let mut config = ec2.config();
        change(&mut config);
        let error = ec2.open(config).await.map(|_| ()).unwrap_err();
        ensure!(error.kind() == kind, "{says}: {error:?}");
        ensure!(error.chain().to_string().contains(says), "{says}: {error:?}");
    }
    let nothing = AwsCloud::builder(ec2.config())
        .offerings(Vec::new())
        .open()
        .await
        .map(|_| ())
        .unwrap_err();
    ensure!(nothing.kind() == ErrorKind::ConfigInvalid, "{nothing:?}");
    Ok(())
}

fn key(config: &mut kip_aws::AwsConfig, id: &str) {
    if let Some(credentials) = &mut config.credentials {
        credentials.access_key_id = id.to_owned().into();
    }
}

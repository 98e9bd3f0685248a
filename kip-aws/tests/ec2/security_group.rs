//! The security group that Kip keeps, and the VPC it is in.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use kip_aws::{AwsBuilder, AwsCloud, AwsConfig, SecurityGroup};
use kip_core::ErrorKind;
use kip_core::ids::{ClusterUid, NodeName};
use kip_core::provider::{CloudProvider as _, tags};
use kip_testkit::ec2::Ingress;

use crate::behaviour::request;
use crate::fake::{FakeEc2, Fault, Leads as _, offerings};

fn of_node(config: AwsConfig, node: &str) -> AwsBuilder {
    AwsCloud::builder(config)
        .offerings(offerings())
        .owner(&ClusterUid::new("cluster-1"), &NodeName::new(node))
}

fn rule(protocol: &str, from: &str, to: &str, source: &str) -> Ingress {
    Ingress {
        protocol: protocol.into(),
        from: from.into(),
        to: to.into(),
        source: source.into(),
    }
}

#[tokio::test]
async fn a_cell_is_reached_by_its_controller_and_by_the_vpc_and_by_nobody_else() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.extra_cidrs = vec!["172.16.1.1/12".into()];
    config.security_group_ids = vec!["sg-extra".into()];
    let cloud = of_node(config.clone(), "kip-0")
        .controller("10.0.9.9".parse()?)
        .open()
        .await?;
    let groups = ec2.state().security_groups.clone();
    ensure!(groups.len() == 1, "{groups:?}");
    let (id, group) = groups.first_key_value().expect("one");
    ensure!(
        group.name == "kip-cluster-1-kip-0" && group.vpc == "vpc-1",
        "{group:?}"
    );
    ensure!(
        group.tags.get(tags::CLUSTER).map(String::as_str) == Some("cluster-1")
            && group.tags.get(tags::NODE).map(String::as_str) == Some("kip-0"),
        "{group:?}"
    );
    let expected = BTreeSet::from([
        rule("icmp", "-1", "-1", "10.0.0.0/16"),
        rule("icmp", "-1", "-1", "172.16.0.0/12"),
        rule("tcp", "0", "6420", "10.0.0.0/16"),
        rule("tcp", "0", "6420", "172.16.0.0/12"),
        rule("tcp", "6421", "6421", "10.0.9.9/32"),
        rule("tcp", "6422", "65535", "10.0.0.0/16"),
        rule("tcp", "6422", "65535", "172.16.0.0/12"),
        rule("udp", "0", "65535", "10.0.0.0/16"),
        rule("udp", "0", "65535", "172.16.0.0/12"),
    ]);
    assert_eq!(group.ingress, expected);

    cloud.launch(request("t")).await?;
    let sent = &ec2.calls("RunInstances")[0];
    assert_eq!(
        sent.list("NetworkInterface.1.SecurityGroupId"),
        [id.clone(), "sg-extra".to_owned()]
    );

    // The next start finds it as it should be, and changes nothing.
    of_node(config, "kip-0")
        .controller("10.0.9.9".parse()?)
        .open()
        .await?;
    for call in ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress"] {
        ensure!(ec2.calls(call).len() == 1, "{call}");
    }
    ensure!(ec2.calls("RevokeSecurityGroupIngress").is_empty());
    Ok(())
}

/// A port that somebody opened to the world by hand stays open for ever otherwise.
#[tokio::test]
async fn what_another_hand_changed_is_mended_at_the_next_start() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    of_node(ec2.config(), "kip-0").open().await?;
    let (before, drifted) = {
        let mut state = ec2.state();
        let group = state.security_groups.values_mut().next().expect("one");
        let before = group.ingress.clone();
        group.ingress.pop_first();
        group.ingress.insert(rule("tcp", "22", "22", "0.0.0.0/0"));
        group.ingress.insert(rule("-1", "", "", "sg-9"));
        (before, group.ingress.clone())
    };
    ensure!(before != drifted);
    of_node(ec2.config(), "kip-0").open().await?;
    let after = ec2
        .state()
        .security_groups
        .values()
        .next()
        .expect("one")
        .ingress
        .clone();
    assert_eq!(after, before);
    Ok(())
}

#[tokio::test]
async fn two_controllers_that_start_at_once_keep_one_group_and_each_node_has_its_own() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let open = || Box::pin(of_node(ec2.config(), "kip-0").open());
    let (a, b, c) = tokio::join!(open(), open(), open());
    for opened in [a, b, c] {
        opened?;
    }
    ensure!(
        ec2.state().security_groups.len() == 1,
        "{:?}",
        ec2.state().security_groups
    );
    of_node(ec2.config(), "kip-1").open().await?;
    ensure!(ec2.state().security_groups.len() == 2);
    Ok(())
}

/// EC2 says that a group it has just made is not there, or that a rule is there already, and means it for a moment only.
#[tokio::test]
async fn a_young_group_that_ec2_does_not_know_yet_is_waited_for() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.fail(
        "AuthorizeSecurityGroupIngress",
        [Fault::Refused("InvalidGroup.NotFound", 400)],
    );
    of_node(ec2.config(), "kip-0").open().await?;
    ec2.fail(
        "AuthorizeSecurityGroupIngress",
        [Fault::Refused("InvalidPermission.Duplicate", 400)],
    );
    of_node(ec2.config(), "kip-1").open().await?;
    let groups = ec2.state().security_groups.clone();
    ensure!(
        groups.len() == 2 && groups.values().all(|group| !group.ingress.is_empty()),
        "{groups:?}"
    );
    Ok(())
}

#[tokio::test]
async fn whoever_may_not_make_a_group_is_told_the_ways_out_and_they_work() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    for denied in [
        "DescribeVpcs",
        "DescribeSecurityGroups",
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
    ] {
        ec2.state().denied_actions = BTreeSet::from([denied.to_owned()]);
        let error = of_node(ec2.config(), "kip-0")
            .open()
            .await
            .map(|_| ())
            .unwrap_err();
        ensure!(error.kind() == ErrorKind::PermissionDenied, "{denied}: {error:?}");
        let text = error.chain().to_string();
        for way in ["cloud.aws.securityGroup", "cells.extraSecurityGroups", denied] {
            ensure!(text.contains(way), "{way}: {text}");
        }
    }
    let tries = ec2.calls("CreateSecurityGroup").len();
    let all = ["DescribeVpcs", "DescribeSecurityGroups", "CreateSecurityGroup"];
    ec2.state().denied_actions = all.map(str::to_owned).into();
    for (given, groups) in [
        (SecurityGroup::None, vec!["sg-extra"]),
        (
            SecurityGroup::Given("sg-mine".into()),
            vec!["sg-mine", "sg-extra"],
        ),
    ] {
        let mut config = ec2.config();
        config.security_group = given;
        config.security_group_ids = vec!["sg-extra".into()];
        let cloud = of_node(config, "kip-0").open().await?;
        cloud.launch(request(groups[0])).await?;
        let sent = ec2.calls("RunInstances").pop().expect("one");
        assert_eq!(sent.list("NetworkInterface.1.SecurityGroupId"), groups);
    }
    ensure!(ec2.calls("CreateSecurityGroup").len() == tries);
    Ok(())
}

/// Kip changes what carries its tags and nothing else, whatever it is called.
#[tokio::test]
async fn a_group_of_somebody_else_with_that_name_is_left_alone_and_named() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let theirs = kip_testkit::ec2::SecurityGroup {
        name: "kip-cluster-1-kip-0".into(),
        vpc: "vpc-1".into(),
        ..Default::default()
    };
    ec2.state().security_groups.insert("sg-theirs".into(), theirs);
    let error = of_node(ec2.config(), "kip-0")
        .open()
        .await
        .map(|_| ())
        .unwrap_err();
    ensure!(
        error.kind() == ErrorKind::ConfigInvalid && error.to_string().contains("kip-cluster-1-kip-0"),
        "{error:?}"
    );
    ensure!(ec2.calls("AuthorizeSecurityGroupIngress").is_empty());
    Ok(())
}

/// Nothing is made for a configuration that cannot work.
#[tokio::test]
async fn a_bad_configuration_leaves_no_group_behind() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.images.ids = vec!["ami-9".into()];
    of_node(config, "kip-0").open().await.map(|_| ()).unwrap_err();
    ensure!(ec2.calls("CreateSecurityGroup").is_empty());
    Ok(())
}

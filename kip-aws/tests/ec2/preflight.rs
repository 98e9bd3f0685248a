//! What `kip preflight` finds.

use anyhow::{Context as _, Result, ensure};
use kip_aws::{AwsCloud, AwsConfig, Check, Verdict};
use kip_core::ids::{ClusterUid, NodeName};
use kip_core::provider::{CloudProvider as _, tags};

use crate::behaviour::request;
use crate::fake::{FakeEc2, Leads as _, offerings};

async fn preflight(config: AwsConfig) -> Vec<Check> {
    let builder = AwsCloud::builder(config)
        .offerings(offerings())
        .owner(&ClusterUid::new("c"), &NodeName::new("kip-0"));
    Box::pin(builder.preflight()).await
}

fn find<'a>(checks: &'a [Check], what: &str) -> Result<&'a Check> {
    checks
        .iter()
        .find(|check| check.what == what)
        .with_context(|| format!("{what}: {checks:?}"))
}

fn failed(checks: &[Check]) -> Vec<&str> {
    checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failed)
        .map(|check| check.what.as_str())
        .collect()
}

#[tokio::test]
async fn a_good_set_up_passes_and_nothing_is_made() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let checks = preflight(ec2.config()).await;
    ensure!(failed(&checks).is_empty(), "{checks:?}");
    ensure!(
        find(&checks, "identity")?.found.contains("assumed-role/kip"),
        "{checks:?}"
    );
    ensure!(
        find(&checks, "VPC")?.found == "vpc-1 with 10.0.0.0/16",
        "{checks:?}"
    );
    ensure!(
        find(&checks, "boot images")?.found.contains("ami-0arm"),
        "{checks:?}"
    );
    ensure!(
        find(&checks, "security group")?.found.contains("kip-c-kip-0"),
        "{checks:?}"
    );
    ensure!(
        find(&checks, "ec2:CreateSecurityGroup")?.verdict == Verdict::Ok,
        "{checks:?}"
    );
    ensure!(
        find(&checks, "ec2:TerminateInstances")?.verdict == Verdict::Unknown,
        "{checks:?}"
    );
    let launches = checks
        .iter()
        .filter(|check| check.what == "ec2:RunInstances")
        .count();
    ensure!(launches == 4, "{checks:?}");
    let state = ec2.state();
    ensure!(state.instances.is_empty() && state.security_groups.is_empty());
    for action in ["RunInstances", "CreateSecurityGroup", "TerminateInstances"] {
        for call in ec2.calls(action) {
            ensure!(call.get("DryRun") == Some("true"), "{action}: {call:?}");
        }
    }
    Ok(())
}

/// Once Kip has run, what could not be told before can be.
#[tokio::test]
async fn with_an_instance_and_a_group_of_its_own_every_permission_can_be_told() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = AwsCloud::builder(ec2.config())
        .offerings(offerings())
        .owner(&ClusterUid::new("c"), &NodeName::new("kip-0"))
        .open()
        .await?;
    cloud.launch(request("t").with_tag(tags::NODE, "kip-0")).await?;
    let checks = preflight(ec2.config()).await;
    for check in &checks {
        // There is nothing of Kip's that these could be asked about without being done.
        let imagined = [
            "ec2:CreateRoute",
            "ec2:ReplaceRoute",
            "ec2:DeleteNetworkInterface",
        ];
        let expected = if imagined.contains(&check.what.as_str()) {
            Verdict::Unknown
        } else {
            Verdict::Ok
        };
        ensure!(check.verdict == expected, "{check:?}");
    }
    ensure!(
        find(&checks, "security group")?
            .found
            .ends_with("as it should be"),
        "{checks:?}"
    );
    ec2.state().denied_actions.insert("TerminateInstances".into());
    let checks = preflight(ec2.config()).await;
    ensure!(failed(&checks) == ["ec2:TerminateInstances"], "{checks:?}");
    ensure!(ec2.state().instances.len() == 1);
    Ok(())
}

/// Each row is a permission somebody forgets.
#[tokio::test]
async fn a_missing_permission_is_named_with_what_it_costs() -> Result<()> {
    for (denied, what, verdict) in [
        ("RunInstances", "ec2:RunInstances", Verdict::Failed),
        ("CreateTags", "ec2:RunInstances", Verdict::Failed),
        ("DescribeSubnets", "ec2:DescribeSubnets", Verdict::Failed),
        ("DescribeImages", "ec2:DescribeImages", Verdict::Failed),
        ("DescribeInstances", "ec2:DescribeInstances", Verdict::Failed),
        ("DescribeVpcs", "ec2:DescribeVpcs", Verdict::Failed),
        (
            "DescribeSecurityGroups",
            "ec2:DescribeSecurityGroups",
            Verdict::Failed,
        ),
        ("CreateSecurityGroup", "ec2:CreateSecurityGroup", Verdict::Failed),
        ("DescribeRouteTables", "ec2:DescribeRouteTables", Verdict::Warning),
        ("CreateRoute", "ec2:CreateRoute", Verdict::Warning),
        (
            "DescribeNetworkInterfaces",
            "ec2:DescribeNetworkInterfaces",
            Verdict::Warning,
        ),
        ("DescribeVolumes", "ec2:DescribeVolumes", Verdict::Warning),
    ] {
        let ec2 = FakeEc2::start().await?;
        ec2.state().denied_actions.insert(denied.into());
        let checks = preflight(ec2.config()).await;
        let check = find(&checks, what)?;
        ensure!(check.verdict == verdict, "{denied}: {check:?}");
        let remedy = check.remedy.as_deref().unwrap_or_default();
        ensure!(remedy.contains(&format!("`ec2:{denied}`")), "{denied}: {check:?}");
    }
    let ec2 = FakeEc2::start().await?;
    ec2.state().denied_actions.insert("PassRole".into());
    let mut config = ec2.config();
    config.instance_profile = Some("kip-cell".into());
    let checks = preflight(config).await;
    let remedy = find(&checks, "ec2:RunInstances")?
        .remedy
        .clone()
        .unwrap_or_default();
    ensure!(
        remedy.contains("`iam:PassRole`") && remedy.contains("cells.defaultIAMPermissions"),
        "{checks:?}"
    );
    Ok(())
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_found_by_name() -> Result<()> {
    type Change = fn(&mut AwsConfig);
    let ec2 = FakeEc2::start().await?;
    let cases: [(Change, &str, &str); 6] = [
        (|c| c.images.ids.clear(), "configuration", "images"),
        (|c| c.images.ids = vec!["ami-9".into()], "boot images", "ami-9"),
        (|c| c.vpc_id = Some("vpc-9".into()), "VPC", "vpc-9"),
        (|c| c.subnet_ids = vec!["subnet-9".into()], "subnets", "subnet-9"),
        (
            |c| {
                if let Some(credentials) = &mut c.credentials {
                    credentials.access_key_id = "AKIAEXPIRED".to_owned().into();
                }
            },
            "identity",
            "RequestExpired",
        ),
        (
            |c| c.endpoint_url = Some("http://127.0.0.1:1".into()),
            "subnets",
            "cannot be reached",
        ),
    ];
    for (change, what, says) in cases {
        let mut config = ec2.config();
        change(&mut config);
        let checks = preflight(config).await;
        let check = find(&checks, what)?;
        ensure!(
            check.verdict == Verdict::Failed && check.found.contains(says) && check.remedy.is_some(),
            "{what}: {check:?}"
        );
    }
    ec2.state().subnets.values_mut().for_each(|(_, free)| *free = 1);
    let checks = preflight(ec2.config()).await;
    ensure!(find(&checks, "subnets")?.verdict == Verdict::Failed, "{checks:?}");
    Ok(())
}

//! The `cloud.aws` section, and what it and `cells` mean for EC2.

use secrecy::SecretString;
use serde::Serialize;

use super::document::Section;
use super::limits::{self, Limits};
use super::refresh::{self, Refresh};
use super::show;

/// `cloud.aws`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Aws {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    #[serde(
        rename = "accessKeyID",
        serialize_with = "show::secret",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) access_key_id: Option<SecretString>,
    #[serde(serialize_with = "show::secret", skip_serializing_if = "Option::is_none")]
    pub(super) secret_access_key: Option<SecretString>,
    #[serde(rename = "vpcID", skip_serializing_if = "Option::is_none")]
    pub(super) vpc_id: Option<String>,
    #[serde(rename = "subnetID", skip_serializing_if = "Option::is_none")]
    pub(super) subnet_id: Option<String>,
    #[serde(rename = "subnetIDs", skip_serializing_if = "Vec::is_empty")]
    pub(super) subnet_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) security_group: Option<String>,
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    pub(super) endpoint_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interruption_queue: Option<String>,
    #[serde(rename = "pricingEndpointURL", skip_serializing_if = "Option::is_none")]
    pub(super) pricing_endpoint_url: Option<String>,
    pub(super) refresh: Refresh,
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub(crate) request_limits: Limits,
    /// An operator's own list of types and prices, which was not in the file; see [`crate::instance_data`].
    #[cfg(feature = "aws")]
    #[serde(skip)]
    pub(crate) facts: Option<kip_aws::catalogue::Facts>,
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Aws {
    let region = section.text("region");
    if region.as_deref().is_some_and(|region| !is_region(region)) {
        section.problem("region", "is no region; write one such as us-east-1");
    }
    section.obsolete("ecsClusterName", "cells are EC2 instances only; remove it");
    if section.boolean("insecureTLSSkipVerify") == Some(true) {
        section.problem(
            "insecureTLSSkipVerify",
            "is not possible: keys are sent only to whom a certificate proves; set the environment variable SSL_CERT_FILE to the \
             endpoint's authority, or use an endpointURL with http:// for an emulator",
        );
    }
    let aws = Aws {
        region,
        access_key_id: section.secret("accessKeyID"),
        secret_access_key: section.secret("secretAccessKey"),
        vpc_id: section.text("vpcID"),
        subnet_id: section.text("subnetID"),
        subnet_ids: section.texts("subnetIDs"),
        security_group: section.text("securityGroup"),
        endpoint_url: section.text("endpointURL"),
        interruption_queue: section.text("interruptionQueue"),
        pricing_endpoint_url: section.text("pricingEndpointURL"),
        refresh: refresh::read(section.section("refresh")),
        request_limits: limits::read(section.section("requestLimits")),
        #[cfg(feature = "aws")]
        facts: None,
    };
    for (present, other, absent) in [
        ("accessKeyID", "secretAccessKey", aws.secret_access_key.is_none()),
        ("secretAccessKey", "accessKeyID", aws.access_key_id.is_none()),
    ] {
        if section.has(present) && absent && !section.has(other) {
            section.problem(other, format!("is required with {present}"));
        }
    }
    section.finish();
    aws
}

/// `us-east-1`, `us-gov-west-1`: lower-case parts, the last one a number.
fn is_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words)) => {
            words.len() >= 2
                && words.iter().all(word)
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        None => false,
    }
}

#[cfg(feature = "aws")]
pub(super) use ec2::check;

#[cfg(feature = "aws")]
mod ec2 {
    use std::time::Duration;

    use kip_aws::{AwsConfig, AwsCredentials, CpuCredits, ImageSpec, PublicAddress, SecurityGroup};

    use super::Aws;
    use crate::config::document::Findings;
    use crate::config::{Cells, Config, Credits};

    /// Where a user writes what is a field of [`AwsConfig`].
    const PATHS: [(&str, &str); 9] = [
        ("images", "cells.bootImageSpec"),
        ("endpoint_url", "cloud.aws.endpointURL"),
        ("interruption_queue", "cloud.aws.interruptionQueue"),
        ("pricing_endpoint_url", "cloud.aws.pricingEndpointURL"),
        ("vpc_id", "cloud.aws.vpcID"),
        ("subnet_ids", "cloud.aws.subnetIDs"),
        ("security_group", "cloud.aws.securityGroup"),
        ("security_group_ids", "cells.extraSecurityGroups"),
        ("extra_cidrs", "cells.extraCIDRs"),
    ];

    /// The account of the old Kip's own images, which were also its default.
    const OLD_IMAGES: &str = "689494258501";

    /// Reports what EC2 could never do, and what has no effect there.
    pub(in crate::config) fn check(aws: &Aws, cells: &Cells, findings: &Findings) {
        if let (Some(group), false) = (&aws.security_group, cells.extra_cidrs.is_empty()) {
            let message = format!(
                "has no effect with `cloud.aws.securityGroup: {group}`: Kip changes only its own group"
            );
            findings.warning("cells.extraCIDRs", message);
        }
        let owners = cells.boot_image_spec.get("owners");
        if owners.is_some_and(|owners| owners.split_whitespace().any(|owner| owner == OLD_IMAGES)) {
            findings.problem(
                "cells.bootImageSpec.owners",
                format!(
                    "{OLD_IMAGES} has images of the old Kip only, with an agent this one cannot talk to; make your own \
                     (docs/cell-image.md) and name it, such as `imageIDs: ami-0abc`"
                ),
            );
        }
        if let Err(problems) = ImageSpec::parse(&cells.boot_image_spec) {
            for problem in problems {
                let (key, message) = problem.split_once(": ").unwrap_or(("", &problem));
                findings.problem(format!("cells.bootImageSpec.{key}"), message);
            }
            return;
        }
        for problem in aws.settings(cells).problems() {
            let (field, message) = problem.split_once(": ").unwrap_or(("", &problem));
            let path = PATHS
                .iter()
                .find(|(name, _)| *name == field)
                .map_or("cloud.aws", |(_, path)| path);
            findings.problem(path, message);
        }
    }

    impl Config {
        /// What `kip-aws` needs to know, from all sections.
        pub(crate) fn ec2(&self, aws: &Aws) -> AwsConfig {
            let mut config = aws.settings(&self.cells);
            config.cpu_credits = match self.sizing.burstable {
                // A pod was placed by what the baseline gives: more would be paid for, and nobody counted with it.
                Credits::Baseline => CpuCredits::Standard,
                Credits::Surplus | Credits::Never => CpuCredits::Unlimited,
            };
            config
        }
    }

    impl Aws {
        /// The region, if it is written.
        pub(crate) fn region(&self) -> Option<&str> {
            self.region.as_deref()
        }

        /// What `kip-aws` needs to know.
        pub(crate) fn settings(&self, cells: &Cells) -> AwsConfig {
            let mut config = AwsConfig::default();
            config.region.clone_from(&self.region);
            config.credentials = match (&self.access_key_id, &self.secret_access_key) {
                (Some(id), Some(key)) => Some(AwsCredentials {
                    access_key_id: id.clone(),
                    secret_access_key: key.clone(),
                }),
                _ => None,
            };
            config.endpoint_url.clone_from(&self.endpoint_url);
            config.interruption_queue.clone_from(&self.interruption_queue);
            config.pricing_endpoint_url.clone_from(&self.pricing_endpoint_url);
            config.refresh.types = self.refresh.types;
            config.refresh.on_demand = self.refresh.on_demand_prices;
            config.refresh.spot = self.refresh.spot_prices;
            if self.facts.is_some() {
                config.refresh.types = Duration::ZERO;
                config.refresh.on_demand = Duration::ZERO;
            }
            config.vpc_id.clone_from(&self.vpc_id);
            config.subnet_ids = self.subnet_id.iter().chain(&self.subnet_ids).cloned().collect();
            // A specification that cannot be read was refused when the file was.
            config.images = ImageSpec::parse(&cells.boot_image_spec).unwrap_or_default();
            config.security_group = match self.security_group.as_deref() {
                None => SecurityGroup::Kept,
                Some("none") => SecurityGroup::None,
                Some(id) => SecurityGroup::Given(id.to_owned()),
            };
            config.extra_cidrs.clone_from(&cells.extra_cidrs);
            config.security_group_ids.clone_from(&cells.extra_security_groups);
            config.instance_profile.clone_from(&cells.default_iam_permissions);
            if cells.private_ip_only {
                config.public_address = PublicAddress::Never;
            }
            config.root_volume = cells.default_volume_size;
            config.nametag.clone_from(&cells.nametag);
            config
        }
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use crate::config::parse;

    fn problems(text: &str) -> Vec<String> {
        match parse(text, "provider.yaml") {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .list
                .iter()
                .map(|problem| format!("{}: {}", problem.path, problem.message))
                .collect(),
        }
    }

    #[test]
    fn an_old_file_opens_ec2_as_it_did() {
        let text = "
apiVersion: v1
cloud:
  aws: {region: us-east-1, accessKeyID: a, secretAccessKey: b, vpcID: vpc-1, subnetID: subnet-1}
cells:
  bootImageSpec: {owners: 123456789012, filters: name=kip-cell-*}
  defaultVolumeSize: 20Gi
  defaultIAMPermissions: cell
  extraSecurityGroups: [sg-1]
  privateIPOnly: true
  nametag: test
";
        let loaded = parse(text, "provider.yaml").unwrap();
        let crate::config::Cloud::Aws(aws) = &loaded.config.cloud else {
            panic!("{:?}", loaded.config.cloud);
        };
        let config = aws.settings(&loaded.config.cells);
        assert_eq!(config.subnet_ids, ["subnet-1"]);
        assert_eq!(config.images.owners, ["123456789012"]);
        assert_eq!(config.security_group_ids, ["sg-1"]);
        assert_eq!(config.instance_profile.as_deref(), Some("cell"));
        assert_eq!(config.public_address, kip_aws::PublicAddress::Never);
        assert_eq!(config.root_volume, kip_core::model::Bytes::gib(20));
        assert!(config.credentials.is_some());
    }

    /// Who counts with the baseline alone must not find surplus credits on the bill.
    #[test]
    fn pods_placed_by_the_baseline_get_no_credits_that_cost_extra() {
        for (burstable, credits) in [
            ("surplus", kip_aws::CpuCredits::Unlimited),
            ("baseline", kip_aws::CpuCredits::Standard),
        ] {
            let text = format!(
                "{{cloud: {{aws: {{region: us-east-1}}}}, cells: {{bootImageSpec: {{imageIDs: ami-1}}}}, sizing: {{burstable: {burstable}}}}}"
            );
            let config = parse(&text, "provider.yaml").unwrap().config;
            let crate::config::Cloud::Aws(aws) = &config.cloud else {
                panic!("{:?}", config.cloud);
            };
            assert_eq!(config.ec2(aws).cpu_credits, credits, "{burstable}");
        }
    }

    #[test]
    fn the_default_vpc_can_be_named_and_a_group_of_the_users_takes_the_place_of_kips() {
        for (written, vpc, group) in [
            ("{region: us-east-1}", None, kip_aws::SecurityGroup::Kept),
            (
                "{region: us-east-1, vpcID: Default, securityGroup: none}",
                Some("Default"),
                kip_aws::SecurityGroup::None,
            ),
            (
                "{region: us-east-1, securityGroup: sg-1}",
                None,
                kip_aws::SecurityGroup::Given("sg-1".into()),
            ),
        ] {
            let text = format!(
                "{{cloud: {{aws: {written}}}, cells: {{bootImageSpec: {{imageIDs: ami-1}}, extraCIDRs: [10.0.0.0/8]}}}}"
            );
            let loaded = parse(&text, "provider.yaml").unwrap();
            let crate::config::Cloud::Aws(aws) = &loaded.config.cloud else {
                panic!("{:?}", loaded.config.cloud);
            };
            let config = aws.settings(&loaded.config.cells);
            assert_eq!(config.vpc_id.as_deref(), vpc, "{written}");
            assert_eq!(config.security_group, group, "{written}");
            assert_eq!(config.extra_cidrs, ["10.0.0.0/8"], "{written}");
        }
        let found = problems(
            "{cloud: {aws: {region: us-east-1, securityGroup: mine}}, cells: {bootImageSpec: {imageIDs: ami-1}}}",
        );
        assert!(
            found[0].starts_with("cloud.aws.securityGroup: `mine` is no id"),
            "{found:?}"
        );
    }

    #[test]
    fn every_mistake_is_told_where_it_was_written() {
        let found = problems(
            "
cloud: {aws: {region: moon, accessKeyID: a, vpcID: x, subnetIDs: [y], endpointURL: z, interruptionQueue: a b, insecureTLSSkipVerify: true}}
cells: {bootImageSpec: {imageIDs: ami-1}, extraSecurityGroups: [default]}
",
        );
        for path in [
            "cloud.aws.region:",
            "cloud.aws.secretAccessKey:",
            "cloud.aws.insecureTLSSkipVerify:",
            "cloud.aws.vpcID:",
            "cloud.aws.subnetIDs:",
            "cloud.aws.endpointURL:",
            "cloud.aws.interruptionQueue:",
            "cells.extraSecurityGroups:",
        ] {
            assert!(
                found.iter().any(|problem| problem.starts_with(path)),
                "{path} {found:?}"
            );
        }
        let found = problems("{cloud: {aws: {region: us-east-1}}, cells: {bootImageSpec: {filter: x}}}");
        assert!(
            found[0].starts_with("cells.bootImageSpec.filter: is no key here"),
            "{found:?}"
        );
        let found = problems("{cloud: {aws: {region: us-east-1}}}");
        assert!(
            found[0].starts_with("cells.bootImageSpec: name the boot image"),
            "{found:?}"
        );
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let text = "
cloud: {aws: {region: us-east-1, securityGroup: none}}
cells: {bootImageSpec: {imageIDs: ami-1}, extraCIDRs: [10.0.0.0/8]}
";
        let loaded = parse(text, "provider.yaml").unwrap();
        let paths: Vec<_> = loaded
            .warnings
            .iter()
            .map(|warning| warning.path.as_str())
            .collect();
        assert_eq!(paths, ["cells.extraCIDRs"]);
    }
}

//! What a user may set about EC2.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::Bytes;
use secrecy::SecretString;

use crate::catalogue::Refresh;
use crate::environment::{self, Cidr};
use crate::images::ImageSpec;
use crate::interruption;
use crate::{launch, tags};

/// How Kip uses EC2. [`AwsConfig::default`] with a boot image is enough where the region is known from the environment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsConfig {
    /// Region. Default: what the AWS environment says (`AWS_REGION`, profile, instance metadata).
    pub region: Option<String>,
    /// Static credentials. Default: the AWS chain (environment, profile, web identity, container and instance roles).
    pub credentials: Option<AwsCredentials>,
    /// URL of the EC2 API, such as a VPC endpoint or an emulator. Default: AWS's own of the region.
    pub endpoint_url: Option<String>,
    /// URL of the Price List API. Default: AWS's own, in the nearest region that has one; none when `endpoint_url` is set, so that nothing is
    /// called beside it.
    pub pricing_endpoint_url: Option<String>,
    /// How often types and prices are asked for. Not used with a catalogue or offerings given to the builder.
    pub refresh: Refresh,
    /// The VPC whose subnets are used, or `default` for the region's default one. Default: the subnets' when they are named, else the one
    /// this process runs in, by the instance metadata service, else the region's default one.
    pub vpc_id: Option<String>,
    /// The subnets instances are put into, any number a zone. Default: all of the VPC that are in the region's own zones, and not those of
    /// Local Zones, Wavelength Zones and Outposts, whose prices are others; of ones that are named the region's prices are assumed.
    pub subnet_ids: Vec<String>,
    /// Which images instances boot from. Required: EC2 has none with the agent in it.
    pub images: ImageSpec,
    /// The security group that lets controller and VPC reach instances. Default: one that Kip makes and keeps, when
    /// [`AwsBuilder::owner`](crate::AwsBuilder::owner) says whose it is.
    pub security_group: SecurityGroup,
    /// Further address ranges that may reach instances through Kip's own group, such as `10.8.0.0/16`. Default none.
    pub extra_cidrs: Vec<String>,
    /// Further security groups of each instance, by id. With none at all instances get the VPC's own.
    pub security_group_ids: Vec<String>,
    /// Instance profile of each instance, by name or ARN. Default none.
    pub instance_profile: Option<String>,
    /// Whether instances get a public address. Default: as their subnet says.
    pub public_address: PublicAddress,
    /// Whether instances get a second private address, for the pod. Default true.
    pub secondary_address: bool,
    /// Least size of the root volume; it is at least the image's too, and what a launch asks for. Default 5 GiB.
    pub root_volume: Bytes,
    /// How burstable types go beyond their baseline. Default unlimited, as the sizer's prices assume.
    pub cpu_credits: CpuCredits,
    /// More tags of everything that is launched. Default none.
    pub tags: BTreeMap<String, String>,
    /// Part of the instances' `Name`, for people. Default none.
    pub nametag: Option<String>,
    /// URL of the instance metadata service that says where this process runs. Default: AWS's own, or `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub metadata_url: Option<String>,
    /// How often routes are looked at and what was left over is searched for; that is removed after six times as long. Default 10 minutes.
    pub upkeep_interval: Duration,
    /// Name or URL of an SQS queue in which EventBridge tells of interruptions. Default none: the agents alone notice them.
    pub interruption_queue: Option<String>,
    /// How long DescribeInstances may not show what RunInstances made. AWS states no figure; default 30 s, well above what is seen.
    pub list_lag: Duration,
    /// How often boot images are looked up again, give or take a tenth. Default 5 minutes.
    pub image_interval: Duration,
    /// How long one call may take before its outcome counts as unknown. Default 30 s.
    pub call_timeout: Duration,
}

/// A static access key.
#[derive(Clone)]
pub struct AwsCredentials {
    /// The key's id.
    pub access_key_id: SecretString,
    /// The key.
    pub secret_access_key: SecretString,
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCredentials(..)")
    }
}

/// The security group that lets controller and VPC reach instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecurityGroup {
    /// One that Kip makes, tags and keeps.
    #[default]
    Kept,
    /// This one, by its id. Kip changes nothing in it: it must let the controller reach TCP port 6421.
    Given(String),
    /// None: [`AwsConfig::security_group_ids`] are all there are.
    None,
}

/// Whether instances get a public address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicAddress {
    /// As the subnet says (`MapPublicIpOnLaunch`).
    #[default]
    AsSubnet,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// How burstable types go beyond their baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuCredits {
    /// At extra charge, for as long as asked.
    #[default]
    Unlimited,
    /// From saved credits only, then they are slowed down.
    Standard,
}

impl Default for AwsConfig {
    fn default() -> Self {
        Self {
            region: None,
            credentials: None,
            endpoint_url: None,
            pricing_endpoint_url: None,
            refresh: Refresh::default(),
            vpc_id: None,
            subnet_ids: Vec::new(),
            images: ImageSpec::default(),
            security_group: SecurityGroup::default(),
            extra_cidrs: Vec::new(),
            security_group_ids: Vec::new(),
            instance_profile: None,
            public_address: PublicAddress::default(),
            secondary_address: true,
            root_volume: Bytes::gib(5),
            cpu_credits: CpuCredits::default(),
            tags: BTreeMap::new(),
            nametag: None,
            metadata_url: None,
            upkeep_interval: Duration::from_secs(600),
            interruption_queue: None,
            list_lag: Duration::from_secs(30),
            image_interval: Duration::from_secs(300),
            call_timeout: Duration::from_secs(30),
        }
    }
}

impl AwsConfig {
    /// All problems of the configuration, each with the field it is about; empty when it is good. Asks nobody.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.images.is_empty() {
            problems.push(
                "images: name the boot image, such as `imageIDs: ami-0abc` or `owners` with `filters: name=...`: \
                 EC2 has no image with the agent in it"
                    .to_owned(),
            );
        }
        for (field, url) in [
            ("endpoint_url", &self.endpoint_url),
            ("pricing_endpoint_url", &self.pricing_endpoint_url),
        ] {
            if let Some(url) = url
                && !(url.starts_with("http://") || url.starts_with("https://"))
            {
                problems.push(format!("{field}: `{url}` must begin with https:// or http://"));
            }
        }
        let vpc = match &self.vpc_id {
            Some(id) if id.eq_ignore_ascii_case(environment::DEFAULT) => &[],
            other => other.as_slice(),
        };
        let own = match &self.security_group {
            SecurityGroup::Given(id) => std::slice::from_ref(id),
            SecurityGroup::Kept | SecurityGroup::None => &[],
        };
        if let Some(queue) = &self.interruption_queue
            && let Err(reason) = interruption::check(queue)
        {
            problems.push(format!("interruption_queue: {reason}"));
        }
        let ids = [
            ("security_group", "sg-", own),
            ("vpc_id", "vpc-", vpc),
            ("subnet_ids", "subnet-", self.subnet_ids.as_slice()),
            ("security_group_ids", "sg-", self.security_group_ids.as_slice()),
        ];
        for (field, prefix, values) in ids {
            for value in values.iter().filter(|value| !value.starts_with(prefix)) {
                problems.push(format!("{field}: `{value}` is no id: it begins with `{prefix}`"));
            }
        }
        let groups = self.security_group_ids.len() + usize::from(self.security_group != SecurityGroup::None);
        if groups > launch::GROUPS {
            problems.push(format!(
                "security_group_ids: an instance has at most {}, Kip's own among them",
                launch::GROUPS
            ));
        }
        if self.upkeep_interval.is_zero() {
            problems.push("upkeep_interval: must not be zero".to_owned());
        }
        for text in &self.extra_cidrs {
            if let Err(reason) = text.parse::<Cidr>() {
                problems.push(format!("extra_cidrs: {reason}"));
            }
        }
        for (key, value) in &self.tags {
            if let Err(reason) = tags::check(key, value) {
                problems.push(format!("tags: {reason}"));
            }
        }
        if self.tags.len() > tags::USERS {
            problems.push(format!("tags: at most {} may be set", tags::USERS));
        }
        problems
    }

    /// Where every service of AWS is, when it is an emulator: that is everything at one address. A VPC endpoint of EC2 is EC2 only.
    pub(crate) fn emulator(&self) -> Option<&str> {
        self.endpoint_url
            .as_deref()
            .filter(|url| url.starts_with("http://"))
    }

    pub(crate) fn validated(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ConfigInvalid,
            crate::builder::START,
            problems.join("; "),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once_with_its_field() {
        let config = AwsConfig {
            endpoint_url: Some("ec2.example".into()),
            interruption_queue: Some("arn:aws:sqs:x".into()),
            pricing_endpoint_url: Some("pricing.example".into()),
            vpc_id: Some("subnet-1".into()),
            subnet_ids: vec!["vpc-1".into()],
            security_group: SecurityGroup::Given("mine".into()),
            extra_cidrs: vec!["10.0.0.0".into()],
            security_group_ids: vec!["default".into()],
            tags: BTreeMap::from([("aws:mine".into(), "x".into())]),
            ..AwsConfig::default()
        };
        let problems = config.problems();
        for field in [
            "images:",
            "endpoint_url:",
            "pricing_endpoint_url:",
            "vpc_id:",
            "subnet_ids:",
            "security_group:",
            "extra_cidrs:",
            "security_group_ids:",
            "tags:",
            "interruption_queue:",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(field)),
                "{field} {problems:?}"
            );
        }
    }

    /// Questions of other services must not go to an endpoint that is EC2 only.
    #[test]
    fn an_emulator_is_an_endpoint_without_tls() {
        let at = |url: &str| AwsConfig {
            endpoint_url: Some(url.into()),
            ..AwsConfig::default()
        };
        assert_eq!(
            at("http://127.0.0.1:5000").emulator(),
            Some("http://127.0.0.1:5000")
        );
        assert_eq!(
            at("https://vpce-1.ec2.us-east-1.vpce.amazonaws.com").emulator(),
            None
        );
        assert_eq!(AwsConfig::default().emulator(), None);
    }

    /// A key in a log is a key that must be changed.
    #[test]
    fn credentials_are_not_printed() {
        let config = AwsConfig {
            credentials: Some(AwsCredentials {
                access_key_id: "AKIAEXAMPLE".to_owned().into(),
                secret_access_key: "hush".to_owned().into(),
            }),
            ..AwsConfig::default()
        };
        let text = format!("{config:?}");
        assert!(!text.contains("AKIA") && !text.contains("hush"), "{text}");
    }
}

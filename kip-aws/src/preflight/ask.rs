//! Asks AWS everything that a start would, and what only a pod would find out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_config::SdkConfig;
use jiff::Timestamp;
use kip_core::error::{Error, ErrorKind};
use kip_core::ids::{LaunchToken, Zone};
use kip_core::model::{Architecture, CapacityType, Offering};
use kip_core::provider::{LaunchRequest, UserData, tags};

use super::judge::{self, Subject};
use super::{Check, Verdict};
use crate::api::prices::{PriceList, region_of_prices};
use crate::api::{self, Api};
use crate::builder;
use crate::config::{AwsConfig, SecurityGroup};
use crate::environment::{self, Metadata, OwnGroup, Owner, Vpc};
use crate::images::{BootImage, Images};
use crate::interruption::Queue;
use crate::launch;
use crate::sold::{Sold, Source};
use crate::subnets::Subnets;

/// An instance that cannot be there.
const NOBODY: &str = "i-00000000000000000";
/// A network interface that cannot be there.
const NO_INTERFACE: &str = "eni-00000000000000000";

/// What is needed to ask.
pub(crate) struct Asking {
    pub(crate) api: Api,
    pub(crate) sdk: SdkConfig,
    pub(crate) region: String,
    pub(crate) metadata: Metadata,
    pub(crate) config: AwsConfig,
    pub(crate) source: Source,
    pub(crate) owner: Option<Owner>,
    pub(crate) controller: Option<IpAddr>,
}

/// Every check beyond the credentials, in the order a start would find them out. Changes nothing.
pub(crate) async fn ask(mut asking: Asking) -> Vec<Check> {
    let mut checks = Vec::new();
    let vpc = asking.vpc(&mut checks).await;
    let subnets = asking.subnets(&mut checks).await;
    let images = asking.images(&mut checks).await;
    asking.security_group(vpc.as_ref(), &mut checks).await;
    if let (Some(subnets), Some(images)) = (subnets, images) {
        asking.launches(&subnets, &images, &mut checks).await;
    }
    asking.instances(&mut checks).await;
    asking.upkeep(&mut checks).await;
    asking.prices(&mut checks).await;
    asking.queue(&mut checks).await;
    checks
}

impl Asking {
    async fn vpc(&mut self, checks: &mut Vec<Check>) -> Option<Vpc> {
        let Self {
            api,
            metadata,
            config,
            owner,
            ..
        } = self;
        let placed = Box::pin(environment::place(api, metadata, config, owner.as_ref())).await;
        let (check, vpc) = match placed {
            Ok(Some(vpc)) => {
                let ranges: Vec<String> = vpc.ranges.iter().map(ToString::to_string).collect();
                let found = format!("{} with {}", vpc.id, ranges.join(", "));
                (Check::new("VPC", Verdict::Ok, found), Some(vpc))
            }
            Ok(None) => {
                let found = match &config.vpc_id {
                    Some(id) => format!("{id}, as configured"),
                    None => "that of the configured subnets".to_owned(),
                };
                (Check::new("VPC", Verdict::Ok, found), None)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => (
                judge::of_error("ec2:DescribeVpcs", &error).or_nothing_starts(),
                None,
            ),
            Err(error) => (
                failed("VPC", &error, "set `cloud.aws.vpcID` or `cloud.aws.subnetIDs`"),
                None,
            ),
        };
        checks.push(check);
        vpc
    }

    async fn subnets(&self, checks: &mut Vec<Check>) -> Option<Subnets> {
        match Subnets::find(self.api.clone(), &self.region, &self.config).await {
            Ok(subnets) => {
                checks.push(judge_room(&subnets.room()));
                Some(subnets)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                checks.push(judge::of_error("ec2:DescribeSubnets", &error));
                None
            }
            Err(error) => {
                checks.push(failed(
                    "subnets",
                    &error,
                    "set `cloud.aws.vpcID` or `cloud.aws.subnetIDs`",
                ));
                None
            }
        }
    }

    async fn images(&self, checks: &mut Vec<Check>) -> Option<Images> {
        match Box::pin(Images::open(self.api.clone(), &self.sdk, &self.config)).await {
            Ok(images) => {
                let found: Vec<String> = images
                    .architectures()
                    .filter_map(|architecture| {
                        Some(format!("{} for {architecture}", images.of(architecture)?.id))
                    })
                    .collect();
                checks.push(Check::new("boot images", Verdict::Ok, found.join(", ")));
                Some(images)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let is_parameter = error.chain().to_string().contains("ssm:GetParameters");
                let action = if is_parameter {
                    "ssm:GetParameters"
                } else {
                    "ec2:DescribeImages"
                };
                checks.push(judge::of_error(action, &error).or_nothing_starts());
                None
            }
            Err(error) => {
                checks.push(failed("boot images", &error, "set `cells.bootImageSpec`"));
                None
            }
        }
    }

    async fn security_group(&self, vpc: Option<&Vpc>, checks: &mut Vec<Check>) {
        const WHAT: &str = "security group";
        let own = environment::own_group(&self.config, self.owner.as_ref(), vpc, self.controller);
        let Some(own) = own else {
            checks.push(of_configured_groups(&self.config));
            return;
        };
        match environment::find(&self.api, &own).await {
            Ok(Some(group)) => {
                let (more, fewer) = own.changes(&group);
                let state = match (more, fewer) {
                    (0, 0) => "as it should be".to_owned(),
                    _ => format!("to be changed when Kip starts: {more} rules more, {fewer} fewer"),
                };
                checks.push(Check::new(
                    WHAT,
                    Verdict::Ok,
                    format!("{} is there, {state}", group.id),
                ));
                let authorize = self.api.may_authorize_ingress(&group.id).await;
                let revoke = self.api.may_revoke_ingress(&group.id).await;
                for (action, answer, changes) in [
                    ("ec2:AuthorizeSecurityGroupIngress", authorize, more),
                    ("ec2:RevokeSecurityGroupIngress", revoke, fewer),
                ] {
                    let check = of_rule_change(action, &answer);
                    checks.push(if changes > 0 {
                        check.or_nothing_starts()
                    } else {
                        check
                    });
                }
            }
            Ok(None) => self.new_group(&own, checks).await,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                checks.push(judge::of_error("ec2:DescribeSecurityGroups", &error).or_nothing_starts());
            }
            Err(error) => checks.push(failed(WHAT, &error, "set `cloud.aws.securityGroup`")),
        }
    }

    async fn new_group(&self, own: &OwnGroup, checks: &mut Vec<Check>) {
        let name = own.owner.group_name();
        checks.push(Check::new(
            "security group",
            Verdict::Ok,
            format!("`{name}` is made when Kip starts"),
        ));
        let tags = own.owner.tags_of(name.clone(), &own.tags);
        let answer = self.api.may_create_security_group(&name, &own.vpc.id, tags).await;
        let check = judge::of_dry_run("ec2:CreateSecurityGroup", &answer, Subject::Real);
        checks.push(check.or_nothing_starts());
        for action in [
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupIngress",
        ] {
            let found = "can be told when the security group is there";
            checks.push(Check::new(action, Verdict::Unknown, found));
        }
    }

    /// Asks for a launch of the cheapest offering of each architecture and capacity type.
    async fn launches(&self, subnets: &Subnets, images: &Images, checks: &mut Vec<Check>) {
        let sold = Sold::new(
            self.source.clone(),
            subnets.zones(),
            images.architectures().collect(),
        );
        let list = sold.list();
        let mut cheapest: BTreeMap<(Architecture, CapacityType), &Offering> = BTreeMap::new();
        for offering in list.offerings() {
            let kind = (offering.architecture, offering.id.capacity_type);
            let best = cheapest.entry(kind).or_insert(offering);
            if offering.price < best.price {
                *best = offering;
            }
        }
        if cheapest.is_empty() {
            let (zones, architectures) = sold.limits();
            let found =
                format!("nothing: the subnets are in {zones}, the boot images are for {architectures}");
            checks.push(
                Check::new("offerings", Verdict::Failed, found)
                    .with_remedy("name subnets in zones of the region, and images for amd64 or arm64"),
            );
            return;
        }
        let count = list.offerings().count();
        checks.push(Check::new(
            "offerings",
            Verdict::Ok,
            format!("{count} can be launched here"),
        ));
        for ((architecture, _), offering) in cheapest {
            // Nothing is sold for an architecture without an image.
            let Some(image) = images.of(architecture) else {
                continue;
            };
            let mut check = match self.launch(subnets, &image, offering).await {
                Ok(check) => check,
                Err(error) => judge::of_error("ec2:RunInstances", &error),
            };
            check.found = format!("{}: {}", offering.id, check.found);
            checks.push(check);
        }
    }

    async fn launch(
        &self,
        subnets: &Subnets,
        image: &BootImage,
        offering: &Offering,
    ) -> Result<Check, Error> {
        let subnet = subnets.take(&offering.id.zone)?;
        let token = LaunchToken::from_stored("kip-preflight");
        let mut request = LaunchRequest::new(token, offering.id.clone(), UserData::new("#cloud-config\n"));
        let nobody = Owner {
            cluster: "preflight".to_owned(),
            node: "preflight".to_owned(),
        };
        for (key, value) in self.owner.as_ref().unwrap_or(&nobody).tags() {
            request = request.with_tag(key, value);
        }
        let input = launch::input(&request, &self.config, image, &subnet)?;
        let answer = self.api.may_run_instances(input).await;
        Ok(judge::of_dry_run("ec2:RunInstances", &answer, Subject::Real))
    }

    async fn instances(&self, checks: &mut Vec<Check>) {
        let mut filters = vec![api::filter("instance-state-name", vec!["running".to_owned()])];
        if let Some(owner) = &self.owner {
            filters.push(api::exactly(&format!("tag:{}", tags::CLUSTER), &owner.cluster));
            filters.push(api::exactly(&format!("tag:{}", tags::NODE), &owner.node));
        }
        let found = self.api.describe_instances("preflight", filters, None).await;
        let running = match found {
            Ok((found, _)) => {
                checks.push(Check::new("ec2:DescribeInstances", Verdict::Ok, "allowed"));
                found
            }
            Err(error) => {
                checks.push(judge::of_error("ec2:DescribeInstances", &error));
                Vec::new()
            }
        };
        // Without an owner they may be anybody's, and a policy that looks at tags would refuse.
        let own = running
            .first()
            .filter(|_| self.owner.is_some())
            .and_then(|found| found.instance_id());
        let (id, subject) = own.map_or((NOBODY, Subject::Imagined), |id| (id, Subject::Real));
        let answer = self.api.may_terminate_instances(id).await;
        checks.push(judge::of_dry_run("ec2:TerminateInstances", &answer, subject));
        let answer = self.api.may_forward(id).await;
        checks.push(judge::of_dry_run("ec2:ModifyInstanceAttribute", &answer, subject));
    }

    /// Whether the queue of interruptions can be read.
    async fn queue(&self, checks: &mut Vec<Check>) {
        let Some(queue) = &self.config.interruption_queue else {
            return;
        };
        checks.push(
            match Box::pin(Queue::open(&self.sdk, &self.config, queue)).await {
                Ok(_) => Check::new("interruption queue", Verdict::Ok, queue),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    judge::of_error("sqs:ReceiveMessage", &error).or_nothing_starts()
                }
                Err(error) => failed("interruption queue", &error, "set `cloud.aws.interruptionQueue`"),
            },
        );
    }

    /// A page of everything that types and prices are refreshed from.
    async fn prices(&self, checks: &mut Vec<Check>) {
        let now = Timestamp::now().into();
        let kinds = self.api.instance_types(None).await.err();
        let zones = self.api.type_offerings(None).await.err();
        let spot = self.api.spot_prices(now, None).await.err();
        checks.push(of_call("ec2:DescribeInstanceTypes", kinds));
        checks.push(of_call("ec2:DescribeInstanceTypeOfferings", zones));
        checks.push(of_call("ec2:DescribeSpotPriceHistory", spot));
        let is_asked = self.config.endpoint_url.is_none() || self.config.pricing_endpoint_url.is_some();
        if let (true, Some(at)) = (is_asked, region_of_prices(&self.region)) {
            let list = PriceList::new(builder::pricing_client(&self.sdk, at, &self.config));
            let error = Box::pin(list.products(&self.region, None)).await.err();
            checks.push(of_call("pricing:GetProducts", error));
        }
    }

    /// What is lost only by some pods, or over time.
    async fn upkeep(&self, checks: &mut Vec<Check>) {
        if let Some(vpc) = &self.config.vpc_id {
            let tables = self.api.describe_route_tables(vpc).await;
            let first = tables
                .as_ref()
                .ok()
                .and_then(|tables| tables.first()?.route_table_id().map(str::to_owned));
            checks.push(of_call("ec2:DescribeRouteTables", tables.err()));
            if let Some(table) = first {
                for (action, answer) in [
                    ("ec2:CreateRoute", self.api.may_create_route(&table, NOBODY).await),
                    (
                        "ec2:ReplaceRoute",
                        self.api.may_replace_route(&table, NOBODY).await,
                    ),
                    ("ec2:DeleteRoute", self.api.may_delete_route(&table).await),
                ] {
                    checks.push(judge::of_dry_run(action, &answer, Subject::Half));
                }
            }
        }
        let unused = vec![api::filter("status", vec!["available".to_owned()])];
        let interfaces = self.api.unused_interfaces(unused.clone()).await;
        checks.push(of_call("ec2:DescribeNetworkInterfaces", interfaces.err()));
        let answer = self.api.may_delete_network_interface(NO_INTERFACE).await;
        checks.push(judge::of_dry_run(
            "ec2:DeleteNetworkInterface",
            &answer,
            Subject::Imagined,
        ));
        let volumes = self.api.unused_volumes(unused).await;
        checks.push(of_call("ec2:DescribeVolumes", volumes.err()));
    }
}

/// What a call that was made says about its permission.
fn of_call(action: &'static str, error: Option<Error>) -> Check {
    match error {
        None => Check::new(action, Verdict::Ok, "allowed"),
        Some(error) => judge::of_error(action, &error),
    }
}

/// A rule that is not there cannot be taken away, and EC2 may say so after it looked at the permission.
fn of_rule_change(action: &'static str, answer: &api::DryRun) -> Check {
    match answer {
        api::DryRun::Refused { code: Some(code), .. } if code == "InvalidPermission.NotFound" => {
            Check::new(action, Verdict::Ok, "allowed")
        }
        other => judge::of_dry_run(action, other, Subject::Real),
    }
}

fn of_configured_groups(config: &AwsConfig) -> Check {
    let check = |verdict, found: String| Check::new("security group", verdict, found);
    let extra = config.security_group_ids.join(", ");
    match &config.security_group {
        SecurityGroup::Given(id) => {
            let found = format!("{id}, as configured: it must let the controller reach TCP 6421");
            check(Verdict::Ok, found)
        }
        SecurityGroup::None if extra.is_empty() => {
            check(Verdict::Warning, "the VPC's default one".to_owned())
                .with_remedy("see that it lets the controller reach TCP 6421, or name others")
        }
        SecurityGroup::None => {
            let found = format!("{extra}: one must let the controller reach TCP 6421");
            check(Verdict::Ok, found)
        }
        SecurityGroup::Kept => {
            let found = "Kip keeps one, which cannot be named without the cluster and the VPC";
            check(Verdict::Unknown, found.to_owned())
                .with_remedy("run this where the cluster can be reached, or give --kubeconfig")
        }
    }
}

fn judge_room(room: &BTreeMap<Zone, i64>) -> Check {
    let zones: Vec<String> = room
        .iter()
        .map(|(zone, room)| format!("{zone}: {room}"))
        .collect();
    let found = format!("addresses for cells in {}", zones.join(", "));
    let full = room.values().filter(|room| **room == 0).count();
    match full {
        0 => Check::new("subnets", Verdict::Ok, found),
        all if all == room.len() => {
            Check::new("subnets", Verdict::Failed, found).with_remedy("add a subnet, or free addresses")
        }
        _ => Check::new("subnets", Verdict::Warning, found)
            .with_remedy("add a subnet to the full zone, or free addresses"),
    }
}

fn failed(what: &str, error: &Error, remedy: &str) -> Check {
    let remedy = match error.kind() {
        ErrorKind::ConfigInvalid | ErrorKind::InvalidRequest => remedy,
        kind => judge::remedy(kind),
    };
    Check::new(what, Verdict::Failed, error.chain().to_string()).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_subnets_are_told_before_a_pod_waits_for_an_address() {
        let verdict = |pairs: &[(&str, i64)]| {
            let map = pairs
                .iter()
                .map(|(zone, room)| (Zone::new(*zone), *room))
                .collect();
            judge_room(&map).verdict
        };
        assert_eq!(verdict(&[("a", 5), ("b", 4)]), Verdict::Ok);
        assert_eq!(verdict(&[("a", 0), ("b", 4)]), Verdict::Warning);
        assert_eq!(verdict(&[("a", 0), ("b", 0)]), Verdict::Failed);
    }
}

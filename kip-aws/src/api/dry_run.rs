//! Calls that only ask whether they would be allowed.

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types::{AttributeBooleanValue, IpPermission, IpRange, ResourceType, Tag, TagSpecification};
use kip_core::error::Error;

use super::Api;
use crate::errors;

/// A range that is for documentation only. Source: RFC 5737.
const NOWHERE: &str = "192.0.2.0/24";

/// What EC2 says to a call that only asks.
#[derive(Debug)]
pub(crate) enum DryRun {
    /// It would be allowed.
    Allowed,
    /// It was answered as if it had been done.
    Done,
    /// It would fail, or may not be made.
    Refused {
        /// EC2's code, when it answered.
        code: Option<String>,
        /// What it means.
        error: Error,
    },
}

impl DryRun {
    fn of<T, E>(call: &'static str, answer: Result<T, SdkError<E, HttpResponse>>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match answer {
            Ok(_) => Self::Done,
            Err(error) => match error.code() {
                Some("DryRunOperation") => Self::Allowed,
                code => Self::Refused {
                    code: code.map(str::to_owned),
                    error: errors::of_sdk("preflight", call, error),
                },
            },
        }
    }
}

impl Api {
    /// Whether exactly this launch would be allowed.
    pub(crate) async fn may_run_instances(&self, input: RunInstancesInputBuilder) -> DryRun {
        let answer = input.dry_run(true).send_with(&self.0).await;
        DryRun::of("RunInstances", answer)
    }

    /// Whether this instance could be terminated.
    pub(crate) async fn may_terminate_instances(&self, id: &str) -> DryRun {
        let answer = self
            .0
            .terminate_instances()
            .instance_ids(id)
            .dry_run(true)
            .send()
            .await;
        DryRun::of("TerminateInstances", answer)
    }

    /// Whether a security group could be made.
    pub(crate) async fn may_create_security_group(&self, name: &str, vpc: &str, tags: Vec<Tag>) -> DryRun {
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::SecurityGroup)
            .set_tags(Some(tags));
        let answer = self
            .0
            .create_security_group()
            .group_name(name)
            .description(name)
            .vpc_id(vpc)
            .tag_specifications(tags.build())
            .dry_run(true)
            .send()
            .await;
        DryRun::of("CreateSecurityGroup", answer)
    }

    /// Whether this group's rules could be added to.
    pub(crate) async fn may_authorize_ingress(&self, group: &str) -> DryRun {
        let answer = self
            .0
            .authorize_security_group_ingress()
            .group_id(group)
            .ip_permissions(some_rule())
            .dry_run(true)
            .send()
            .await;
        DryRun::of("AuthorizeSecurityGroupIngress", answer)
    }

    /// Whether rules of this group could be taken away.
    pub(crate) async fn may_revoke_ingress(&self, group: &str) -> DryRun {
        let answer = self
            .0
            .revoke_security_group_ingress()
            .group_id(group)
            .ip_permissions(some_rule())
            .dry_run(true)
            .send()
            .await;
        DryRun::of("RevokeSecurityGroupIngress", answer)
    }

    /// Whether this instance could take packets that are not for its own addresses.
    pub(crate) async fn may_forward(&self, id: &str) -> DryRun {
        let answer = self
            .0
            .modify_instance_attribute()
            .instance_id(id)
            .source_dest_check(AttributeBooleanValue::builder().value(false).build())
            .dry_run(true)
            .send()
            .await;
        DryRun::of("ModifyInstanceAttribute", answer)
    }

    /// Whether a route could be made in this table.
    pub(crate) async fn may_create_route(&self, table: &str, instance: &str) -> DryRun {
        let answer = self
            .0
            .create_route()
            .route_table_id(table)
            .destination_cidr_block(NOWHERE)
            .instance_id(instance)
            .dry_run(true)
            .send()
            .await;
        DryRun::of("CreateRoute", answer)
    }

    /// Whether a route of this table could be turned.
    pub(crate) async fn may_replace_route(&self, table: &str, instance: &str) -> DryRun {
        let answer = self
            .0
            .replace_route()
            .route_table_id(table)
            .destination_cidr_block(NOWHERE)
            .instance_id(instance)
            .dry_run(true)
            .send()
            .await;
        DryRun::of("ReplaceRoute", answer)
    }

    /// Whether a route of this table could be removed.
    pub(crate) async fn may_delete_route(&self, table: &str) -> DryRun {
        let answer = self
            .0
            .delete_route()
            .route_table_id(table)
            .destination_cidr_block(NOWHERE)
            .dry_run(true)
            .send()
            .await;
        DryRun::of("DeleteRoute", answer)
    }

    /// Whether this network interface could be removed.
    pub(crate) async fn may_delete_network_interface(&self, id: &str) -> DryRun {
        let answer = self
            .0
            .delete_network_interface()
            .network_interface_id(id)
            .dry_run(true)
            .send()
            .await;
        DryRun::of("DeleteNetworkInterface", answer)
    }
}

/// A rule that nobody has: from a range that is for documentation only.
fn some_rule() -> IpPermission {
    IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(6421)
        .to_port(6421)
        .ip_ranges(IpRange::builder().cidr_ip(NOWHERE).build())
        .build()
}

//! VPCs and security groups.

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, IpPermission, ResourceType, SecurityGroup, Tag, TagSpecification, Vpc};
use kip_core::error::{Error, ErrorKind, Result};

use super::{Api, Refusal};
use crate::builder::START;
use crate::errors;

/// What every group is described with: EC2 demands something.
const DESCRIPTION: &str = "Cells of Kip: kept by the controller, changes are undone";

impl Api {
    /// The VPCs, by id or by filter.
    pub(crate) async fn describe_vpcs(&self, ids: &[String], filters: Vec<Filter>) -> Result<Vec<Vpc>> {
        let output = self
            .0
            .describe_vpcs()
            .set_vpc_ids((!ids.is_empty()).then(|| ids.to_vec()))
            .set_filters((!filters.is_empty()).then_some(filters))
            .send()
            .await
            .map_err(|error| errors::of_sdk(START, "DescribeVpcs", error))?;
        Ok(output.vpcs.unwrap_or_default())
    }

    /// The security groups that match: for filters that match few.
    pub(crate) async fn describe_security_groups(&self, filters: Vec<Filter>) -> Result<Vec<SecurityGroup>> {
        let output = self
            .0
            .describe_security_groups()
            .set_filters(Some(filters))
            .send()
            .await
            .map_err(|error| errors::of_sdk(START, "DescribeSecurityGroups", error))?;
        Ok(output.security_groups.unwrap_or_default())
    }

    /// Makes a security group with its tags, and answers its id.
    pub(crate) async fn create_security_group(
        &self,
        name: &str,
        vpc: &str,
        tags: Vec<Tag>,
    ) -> Result<String, Refusal> {
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::SecurityGroup)
            .set_tags(Some(tags));
        let output = self
            .0
            .create_security_group()
            .group_name(name)
            .description(DESCRIPTION)
            .vpc_id(vpc)
            .tag_specifications(tags.build())
            .send()
            .await
            .map_err(|error| refusal("CreateSecurityGroup", error))?;
        output.group_id.ok_or_else(|| Refusal {
            code: None,
            error: Error::new(
                ErrorKind::Unexpected,
                START,
                "EC2 answers without the security group",
            ),
        })
    }

    /// Lets more in: all of it, or nothing.
    pub(crate) async fn authorize_ingress(
        &self,
        group: &str,
        permissions: Vec<IpPermission>,
    ) -> Result<(), Refusal> {
        self.0
            .authorize_security_group_ingress()
            .group_id(group)
            .set_ip_permissions(Some(permissions))
            .send()
            .await
            .map_err(|error| refusal("AuthorizeSecurityGroupIngress", error))?;
        Ok(())
    }

    /// Lets less in: all of it, or nothing.
    pub(crate) async fn revoke_ingress(
        &self,
        group: &str,
        permissions: Vec<IpPermission>,
    ) -> Result<(), Refusal> {
        self.0
            .revoke_security_group_ingress()
            .group_id(group)
            .set_ip_permissions(Some(permissions))
            .send()
            .await
            .map_err(|error| refusal("RevokeSecurityGroupIngress", error))?;
        Ok(())
    }
}

fn refusal<E>(call: &'static str, error: SdkError<E, aws_sdk_ec2::config::http::HttpResponse>) -> Refusal
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    Refusal {
        code: error.code().map(str::to_owned),
        error: errors::of_sdk(START, call, error),
    }
}

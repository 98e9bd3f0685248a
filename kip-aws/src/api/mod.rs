//! The few calls of EC2's API that Kip makes, without retries: whoever asks decides whether to ask again.

pub(crate) mod catalogue;
mod dry_run;
pub(crate) mod limit;
mod network;
pub(crate) mod prices;
mod routing;

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types::{Filter, Image, Instance, InstanceStateName, Subnet};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;

use crate::builder::START;
use crate::errors;
use crate::images::ImageSpec;

pub(crate) use dry_run::DryRun;

/// Instances a page of DescribeInstances: the most EC2 gives. Source: DescribeInstances, Amazon EC2 API Reference.
const PAGE: i32 = 1000;

/// EC2's API in one region.
#[derive(Clone, Debug)]
pub(crate) struct Api(Client);

/// Why RunInstances launched nothing, or may have.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// EC2's code, when it answered.
    pub(crate) code: Option<String>,
    /// What it means.
    pub(crate) error: Error,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Launches, or finds what the client token launched.
    pub(crate) async fn run_instances(&self, input: RunInstancesInputBuilder) -> Result<Instance, Refusal> {
        let output = input.send_with(&self.0).await.map_err(|error| Refusal {
            code: error.code().map(str::to_owned),
            error: errors::of_sdk("launch", "RunInstances", error),
        })?;
        output.instances.unwrap_or_default().pop().ok_or_else(|| Refusal {
            code: None,
            error: Error::new(ErrorKind::Unexpected, "launch", "EC2 answers without an instance"),
        })
    }

    /// Begins to terminate all, or none when one of them is unknown. The states they were in before.
    pub(crate) async fn terminate_instances(
        &self,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, InstanceStateName>> {
        let output = self
            .0
            .terminate_instances()
            .set_instance_ids(Some(ids.iter().map(InstanceId::to_string).collect()))
            .send()
            .await
            .map_err(|error| errors::of_sdk("terminate", "TerminateInstances", error))?;
        let states = output.terminating_instances.unwrap_or_default();
        let states: BTreeMap<InstanceId, InstanceStateName> = states
            .into_iter()
            .filter_map(|change| {
                let state = change.previous_state?.name?;
                Some((InstanceId::new(change.instance_id?), state))
            })
            .collect();
        // An answer without one of them says nothing of it, and must not be taken for its absence.
        match ids.iter().find(|id| !states.contains_key(id)) {
            None => Ok(states),
            Some(id) => Err(Error::new(
                ErrorKind::Unexpected,
                "terminate",
                "EC2 answers without the instance",
            )
            .with_context("instance", id)),
        }
    }

    /// One page of the instances that match, and the token of the next.
    pub(crate) async fn describe_instances(
        &self,
        operation: &'static str,
        filters: Vec<Filter>,
        page: Option<String>,
    ) -> Result<(Vec<Instance>, Option<String>)> {
        let output = self
            .0
            .describe_instances()
            .set_filters(Some(filters))
            .set_next_token(page)
            .max_results(PAGE)
            .send()
            .await
            .map_err(|error| errors::of_sdk(operation, "DescribeInstances", error))?;
        let instances = output
            .reservations
            .unwrap_or_default()
            .into_iter()
            .flat_map(|reservation| reservation.instances.unwrap_or_default())
            .collect();
        Ok((instances, output.next_token.filter(|token| !token.is_empty())))
    }

    /// All pages of the instances that match: for a filter that matches few.
    pub(crate) async fn all_instances(
        &self,
        operation: &'static str,
        filters: Vec<Filter>,
    ) -> Result<Vec<Instance>> {
        let (mut all, mut next) = self.describe_instances(operation, filters.clone(), None).await?;
        while next.is_some() {
            let page = self.describe_instances(operation, filters.clone(), next).await?;
            all.extend(page.0);
            next = page.1;
        }
        Ok(all)
    }

    pub(crate) async fn describe_images(&self, spec: &ImageSpec, filters: Vec<Filter>) -> Result<Vec<Image>> {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let output = self
            .0
            .describe_images()
            .set_image_ids(some(&spec.ids))
            .set_owners(some(&spec.owners))
            .set_executable_users(some(&spec.executable_users))
            .set_filters((!filters.is_empty()).then_some(filters))
            .send()
            .await
            .map_err(|error| errors::of_sdk(START, "DescribeImages", error))?;
        Ok(output.images.unwrap_or_default())
    }

    pub(crate) async fn describe_subnets(
        &self,
        operation: &'static str,
        ids: &[String],
        filters: Vec<Filter>,
    ) -> Result<Vec<Subnet>> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let output = self
                .0
                .describe_subnets()
                .set_subnet_ids((!ids.is_empty()).then(|| ids.to_vec()))
                .set_filters((!filters.is_empty()).then(|| filters.clone()))
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| errors::of_sdk(operation, "DescribeSubnets", error))?;
            all.extend(output.subnets.unwrap_or_default());
            next = output.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }
}

/// A filter that accepts any of the values.
pub(crate) fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// A filter for one value exactly: `*`, `?` and `\` mean themselves.
pub(crate) fn exactly(name: &str, value: &str) -> Filter {
    filter(name, vec![literal(value)])
}

/// A value of a filter that means itself.
pub(crate) fn literal(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

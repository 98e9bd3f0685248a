//! Route tables, and what is left over of instances.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{AttributeBooleanValue, Filter, RouteTable};
use kip_core::error::Result;

use super::Api;
use crate::{api, errors};

impl Api {
    /// All route tables of a VPC.
    pub(crate) async fn describe_route_tables(&self, vpc: &str) -> Result<Vec<RouteTable>> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let output = self
                .0
                .describe_route_tables()
                .filters(api::exactly("vpc-id", vpc))
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| errors::of_sdk("route", "DescribeRouteTables", error))?;
            all.extend(output.route_tables.unwrap_or_default());
            next = output.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Lets an instance take packets that are not for its own addresses.
    pub(crate) async fn forward(&self, instance: &str) -> Result<()> {
        self.0
            .modify_instance_attribute()
            .instance_id(instance)
            .source_dest_check(AttributeBooleanValue::builder().value(false).build())
            .send()
            .await
            .map_err(|error| errors::of_sdk("route", "ModifyInstanceAttribute", error))?;
        Ok(())
    }

    /// Makes a route to an instance.
    pub(crate) async fn create_route(&self, table: &str, range: &str, instance: &str) -> Result<()> {
        self.0
            .create_route()
            .route_table_id(table)
            .destination_cidr_block(range)
            .instance_id(instance)
            .send()
            .await
            .map_err(|error| errors::of_sdk("route", "CreateRoute", error))?;
        Ok(())
    }

    /// Turns a route that is there to an instance.
    pub(crate) async fn replace_route(&self, table: &str, range: &str, instance: &str) -> Result<()> {
        self.0
            .replace_route()
            .route_table_id(table)
            .destination_cidr_block(range)
            .instance_id(instance)
            .send()
            .await
            .map_err(|error| errors::of_sdk("route", "ReplaceRoute", error))?;
        Ok(())
    }

    /// Removes a route.
    pub(crate) async fn delete_route(&self, table: &str, range: &str) -> Result<()> {
        self.0
            .delete_route()
            .route_table_id(table)
            .destination_cidr_block(range)
            .send()
            .await
            .map_err(|error| errors::of_sdk("route", "DeleteRoute", error))?;
        Ok(())
    }

    /// The network interfaces that match.
    pub(crate) async fn unused_interfaces(&self, filters: Vec<Filter>) -> Result<BTreeSet<String>> {
        let output = self
            .0
            .describe_network_interfaces()
            .set_filters(Some(filters))
            .send()
            .await
            .map_err(|error| errors::of_sdk("clean up", "DescribeNetworkInterfaces", error))?;
        let found = output.network_interfaces.unwrap_or_default();
        Ok(found
            .into_iter()
            .filter_map(|interface| interface.network_interface_id)
            .collect())
    }

    /// Removes a network interface that nobody uses.
    pub(crate) async fn delete_network_interface(&self, id: &str) -> Result<()> {
        self.0
            .delete_network_interface()
            .network_interface_id(id)
            .send()
            .await
            .map_err(|error| errors::of_sdk("clean up", "DeleteNetworkInterface", error))?;
        Ok(())
    }

    /// The volumes that match.
    pub(crate) async fn unused_volumes(&self, filters: Vec<Filter>) -> Result<BTreeSet<String>> {
        let output = self
            .0
            .describe_volumes()
            .set_filters(Some(filters))
            .send()
            .await
            .map_err(|error| errors::of_sdk("clean up", "DescribeVolumes", error))?;
        let found = output.volumes.unwrap_or_default();
        Ok(found.into_iter().filter_map(|volume| volume.volume_id).collect())
    }
}

//! The calls of EC2's API that a hypervisor makes.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{Filter, Instance, InstanceAttributeName};
use base64::Engine as _;
use kip_core::provider::UserData;

use crate::plan::Shown;

/// Our fake EC2 lets nothing go wrong for who has this key: it is no customer.
const KEY: &str = "AKIAHYPERVISOR";

/// The API of an emulator.
#[derive(Debug)]
pub(crate) struct Ec2(Client);

impl Ec2 {
    pub(crate) fn open(endpoint: &str) -> Self {
        let config = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(KEY, "secret", None, None, "hypervisor"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(endpoint);
        Self(Client::from_conf(config.build()))
    }

    /// All instances that are pending or running.
    pub(crate) async fn instances(&self) -> Result<Vec<Shown>> {
        let alive = Filter::builder()
            .name("instance-state-name")
            .values("pending")
            .values("running");
        let pages = self
            .0
            .describe_instances()
            .filters(alive.build())
            .into_paginator()
            .items()
            .send();
        let reservations = pages.collect::<Result<Vec<_>, _>>().await?;
        Ok(reservations
            .iter()
            .flat_map(|reservation| reservation.instances())
            .filter_map(shown)
            .collect())
    }

    /// The user-data an instance was launched with.
    pub(crate) async fn user_data(&self, instance: &str) -> Result<UserData> {
        let answer = self
            .0
            .describe_instance_attribute()
            .instance_id(instance)
            .attribute(InstanceAttributeName::UserData)
            .send()
            .await?;
        let encoded = answer.user_data.and_then(|data| data.value).unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .context("the user-data is not base64")?;
        Ok(UserData::new(bytes))
    }

    /// Gives an interface a secondary private address.
    pub(crate) async fn assign(&self, interface: &str, address: Ipv4Addr) -> Result<()> {
        self.0
            .assign_private_ip_addresses()
            .network_interface_id(interface)
            .private_ip_addresses(address.to_string())
            .send()
            .await?;
        Ok(())
    }

    /// Ends an instance whose machine has shut down.
    pub(crate) async fn terminate(&self, instance: &str) -> Result<()> {
        self.0.terminate_instances().instance_ids(instance).send().await?;
        Ok(())
    }
}

/// None while an instance has no address.
fn shown(instance: &Instance) -> Option<Shown> {
    let interface = instance.network_interfaces().first()?;
    let pod = interface
        .private_ip_addresses()
        .iter()
        .filter(|address| address.primary() == Some(false))
        .find_map(|address| address.private_ip_address()?.parse().ok());
    Some(Shown {
        id: instance.instance_id()?.to_owned(),
        interface: interface.network_interface_id().unwrap_or_default().to_owned(),
        management: instance.private_ip_address()?.parse().ok()?,
        pod,
    })
}

//! One look at what is there, and what follows from it.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::types::{self, InstanceStateName, Route, RouteState};
use kip_core::error::{ErrorKind, Result};
use kip_core::provider::tags;
use tokio::time::Instant;

use super::garbage::LeftOver;
use super::routes::{self, Cell, Interfaces, Step, TAG, Table, Target};
use crate::api::{self, Api};
use crate::environment::Owner;
use crate::observe;

/// Things that were told of, before all of them are told anew: it must not grow for ever.
const MOST: usize = 1000;

/// Looks after what belongs to one owner. Touches nothing that does not carry its tags, or leads to what does.
#[derive(Debug)]
pub(super) struct Sweeper {
    api: Api,
    owner: Owner,
    vpc: String,
    /// Of the cells that have or had routes.
    routed: Interfaces,
    interfaces: LeftOver,
    volumes: LeftOver,
    /// What was said already.
    told: BTreeSet<String>,
}

impl Sweeper {
    pub(super) fn new(api: Api, owner: Owner, vpc: String) -> Self {
        Self {
            api,
            owner,
            vpc,
            routed: Interfaces::default(),
            interfaces: LeftOver::default(),
            volumes: LeftOver::default(),
            told: BTreeSet::new(),
        }
    }

    fn of_owner(&self) -> Vec<types::Filter> {
        vec![
            api::exactly(&format!("tag:{}", tags::CLUSTER), &self.owner.cluster),
            api::exactly(&format!("tag:{}", tags::NODE), &self.owner.node),
        ]
    }

    /// Makes the routes what they should be. The instances that have routes, and whether everything is done.
    ///
    /// # Errors
    /// What the calls that look answer; what one step answers is logged, and the others are done.
    pub(super) async fn routes(&mut self) -> Result<(BTreeSet<String>, bool)> {
        let mut filters = self.of_owner();
        filters.push(api::filter("tag-key", vec![TAG.to_owned()]));
        let found = self.api.all_instances("route", filters).await?;
        let cells: Vec<Cell> = found.iter().filter_map(cell).collect();
        if cells.is_empty() && self.routed.is_empty() {
            return Ok((BTreeSet::new(), true));
        }
        self.routed.learn(&cells);
        let tables = self.api.describe_route_tables(&self.vpc).await?;
        let tables: Vec<Table> = tables.iter().filter_map(table).collect();
        let mut is_done = true;
        for step in routes::plan(&cells, &tables, &self.routed) {
            is_done &= self.step(step).await;
        }
        // A route that was removed just now is seen to be gone by the next look.
        self.routed.forget(&cells, &tables);
        let with_routes = cells
            .into_iter()
            .filter(|cell| cell.is_alive)
            .map(|cell| cell.id)
            .collect();
        Ok((with_routes, is_done))
    }

    /// Whether it is done.
    async fn step(&mut self, step: Step) -> bool {
        let done = match &step {
            Step::Forward { instance } => self.api.forward(instance).await,
            Step::Create {
                table,
                range,
                instance,
            } => self.api.create_route(table, &range.to_string(), instance).await,
            Step::Replace {
                table,
                range,
                instance,
                strange,
            } => {
                if let Some(interface) = strange {
                    let told = format!(
                        "{range} of {table} led to the network interface {interface}, which no instance has: it is turned to the cell \
                         {instance}, which asks for it"
                    );
                    self.tell(format!("strange {table} {range} {interface}"), &told);
                }
                self.api.replace_route(table, &range.to_string(), instance).await
            }
            Step::Delete { table, range } => self.api.delete_route(table, &range.to_string()).await,
            Step::Blocked {
                table,
                range,
                instance,
                by,
            } => {
                let told = format!(
                    "{range} of {table} leads to {by} and not to the cell {instance}: remove that route, or the annotation"
                );
                self.tell(format!("{step:?}"), &told);
                return false;
            }
            Step::Lost { instance, subnet } => {
                let told = format!("the subnet {subnet} of the cell {instance} has no route table");
                self.tell(format!("{step:?}"), &told);
                return false;
            }
        };
        match done {
            Ok(()) => {
                tracing::info!(?step, "cloud route");
                self.told.remove(&format!("{step:?}"));
                true
            }
            Err(error) => {
                self.tell(
                    format!("{step:?}"),
                    &format!("cloud route: {}; it is tried again", error.chain()),
                );
                false
            }
        }
    }

    /// Warns, once about each thing.
    fn tell(&mut self, about: String, what: &str) {
        if self.told.len() >= MOST {
            self.told.clear();
        }
        if self.told.insert(about) {
            tracing::warn!("{what}");
        }
    }

    /// Removes network interfaces that nobody has used for `age`, and tells of volumes that nobody uses.
    pub(super) async fn garbage(&mut self, age: Duration) {
        let now = Instant::now();
        let mut filters = self.of_owner();
        filters.push(api::filter("status", vec!["available".to_owned()]));
        match self.api.unused_interfaces(filters.clone()).await {
            Ok(unused) => {
                for id in self.interfaces.old(&unused, now, age) {
                    self.remove_interface(&id).await;
                }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let told = format!("network interfaces that are left over stay: {}", error.chain());
                self.tell("interfaces".to_owned(), &told);
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "cannot look for unused network interfaces")
            }
        }
        match self.api.unused_volumes(filters).await {
            Ok(unused) => {
                for volume in self.volumes.new_of(&unused, now) {
                    tracing::warn!(
                        volume,
                        "nobody uses this volume of Kip's any more, and it is paid for: delete it, or its tags"
                    );
                }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let told = format!("volumes that are left over are not told: {}", error.chain());
                self.tell("volumes".to_owned(), &told);
            }
            Err(error) => tracing::debug!(error = %error.chain(), "cannot look for unused volumes"),
        }
    }

    async fn remove_interface(&mut self, id: &str) {
        match self.api.delete_network_interface(id).await {
            Ok(()) => tracing::info!(interface = id, "removed a network interface that nobody used"),
            // Used again, or gone: either is well.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConfigInvalid | ErrorKind::NotFound | ErrorKind::Conflict
                ) => {}
            Err(error) => self.tell(
                id.to_owned(),
                &format!("a network interface stays: {}", error.chain()),
            ),
        }
    }
}

fn cell(found: &types::Instance) -> Option<Cell> {
    let tags = observe::tags_of(found);
    let ranges = tags
        .get(TAG)?
        .split(' ')
        .filter_map(|text| text.parse().ok())
        .collect();
    let state = found.state().and_then(types::InstanceState::name);
    Some(Cell {
        id: found.instance_id()?.to_owned(),
        // One that is terminated has none any more, and needs none.
        subnet: found.subnet_id().unwrap_or_default().to_owned(),
        // It has the one of its launch only.
        interface: found
            .network_interfaces()
            .first()
            .and_then(|interface| interface.network_interface_id().map(str::to_owned)),
        ranges,
        is_alive: matches!(
            state,
            Some(InstanceStateName::Pending | InstanceStateName::Running)
        ),
        forwards: found.source_dest_check() == Some(false),
    })
}

fn table(found: &types::RouteTable) -> Option<Table> {
    let associations = found.associations();
    Some(Table {
        id: found.route_table_id()?.to_owned(),
        is_main: associations
            .iter()
            .any(|association| association.main() == Some(true)),
        subnets: associations
            .iter()
            .filter_map(|association| association.subnet_id().map(str::to_owned))
            .collect(),
        routes: found
            .routes()
            .iter()
            .filter_map(|route| Some((route.destination_cidr_block()?.parse().ok()?, target(route))))
            .collect(),
    })
}

fn target(route: &Route) -> Target {
    if let Some(instance) = route.instance_id() {
        return Target::Instance(instance.to_owned());
    }
    let is_dead = route.state() == Some(&RouteState::Blackhole);
    if is_dead && let Some(interface) = route.network_interface_id() {
        return Target::Nowhere(interface.to_owned());
    }
    let other = [
        route.gateway_id(),
        route.nat_gateway_id(),
        route.transit_gateway_id(),
        route.vpc_peering_connection_id(),
        route.network_interface_id(),
        route.local_gateway_id(),
        route.carrier_gateway_id(),
        route.egress_only_internet_gateway_id(),
        route.core_network_arn(),
    ];
    Target::Other(
        other
            .into_iter()
            .flatten()
            .next()
            .unwrap_or("something else")
            .to_owned(),
    )
}

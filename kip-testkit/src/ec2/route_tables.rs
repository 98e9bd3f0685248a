//! The fake's route tables.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Answer, State};
use super::wire::{Params, element, set};

/// A route table.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Whether it is the VPC's main one.
    pub is_main: bool,
    /// The subnets that name it.
    pub subnets: BTreeSet<String>,
    /// Where each range goes: the id of an instance, or of something else.
    pub routes: BTreeMap<String, String>,
}

/// All tables, by id: at first a main one and one that `subnet-b` names.
pub(super) fn usual() -> BTreeMap<String, RouteTable> {
    let local = BTreeMap::from([
        ("0.0.0.0/0".to_owned(), "igw-1".to_owned()),
        ("10.0.0.0/16".to_owned(), "local".to_owned()),
    ]);
    let table = |is_main, subnets: &[&str]| RouteTable {
        is_main,
        subnets: subnets.iter().map(|id| (*id).to_owned()).collect(),
        routes: local.clone(),
    };
    BTreeMap::from([
        ("rtb-b".to_owned(), table(false, &["subnet-b"])),
        ("rtb-main".to_owned(), table(true, &[])),
    ])
}

fn refuse(code: &str, message: impl Into<String>) -> Answer {
    Err((code.to_owned(), message.into()))
}

/// Answers CreateRoute, ReplaceRoute and DeleteRoute.
pub(super) fn change(state: &mut State, action: &str, params: &Params) -> Answer {
    let text = |name: &str| params.get(name).unwrap_or_default().to_owned();
    let (table, range) = (text("RouteTableId"), text("DestinationCidrBlock"));
    let target = text("InstanceId");
    if action != "DeleteRoute" && !state.instances.contains_key(&target) {
        let message = format!("The instance ID '{target}' does not exist");
        return refuse("InvalidInstanceID.NotFound", message);
    }
    let Some(found) = state.route_tables.get_mut(&table) else {
        let message = format!("The routeTable ID '{table}' does not exist");
        return refuse("InvalidRouteTableID.NotFound", message);
    };
    let is_there = found.routes.contains_key(&range);
    match action {
        "CreateRoute" if is_there => {
            return refuse(
                "RouteAlreadyExists",
                format!("The route identified by {range} already exists."),
            );
        }
        "CreateRoute" | "ReplaceRoute" if action == "CreateRoute" || is_there => {
            found.routes.insert(range, target);
        }
        "DeleteRoute" if is_there => {
            found.routes.remove(&range);
        }
        _ => {
            let message = format!("no route with destination-cidr-block {range} in route table {table}");
            return refuse("InvalidRoute.NotFound", message);
        }
    }
    Ok(element("return", "true"))
}

fn is_instance(target: &str) -> bool {
    target.starts_with("i-")
}

/// The network interface of an instance.
pub(super) fn interface(instance: &str) -> String {
    instance.replacen("i-", "eni-", 1)
}

/// Answers DescribeRouteTables, for one VPC.
pub(super) fn describe(state: &State) -> Answer {
    let shown = state.route_tables.iter().map(|(id, table)| {
        let routes = table.routes.iter().map(|(range, target)| {
            let is_dead = is_instance(target) && !state.is_alive(target);
            // Of an instance that is gone only its interface is left.
            let shown = match (is_instance(target), is_dead) {
                (true, true) => element("networkInterfaceId", &interface(target)),
                (true, false) => {
                    element("instanceId", target) + &element("networkInterfaceId", &interface(target))
                }
                (false, _) => element("gatewayId", target),
            };
            element("destinationCidrBlock", range)
                + &shown
                + &element("state", if is_dead { "blackhole" } else { "active" })
        });
        let mut associations: Vec<String> = table
            .subnets
            .iter()
            .map(|subnet| element("subnetId", subnet) + &element("main", "false"))
            .collect();
        if table.is_main {
            associations.push(element("main", "true"));
        }
        element("routeTableId", id)
            + &element("vpcId", "vpc-1")
            + &set("routeSet", routes)
            + &set("associationSet", associations)
    });
    Ok(set("routeTableSet", shown))
}

/// Answers ModifyInstanceAttribute for the check of sources and destinations.
pub(super) fn modify(state: &mut State, params: &Params) -> Answer {
    let id = params.get("InstanceId").unwrap_or_default().to_owned();
    if !state.instances.contains_key(&id) {
        let message = format!("The instance ID '{id}' does not exist");
        return refuse("InvalidInstanceID.NotFound", message);
    }
    match params.get("SourceDestCheck.Value") {
        Some("false") => drop(state.forwarding.insert(id)),
        Some(_) => drop(state.forwarding.remove(&id)),
        None => return refuse("InvalidParameterCombination", "No attributes specified."),
    }
    Ok(element("return", "true"))
}

//! The fake's security groups.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Answer;
use super::wire::{self, Params, element, set};

/// A security group.
#[derive(Clone, Debug, Default)]
pub struct SecurityGroup {
    /// Its name, unique in the VPC.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What may come in.
    pub ingress: BTreeSet<Ingress>,
}

/// One thing that may come in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ingress {
    /// `tcp`, `udp`, `icmp`, `-1`.
    pub protocol: String,
    /// First port, or type.
    pub from: String,
    /// Last port, or code.
    pub to: String,
    /// A CIDR or the id of a group.
    pub source: String,
}

/// All groups, by id.
pub type SecurityGroups = BTreeMap<String, SecurityGroup>;

fn refuse(code: &str, message: impl Into<String>) -> Answer {
    Err((code.to_owned(), message.into()))
}

/// Answers CreateSecurityGroup.
pub(super) fn create(groups: &mut SecurityGroups, params: &Params) -> Answer {
    let text = |name: &str| params.get(name).unwrap_or_default().to_owned();
    let (name, vpc) = (text("GroupName"), text("VpcId"));
    if groups
        .values()
        .any(|group| group.name == name && group.vpc == vpc)
    {
        let message = format!("The security group '{name}' already exists for VPC '{vpc}'");
        return refuse("InvalidGroup.Duplicate", message);
    }
    let id = format!("sg-{:017x}", groups.len() + 1);
    let group = SecurityGroup {
        name,
        vpc,
        tags: params.tags("security-group"),
        ingress: BTreeSet::new(),
    };
    groups.insert(id.clone(), group);
    Ok(element("return", "true") + &element("groupId", &id))
}

/// Answers AuthorizeSecurityGroupIngress: all of it or nothing.
pub(super) fn authorize(groups: &mut SecurityGroups, params: &Params) -> Answer {
    let id = params.get("GroupId").unwrap_or_default();
    let Some(group) = groups.get_mut(id) else {
        let message = format!("The security group '{id}' does not exist");
        return refuse("InvalidGroup.NotFound", message);
    };
    let asked = asked(params);
    if let Some(known) = asked.iter().find(|rule| group.ingress.contains(*rule)) {
        let message = format!("the specified rule \"{known:?}\" already exists");
        return refuse("InvalidPermission.Duplicate", message);
    }
    group.ingress.extend(asked);
    Ok(element("return", "true"))
}

/// Answers RevokeSecurityGroupIngress: all of it or nothing.
pub(super) fn revoke(groups: &mut SecurityGroups, params: &Params) -> Answer {
    let id = params.get("GroupId").unwrap_or_default();
    let Some(group) = groups.get_mut(id) else {
        let message = format!("The security group '{id}' does not exist");
        return refuse("InvalidGroup.NotFound", message);
    };
    let asked = asked(params);
    if asked.iter().any(|rule| !group.ingress.contains(rule)) {
        let message = "The specified rule does not exist in this security group.";
        return refuse("InvalidPermission.NotFound", message);
    }
    group.ingress.retain(|rule| !asked.contains(rule));
    Ok(element("return", "true"))
}

fn asked(params: &Params) -> BTreeSet<Ingress> {
    let mut rules = BTreeSet::new();
    for permission in params.items("IpPermissions") {
        let part = |name: &str| {
            params
                .get(&format!("{permission}{name}"))
                .unwrap_or_default()
                .to_owned()
        };
        for (list, field) in [
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("Groups", "GroupId"),
        ] {
            for source in params.items(&format!("{permission}{list}")) {
                rules.insert(Ingress {
                    protocol: part("IpProtocol"),
                    from: part("FromPort"),
                    to: part("ToPort"),
                    source: params
                        .get(&format!("{source}{field}"))
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
        }
    }
    rules
}

/// Answers DescribeSecurityGroups.
pub(super) fn describe(groups: &SecurityGroups, params: &Params) -> Answer {
    let ids = params.list("GroupId");
    if let Some(id) = ids.iter().find(|id| !groups.contains_key(*id)) {
        let message = format!("The security group '{id}' does not exist");
        return refuse("InvalidGroup.NotFound", message);
    }
    let filters = params.filters();
    let shown = groups
        .iter()
        .filter(|(id, group)| {
            (ids.is_empty() || ids.contains(id))
                && filters.iter().all(|(name, patterns)| {
                    let value = match name.as_str() {
                        "group-name" => Some(&group.name),
                        "vpc-id" => Some(&group.vpc),
                        other => other.strip_prefix("tag:").and_then(|key| group.tags.get(key)),
                    };
                    value.is_some_and(|value| patterns.iter().any(|pattern| wire::matches(pattern, value)))
                })
        })
        .map(|(id, group)| show(id, group));
    Ok(set("securityGroupInfo", shown))
}

fn show(id: &str, group: &SecurityGroup) -> String {
    let rules = group.ingress.iter().map(|rule| {
        let (list, field) = match &rule.source {
            group if group.starts_with("sg-") => ("groups", "groupId"),
            v6 if v6.contains(':') => ("ipv6Ranges", "cidrIpv6"),
            _ => ("ipRanges", "cidrIp"),
        };
        let ports = if rule.protocol == "-1" {
            String::new()
        } else {
            element("fromPort", &rule.from) + &element("toPort", &rule.to)
        };
        element("ipProtocol", &rule.protocol) + &ports + &set(list, [element(field, &rule.source)])
    });
    let tags = group
        .tags
        .iter()
        .map(|(key, value)| element("key", key) + &element("value", value));
    element("groupId", id)
        + &element("groupName", &group.name)
        + &element("vpcId", &group.vpc)
        + &set("ipPermissions", rules)
        + &set("tagSet", tags)
}

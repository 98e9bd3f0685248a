//! Who may reach instances: the rules that should be, and what makes those that are into them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range, PrefixListId, UserIdGroupPair};

use super::Cidr;

/// The agent's port. Source: `kip_cell_api`'s documentation, as with the old Kip.
pub(crate) const AGENT: i32 = 6421;
/// The last port there is.
const LAST: i32 = 65535;

/// One thing that may come in: EC2's rules taken apart, so that they can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    protocol: String,
    from: i32,
    to: i32,
    source: Source,
}

/// From where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Range(Cidr),
    Group(String),
    PrefixList(String),
}

/// The rules that should be.
///
/// Pods are reached by the VPC's own routing, so the VPC and `extra` reach every port; the agent's only the controller does. Where the
/// controller is not known to be in the VPC, its packets may come with the address of something between, such as a node that hides its
/// pods: then the agent's port is as open as the others, and the agent's TLS alone keeps strangers out.
pub(crate) fn desired(vpc: &[Cidr], extra: &[Cidr], controller: Option<IpAddr>) -> BTreeSet<Rule> {
    let controller = controller.filter(|address| vpc.iter().any(|range| range.contains(*address)));
    let mut rules = BTreeSet::new();
    let mut add = |protocol: &str, from, to, range| {
        rules.insert(Rule {
            protocol: protocol.to_owned(),
            from,
            to,
            source: Source::Range(range),
        });
    };
    for range in vpc.iter().chain(extra).copied() {
        match controller {
            Some(_) => {
                add("tcp", 0, AGENT - 1, range);
                add("tcp", AGENT + 1, LAST, range);
            }
            None => add("tcp", 0, LAST, range),
        }
        add("udp", 0, LAST, range);
        add(if range.is_v4() { "icmp" } else { "icmpv6" }, -1, -1, range);
    }
    if let Some(address) = controller {
        add("tcp", AGENT, AGENT, Cidr::of(address));
    }
    rules
}

/// What to change so that `actual` becomes `desired`: what to allow, and what to allow no longer.
pub(crate) fn changes(desired: &BTreeSet<Rule>, actual: &BTreeSet<Rule>) -> (Vec<Rule>, Vec<Rule>) {
    let only = |a: &BTreeSet<Rule>, b: &BTreeSet<Rule>| a.difference(b).cloned().collect();
    (only(desired, actual), only(actual, desired))
}

/// EC2's rules taken apart. A range that cannot be read is left out: it can neither be meant nor be changed.
pub(crate) fn rules(permissions: &[IpPermission]) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    for permission in permissions {
        let ranges = permission.ip_ranges().iter().filter_map(IpRange::cidr_ip);
        let ranges6 = permission.ipv6_ranges().iter().filter_map(Ipv6Range::cidr_ipv6);
        let groups = permission.user_id_group_pairs().iter();
        let lists = permission.prefix_list_ids().iter();
        let sources = ranges
            .chain(ranges6)
            .filter_map(|range| range.parse().ok().map(Source::Range))
            .chain(groups.filter_map(|group| group.group_id().map(|id| Source::Group(id.to_owned()))))
            .chain(
                lists.filter_map(|list| list.prefix_list_id().map(|id| Source::PrefixList(id.to_owned()))),
            );
        rules.extend(sources.map(|source| Rule {
            protocol: permission.ip_protocol().unwrap_or_default().to_owned(),
            from: permission.from_port().unwrap_or(-1),
            to: permission.to_port().unwrap_or(-1),
            source,
        }));
    }
    rules
}

/// A rule for EC2.
pub(crate) fn permission(rule: &Rule) -> IpPermission {
    let builder = IpPermission::builder().ip_protocol(&rule.protocol);
    let builder = match rule.protocol.as_str() {
        // All protocols have no ports.
        "-1" => builder,
        _ => builder.from_port(rule.from).to_port(rule.to),
    };
    match &rule.source {
        Source::Range(range) if range.is_v4() => {
            builder.ip_ranges(IpRange::builder().cidr_ip(range.to_string()).build())
        }
        Source::Range(range) => {
            builder.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(range.to_string()).build())
        }
        Source::Group(id) => builder.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).build()),
        Source::PrefixList(id) => builder.prefix_list_ids(PrefixListId::builder().prefix_list_id(id).build()),
    }
    .build()
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}-{} from ", self.protocol, self.from, self.to)?;
        match &self.source {
            Source::Range(range) => write!(f, "{range}"),
            Source::Group(id) | Source::PrefixList(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(rules: &BTreeSet<Rule>) -> Vec<String> {
        rules.iter().map(Rule::to_string).collect()
    }

    #[test]
    fn only_the_controller_reaches_the_agent_and_the_vpc_reaches_the_pods() {
        let rules = desired(&ranges(&["10.0.0.0/16"]), &[], "10.0.3.4".parse().ok());
        assert_eq!(
            shown(&rules),
            [
                "icmp -1--1 from 10.0.0.0/16",
                "tcp 0-6420 from 10.0.0.0/16",
                "tcp 6421-6421 from 10.0.3.4/32",
                "tcp 6422-65535 from 10.0.0.0/16",
                "udp 0-65535 from 10.0.0.0/16",
            ]
        );
    }

    /// A controller in an overlay network comes with its node's address: a rule for its own would lock it out of every cell.
    #[test]
    fn a_controller_that_is_not_in_the_vpc_is_not_locked_out() {
        for controller in ["192.168.7.7".parse().ok(), None] {
            let rules = desired(&ranges(&["10.0.0.0/16"]), &ranges(&["172.16.0.0/12"]), controller);
            assert_eq!(
                shown(&rules),
                [
                    "icmp -1--1 from 10.0.0.0/16",
                    "icmp -1--1 from 172.16.0.0/12",
                    "tcp 0-65535 from 10.0.0.0/16",
                    "tcp 0-65535 from 172.16.0.0/12",
                    "udp 0-65535 from 10.0.0.0/16",
                    "udp 0-65535 from 172.16.0.0/12",
                ]
            );
        }
    }

    #[test]
    fn ranges_of_ipv6_are_let_in_as_such() {
        let rules = desired(&ranges(&["10.0.0.0/16"]), &ranges(&["fd00::/8"]), None);
        assert!(shown(&rules).contains(&"icmpv6 -1--1 from fd00::/8".to_owned()));
        let v6 = rules
            .iter()
            .find(|rule| rule.protocol == "icmpv6")
            .map(permission);
        assert_eq!(v6.unwrap().ipv6_ranges().len(), 1);
    }

    /// What another hand opened is closed again, whatever it was opened for; what is right is left alone.
    #[test]
    fn exactly_what_differs_is_changed() {
        let want = desired(&ranges(&["10.0.0.0/16"]), &[], None);
        let pair = UserIdGroupPair::builder().group_id("sg-2").build();
        let list = PrefixListId::builder().prefix_list_id("pl-1").build();
        let anywhere = IpRange::builder().cidr_ip("0.0.0.0/0").build();
        let mut found: Vec<IpPermission> = want.iter().skip(1).map(permission).collect();
        let drift = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(22)
            .to_port(22)
            .user_id_group_pairs(pair)
            .prefix_list_ids(list)
            .ip_ranges(anywhere);
        found.push(drift.build());
        found.push(
            IpPermission::builder()
                .ip_protocol("-1")
                .ip_ranges(IpRange::builder().cidr_ip("10.0.0.0/8").build())
                .build(),
        );
        let (allow, forbid) = changes(&want, &rules(&found));
        assert_eq!(allow, want.iter().take(1).cloned().collect::<Vec<_>>());
        let forbid: Vec<String> = forbid.iter().map(Rule::to_string).collect();
        assert_eq!(
            forbid,
            [
                "-1 -1--1 from 10.0.0.0/8",
                "tcp 22-22 from 0.0.0.0/0",
                "tcp 22-22 from sg-2",
                "tcp 22-22 from pl-1",
            ]
        );
        assert_eq!(changes(&want, &want), (Vec::new(), Vec::new()));
    }

    /// What is sent is what is read back, or the same rule would be changed at each start.
    #[test]
    fn a_rule_survives_the_way_to_ec2_and_back() {
        let mut all = desired(
            &ranges(&["10.0.0.0/16"]),
            &ranges(&["fd00::/8"]),
            "10.0.0.1".parse().ok(),
        );
        all.insert(Rule {
            protocol: "-1".into(),
            from: -1,
            to: -1,
            source: Source::Group("sg-1".into()),
        });
        all.insert(Rule {
            protocol: "tcp".into(),
            from: 1,
            to: 2,
            source: Source::PrefixList("pl-1".into()),
        });
        let sent: Vec<IpPermission> = all.iter().map(permission).collect();
        assert_eq!(rules(&sent), all);
    }
}

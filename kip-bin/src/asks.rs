//! What a pod asks of its instance, in words, so that a choice can be understood.

use std::collections::BTreeSet;

use kip_core::model::{Bytes, PodDemand};

/// Everything beside CPU and memory, one phrase each; empty when nothing else is asked.
pub(crate) fn of(demand: &PodDemand) -> Vec<String> {
    let mut asks: Vec<String> = demand
        .extended
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let mut any_of = |what: &str, items: String| {
        if !items.is_empty() {
            asks.push(format!("{what} {items}"));
        }
    };
    any_of("GPU model", either(&demand.gpu_models));
    any_of("instance type", either(&demand.instance_types));
    any_of("architecture", either(&demand.architectures));
    any_of("zone", either(&demand.zones));
    any_of("capacity type", either(&demand.capacity_types));
    let alternatives: BTreeSet<String> = demand
        .requirements
        .iter()
        .map(|all| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(" and ")
        })
        .collect();
    any_of("labels", either(&alternatives));
    let options = &demand.options;
    if options.dedicated {
        asks.push("hardware of its own (its price has no fee for that in it)".to_owned());
    }
    if demand.elastic {
        asks.push("a smaller size where it is much cheaper".to_owned());
    }
    for (what, size) in [
        ("a root volume of", options.volume_size),
        ("local storage of", options.ephemeral_storage),
    ] {
        if size > Bytes(0) {
            asks.push(format!("{what} {size}"));
        }
    }
    if options.private_address_only {
        asks.push("no public address".to_owned());
    }
    let mut given = |what: &str, items: &BTreeSet<String>| {
        if !items.is_empty() {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            asks.push(format!("{what} {}", items.join(", ")));
        }
    };
    given("security groups", &options.security_groups);
    given("routes of", &options.routes);
    given("instance profile", &options.identity.iter().cloned().collect());
    asks
}

fn either<T: ToString>(items: &BTreeSet<T>) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" or ")
}

#[cfg(test)]
mod tests {
    use kip_core::ids::{PodRef, PodUid};
    use kip_core::model::{CapacityType, CpuMillis, Operator, Requirement};

    use super::*;

    #[test]
    fn whatever_narrows_a_choice_is_told_or_its_price_is_a_riddle() {
        let pod = PodRef {
            uid: PodUid::new("u"),
            namespace: "n".into(),
            name: "p".into(),
        };
        let mut demand = PodDemand::new(pod, CpuMillis(1), Bytes(1));
        assert!(of(&demand).is_empty());
        demand.instance_types = ["c7g.*".to_owned(), "m7g.*".to_owned()].into();
        demand.capacity_types = [CapacityType::Spot].into();
        let family = Requirement::new("family", Operator::In, ["c7g"]);
        let cpu = Requirement::new("cpu", Operator::Gt, ["3"]);
        demand.requirements = [[family, cpu].into()].into();
        demand.options.dedicated = true;
        demand.options.volume_size = Bytes::gib(20);
        demand.options.security_groups = ["sg-1".to_owned()].into();
        assert_eq!(
            of(&demand),
            [
                "instance type c7g.* or m7g.*",
                "capacity type spot",
                "labels cpu > 3 and family in (c7g)",
                "hardware of its own (its price has no fee for that in it)",
                "a root volume of 20Gi",
                "security groups sg-1",
            ]
        );
    }
}

//! Holds what a pod requires of labels against what an offering has.

use std::collections::{BTreeMap, BTreeSet};

use super::Rejection;
use crate::model::{Labels, Offering, PodDemand, Requirement};

/// Labels that every offering has by its own fields.
const OWN: [&str; 5] = [
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/instance-type",
    "karpenter.sh/capacity-type",
];

/// The reason against an offering, when it meets none of the pod's alternatives.
pub(super) fn unmet(offering: &Offering, demand: &PodDemand) -> Option<Rejection> {
    if demand.requirements.is_empty() {
        return None;
    }
    let fails = |requirement: &&Requirement| !requirement.is_met(offering.label(&requirement.key));
    let mut unmet = Vec::new();
    for alternative in &demand.requirements {
        unmet.push(alternative.iter().find(fails)?);
    }
    let has = match unmet.as_slice() {
        [only] => offering.label(&only.key).map(str::to_owned),
        _ => None,
    };
    let needs: BTreeSet<String> = unmet.into_iter().map(ToString::to_string).collect();
    Some(Rejection::Requirement {
        needs: needs.into_iter().collect::<Vec<_>>().join(" or "),
        has,
    })
}

/// All labels that any of these have. Offerings of one type share their labels, so each set is read once.
pub(super) fn labels_of(offerings: &[Offering]) -> BTreeSet<String> {
    let by_type: BTreeMap<&str, &Labels> = offerings
        .iter()
        .map(|offering| (offering.id.instance_type.as_str(), &offering.labels))
        .collect();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for labels in by_type.values() {
        known.extend(labels.keys());
    }
    known.into_iter().map(str::to_owned).collect()
}

/// A label the pod requires something of that no offering has at all.
pub(super) fn unknown<'d>(demand: &'d PodDemand, known: &BTreeSet<String>) -> Option<&'d str> {
    let requirements = demand.requirements.iter().flatten();
    let mut keys = requirements.map(|requirement| requirement.key.as_str());
    keys.find(|key| !known.contains(*key) && !is_own(key))
}

fn is_own(key: &str) -> bool {
    let beta = [
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/zone",
        "beta.kubernetes.io/instance-type",
        "kip.elotl.co/capacity-type",
    ];
    OWN.contains(&key) || beta.contains(&key)
}

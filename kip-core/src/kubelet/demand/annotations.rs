//! Reads the `pod.elotl.co/` annotations. An annotation that cannot be honoured refuses the pod: a user who asked for spot, or for a
//! size, must not get something else.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::{Refusal, route, selector};
use crate::kubelet::quantity;
use crate::model::{CapacityType, Requirement};

/// What the names of all annotations begin with that Kip reads from pods.
pub(super) const PREFIX: &str = "pod.elotl.co/";

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// An instance type, or a glob with `*`.
    pub(super) instance_type: Option<String>,
    /// What is required of the labels of the instance.
    pub(super) requirements: BTreeSet<Requirement>,
    /// Capacity types; empty when nothing is said of them.
    pub(super) capacity_types: BTreeSet<CapacityType>,
    /// Hardware that no other customer shares.
    pub(super) dedicated: bool,
    /// A smaller instance will do.
    pub(super) elastic: bool,
    /// Root volume in bytes.
    pub(super) volume_size: Option<u64>,
    /// No public address.
    pub(super) private_address_only: bool,
    /// More security groups.
    pub(super) security_groups: BTreeSet<String>,
    /// Another instance profile.
    pub(super) identity: Option<String>,
    /// Address ranges that are routed to the cell.
    pub(super) routes: BTreeSet<String>,
}

/// Annotations that are read, in the order in which users are told of them.
pub(super) const KNOWN: [&str; 10] = [
    "instance-type",
    "instance-selector",
    "launch-type",
    "fit",
    "volume-size",
    "private-ip-only",
    "security-groups",
    "instance-profile",
    "cloud-route",
    "healthcheck-healthy-timeout",
];

/// Reads them all. What is empty asks for nothing, as a template leaves it.
pub(super) fn read(pod: &Pod) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        let (Some(name), value) = (key.strip_prefix(PREFIX), value.trim()) else {
            continue;
        };
        let bad = |fix: &str| Refusal::invalid(format!("Annotation {key}: {value:?} {fix}."));
        match name {
            _ if value.is_empty() => {}
            "instance-type" => {
                let plain = |c: char| c.is_ascii_alphanumeric() || ".-_*".contains(c);
                if value.len() < 2 || !value.chars().all(plain) {
                    return Err(bad(
                        "is no instance type; write a name such as c7g.large, or a pattern such as c7g.*",
                    ));
                }
                wishes.instance_type = Some(value.to_owned());
            }
            "instance-selector" => {
                wishes.requirements = selector::parse(value).map_err(|part| {
                    Refusal::invalid(format!(
                        "Annotation {key}: {part:?} is no requirement; write it as kubectl takes selectors, such as \
                         \"karpenter.k8s.aws/instance-family in (c7g, m7g), karpenter.k8s.aws/instance-cpu > 4\"."
                    ))
                })?;
            }
            "launch-type" => {
                for word in value.split([',', ' ']).filter(|word| !word.is_empty()) {
                    match word.to_ascii_lowercase().as_str() {
                        "spot" => wishes.capacity_types.insert(CapacityType::Spot),
                        "on-demand" | "ondemand" => wishes.capacity_types.insert(CapacityType::OnDemand),
                        "reserved" => wishes.capacity_types.insert(CapacityType::Reserved),
                        "dedicated" => {
                            wishes.dedicated = true;
                            false
                        }
                        _ => {
                            return Err(bad(
                                "is no launch type; use spot, on-demand, dedicated, or several with commas between, such as \
                                 \"spot,on-demand\"",
                            ));
                        }
                    };
                }
            }
            "fit" => match value.to_ascii_lowercase().as_str() {
                "elastic" => wishes.elastic = true,
                "exact" => {}
                _ => return Err(bad("is no way to fit; use elastic or exact")),
            },
            "volume-size" => {
                let size = quantity::whole(value)
                    .map_err(|error| Refusal::invalid(format!("Annotation {key}: {error}.")))?;
                wishes.volume_size = Some(size);
            }
            "private-ip-only" => {
                wishes.private_address_only =
                    boolean(value).ok_or_else(|| bad("is neither true nor false"))?;
            }
            "security-groups" => {
                for group in value.split(',').map(str::trim).filter(|group| !group.is_empty()) {
                    if !group
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
                    {
                        return Err(bad(
                            "is no list of security groups; write their ids with commas between, such as sg-0a1b,sg-2c3d",
                        ));
                    }
                    wishes.security_groups.insert(group.to_owned());
                }
            }
            "instance-profile" => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_/:-".contains(c);
                if !value.chars().all(allowed) {
                    return Err(bad("is no instance profile; write its name or its ARN"));
                }
                wishes.identity = Some(value.to_owned());
            }
            "cloud-route" => {
                for text in value.split_whitespace() {
                    let route = route::canonical(text).ok_or_else(|| {
                        Refusal::invalid(format!(
                            "Annotation {key}: {text:?} is no address range; write it as 10.0.0.0/16, several with spaces between."
                        ))
                    })?;
                    wishes.routes.insert(route);
                }
            }
            "healthcheck-healthy-timeout" if !value.parse::<f64>().is_ok_and(f64::is_finite) => {
                return Err(bad("is no number of seconds"));
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

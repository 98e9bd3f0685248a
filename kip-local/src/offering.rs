//! What the local cloud sells.

use std::collections::BTreeSet;

use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::{InstanceType, OfferingId, Zone};
use kip_core::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, Price};
use serde::{Deserialize, Serialize};

/// The zones an offering is sold in when it does not say.
const ZONES: [&str; 2] = ["local-a", "local-b"];

/// One instance type of the local cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalOffering {
    /// Name of the instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// CPUs, as Kubernetes writes them: `250m`, `2`.
    pub cpu: String,
    /// Memory, as Kubernetes writes it: `512Mi`, `2Gi`.
    pub memory: String,
    /// US dollars per hour on demand.
    pub price: f64,
    /// US dollars per hour as spot capacity. Default: not sold as spot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot_price: Option<f64>,
    /// Zones it is sold in. Default `local-a` and `local-b`.
    #[serde(default = "zones")]
    pub zones: Vec<String>,
    /// How many instances of the type may run at once in each zone, capacity types together. Default: as many as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<usize>,
}

fn zones() -> Vec<String> {
    ZONES.map(str::to_owned).to_vec()
}

/// The list in effect, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    pub(crate) offerings: Vec<Offering>,
    limits: Vec<(String, Option<usize>)>,
}

impl Catalogue {
    pub(crate) fn new(configured: Option<&[LocalOffering]>) -> Result<Self> {
        let built_in;
        let list = match configured {
            Some(list) => list,
            None => {
                built_in = built_in_list()?;
                &built_in
            }
        };
        let invalid = |message: String| Error::new(ErrorKind::ConfigInvalid, "read price list", message);
        let architecture = architecture()?;
        let mut offerings = Vec::new();
        for one in list {
            let cpu = cpu(&one.cpu).ok_or_else(|| invalid(format!("{}: cpu", one.instance_type)))?;
            let memory =
                memory(&one.memory).ok_or_else(|| invalid(format!("{}: memory", one.instance_type)))?;
            let prices = [
                (CapacityType::OnDemand, Some(one.price)),
                (CapacityType::Spot, one.spot_price),
            ];
            for zone in &one.zones {
                for (capacity_type, amount) in prices {
                    let Some(amount) = amount else { continue };
                    let amount =
                        price(amount).ok_or_else(|| invalid(format!("{}: price", one.instance_type)))?;
                    let id = OfferingId {
                        instance_type: InstanceType::new(&one.instance_type),
                        zone: Zone::new(zone),
                        capacity_type,
                    };
                    offerings.push(Offering::new(id, architecture, cpu, memory, amount));
                }
            }
        }
        Ok(Self {
            offerings,
            limits: list
                .iter()
                .map(|one| (one.instance_type.clone(), one.capacity))
                .collect(),
        })
    }

    pub(crate) fn find(&self, id: &OfferingId) -> Option<&Offering> {
        self.offerings.iter().find(|offering| offering.id == *id)
    }

    /// How many of a type may run at once in one zone.
    pub(crate) fn limit(&self, instance_type: &InstanceType) -> Option<usize> {
        self.limits
            .iter()
            .find(|(name, _)| name == instance_type.as_str())
            .and_then(|(_, limit)| *limit)
    }
}

fn built_in_list() -> Result<Vec<LocalOffering>> {
    serde_norway::from_str(include_str!("offerings.yaml")).map_err(|source| {
        Error::new(
            ErrorKind::Unexpected,
            "read price list",
            "the built-in list is broken",
        )
        .with_source(source)
    })
}

/// All problems of a configured list, each with the field it is about.
pub(crate) fn problems(list: &[LocalOffering]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    if list.is_empty() {
        problems.push("offerings: must not be empty; leave it out for the built-in list".into());
    }
    for (i, one) in list.iter().enumerate() {
        let mut wrong = |field: &str, what: String| problems.push(format!("offerings[{i}].{field}: {what}"));
        if one.instance_type.is_empty() || one.instance_type.contains('/') {
            wrong(
                "type",
                format!("`{}` must be a name without `/`", one.instance_type),
            );
        }
        if !names.insert(&one.instance_type) {
            wrong("type", format!("`{}` is there twice", one.instance_type));
        }
        if cpu(&one.cpu).is_none_or(|cpu| cpu.0 == 0) {
            wrong("cpu", format!("`{}` must be like `250m` or `2`", one.cpu));
        }
        if memory(&one.memory).is_none_or(|memory| memory < Bytes::mib(128)) {
            wrong(
                "memory",
                format!("`{}` must be like `512Mi` or `2Gi`, at least 128Mi", one.memory),
            );
        }
        if price(one.price).is_none() {
            wrong("price", format!("{} must be dollars per hour", one.price));
        }
        if one.spot_price.is_some_and(|amount| price(amount).is_none()) {
            wrong("spotPrice", "must be dollars per hour".into());
        }
        if one.zones.is_empty() || one.zones.iter().any(|zone| zone.is_empty() || zone.contains('/')) {
            wrong("zones", "must be names without `/`".into());
        }
    }
    problems
}

fn cpu(text: &str) -> Option<CpuMillis> {
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().ok().map(CpuMillis);
    }
    text.parse::<u64>().ok()?.checked_mul(1000).map(CpuMillis)
}

fn memory(text: &str) -> Option<Bytes> {
    let (digits, factor) = if let Some(digits) = text.strip_suffix("Mi") {
        (digits, 1 << 20)
    } else if let Some(digits) = text.strip_suffix("Gi") {
        (digits, 1 << 30)
    } else {
        (text, 1)
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).map(Bytes)
}

fn price(dollars: f64) -> Option<Price> {
    let micros = (dollars * 1e6).round();
    // Within these bounds the conversion below is exact.
    if !(0.0..1e12).contains(&micros) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number from 0 to 10^12"
    )]
    let micros = micros as u64;
    Some(Price(micros))
}

fn architecture() -> Result<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Architecture::Amd64),
        "aarch64" => Ok(Architecture::Arm64),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            "start local cloud",
            format!("instances run on x86_64 and aarch64, not on {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without it `kip dev` would not start at all.
    #[test]
    fn the_built_in_list_is_sound_and_sells_both_capacity_types_in_two_zones() {
        let list = built_in_list().unwrap();
        assert_eq!(problems(&list), Vec::<String>::new());
        let catalogue = Catalogue::new(None).unwrap();
        assert_eq!(catalogue.offerings.len(), list.len() * 4);
        let nano = &catalogue.offerings[0];
        assert_eq!(nano.id.to_string(), "local.nano/local-a/on-demand");
        assert_eq!(
            (nano.cpu, nano.memory, nano.price),
            (CpuMillis(250), Bytes::mib(256), Price(2600))
        );
    }

    #[test]
    fn each_problem_of_a_configured_list_names_its_field() {
        let list: Vec<LocalOffering> = serde_norway::from_str(
            "[{type: a/b, cpu: x, memory: 1Ki, price: -1}, {type: t, cpu: '1', memory: 1Gi, price: 1, zones: []}, {type: t, cpu: '1', memory: 1Gi, price: 1}]",
        )
        .unwrap();
        let problems = problems(&list);
        for field in [
            "[0].type",
            "[0].cpu",
            "[0].memory",
            "[0].price",
            "[1].zones",
            "[2].type",
        ] {
            assert!(
                problems.iter().any(|p| p.contains(field)),
                "{field}: {problems:?}"
            );
        }
    }
}

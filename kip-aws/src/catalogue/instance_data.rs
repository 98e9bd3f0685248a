//! The old Kip's file of instance types and prices, which was given by `--instance-data-path`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kip_core::ids::InstanceType;
use kip_core::model::{Architecture, Bytes, Price};
use serde::Deserialize;

use super::{CatalogueError, Facts, Gpu, InstanceKind, PriceSource, Stamp};

/// One type. What is not used here, such as `spotPrice` and `baseline`, is let pass.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    instance_type: String,
    /// Dollars an hour, on demand.
    price: f64,
    /// GiB.
    memory: f64,
    /// vCPUs.
    cpu: f64,
    #[serde(default)]
    gpu: f64,
    #[serde(default)]
    burstable: bool,
}

/// What a file of the old Kip says about a region: only the types it names, at its prices. Their zones are those that are compiled in; a type that
/// is not known here is taken to be amd64 and sold in all zones, with the sizes of the file, and with NVIDIA's GPUs where it has some.
///
/// The file is `{"<region>": [{instanceType, price, memory, cpu, gpu, burstable, baseline, ...}]}`, memory in GiB, price in dollars an hour.
/// Baselines of burstable types are AWS's own, not the file's. `as_of` is when the file was written.
///
/// # Errors
/// [`CatalogueError::InstanceData`] when it is no such file, has nothing about the region, or a row makes no sense;
/// [`CatalogueError::UnknownRegion`] for a region of which no zones are known.
pub fn from_instance_data(json: &str, region: &str, as_of: Timestamp) -> Result<Facts, CatalogueError> {
    let failed = |problem: String| CatalogueError::InstanceData { problem };
    let regions: BTreeMap<String, Option<Vec<Row>>> = serde_json::from_str(json)
        .map_err(|error| failed(format!("is no list of instance types by region: {error}")))?;
    let rows = regions
        .get(region)
        .and_then(Option::as_ref)
        .filter(|rows| !rows.is_empty())
        .ok_or_else(|| {
            let named: Vec<&str> = regions.keys().map(String::as_str).collect();
            failed(format!(
                "has nothing about {region}, only about {}",
                named.join(", ")
            ))
        })?;
    let mut facts = Facts::seeded(region)?;
    let mut kinds = BTreeMap::new();
    let mut on_demand = BTreeMap::new();
    let mut zones = facts.zones.as_ref().clone();
    for row in rows {
        let name = InstanceType::new(&row.instance_type);
        let price = row.price().ok_or_else(|| {
            failed(format!(
                "{name}: price {} must be dollars an hour, above 0",
                row.price
            ))
        })?;
        let kind = match facts.kinds.get(&name) {
            Some(known) => known.clone(),
            None => {
                for types in zones.values_mut() {
                    types.insert(name.clone());
                }
                row.kind()
                    .ok_or_else(|| failed(format!("{name}: cpu and memory (in GiB) must be above 0")))?
            }
        };
        on_demand.insert(name.clone(), price);
        kinds.insert(name, kind);
    }
    let named: BTreeSet<&InstanceType> = kinds.keys().collect();
    for types in zones.values_mut() {
        types.retain(|name| named.contains(name));
    }
    facts.zones = Arc::new(zones);
    facts.kinds = Arc::new(kinds);
    facts.on_demand = Arc::new(on_demand);
    facts.price_source = PriceSource::File;
    facts.on_demand_stamp = Stamp::seed(as_of);
    facts.spot_stamp = Stamp::seed(as_of);
    Ok(facts)
}

impl Row {
    fn price(&self) -> Option<Price> {
        rounded(self.price * 1e6).map(Price)
    }

    fn kind(&self) -> Option<InstanceKind> {
        let memory = Bytes::mib(rounded(self.memory * 1024.0)?);
        let name = InstanceType::new(&self.instance_type);
        let mut kind = InstanceKind::new(name, Architecture::Amd64, rounded(self.cpu)?, memory);
        kind.burstable = self.burstable;
        kind.gpu = rounded(self.gpu).map(|count| Gpu::new("NVIDIA", "unknown", count, count, Bytes(0)));
        Some(kind)
    }
}

/// A whole number above zero; None for anything else, and for what no instance has.
fn rounded(number: f64) -> Option<u64> {
    let whole = number.round();
    // Digits are the one way to an integer that cannot cut anything off.
    (number.is_finite() && (1.0..1e12).contains(&whole))
        .then(|| format!("{whole:.0}").parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::offerings;

    const FILE: &str = r#"{
        "us-east-1": [
            {"instanceType": "t3.small", "price": 0.0208, "spotPrice": 0.006, "memory": 2, "cpu": 2, "gpu": 0, "burstable": true,
             "baseline": 0.4, "supportedGPUTypes": null, "generation": "current"},
            {"instanceType": "m5.large", "price": 0.07, "memory": 8, "cpu": 2},
            {"instanceType": "x99.large", "price": 0.5, "memory": 7.5, "cpu": 4, "gpu": 2}
        ],
        "eu-west-1": null
    }"#;

    fn read(json: &str, region: &str) -> Result<Facts, CatalogueError> {
        from_instance_data(json, region, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_file_of_the_old_kip_says_which_types_there_are_and_what_they_cost() {
        let facts = read(FILE, "us-east-1").unwrap();
        assert_eq!(facts.price_source, PriceSource::File);
        let all = offerings(&facts);
        let find = |id: &str| all.iter().find(|offering| offering.id.to_string() == id);
        assert!(
            find("c5.large/us-east-1a/on-demand").is_none(),
            "it is not in the file"
        );
        let m5 = find("m5.large/us-east-1a/on-demand").unwrap();
        assert_eq!(m5.price, Price(70_000));
        let new = find("x99.large/us-east-1b/on-demand").unwrap();
        assert_eq!(
            (new.price, new.memory, new.extended["nvidia.com/gpu"]),
            (Price(500_000), Bytes::mib(7680), 2)
        );
        let t3 = find("t3.small/us-east-1a/on-demand").unwrap();
        assert!(t3.baseline_cpu.is_some());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_what_is_wrong() {
        for (json, region, says) in [
            ("[]", "us-east-1", "is no list of instance types by region"),
            (FILE, "eu-west-1", "has nothing about eu-west-1"),
            (FILE, "sa-east-1", "only about eu-west-1, us-east-1"),
            (
                r#"{"us-east-1": [{"instanceType": "a.b", "price": 0, "memory": 1, "cpu": 1}]}"#,
                "us-east-1",
                "a.b: price 0 must be",
            ),
            (
                r#"{"us-east-1": [{"instanceType": "a.b", "price": 1e99, "memory": 1, "cpu": 1}]}"#,
                "us-east-1",
                "a.b: price",
            ),
            (
                r#"{"us-east-1": [{"instanceType": "a.b", "price": 1, "memory": 1, "cpu": -1}]}"#,
                "us-east-1",
                "a.b: cpu and memory",
            ),
            (
                r#"{"us-east-1": [{"instanceType": "a.b", "price": "1"}]}"#,
                "us-east-1",
                "is no list",
            ),
        ] {
            let error = read(json, region).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

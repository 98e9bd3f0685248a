//! Makes offerings of facts.

use std::collections::BTreeMap;

use kip_core::ids::{InstanceType, OfferingId, Zone};
use kip_core::model::{CapacityType, CpuMillis, Labels, Offering, Price};

use super::{Facts, InstanceKind, UsageClass, baseline, labels, spot, surplus_cpu_hour};

/// Extended resource of whole Inferentia and Trainium devices.
const NEURON_DEVICES: &str = "aws.amazon.com/neuron";
/// Extended resource of their cores.
const NEURON_CORES: &str = "aws.amazon.com/neuroncore";

/// Everything that is sold: each type in each of its zones, on demand and as spot, by zone and type. Pure.
///
/// A type without an on-demand price is left out: what it costs is not known. Spot is offered at the zone's spot price, and not where
/// EC2 tells none; at the [estimate](super::spot_estimate) while no spot price of the region is known, and where the price is below 2 % of the
/// on-demand price. Bare metal, [legacy](InstanceKind::is_legacy) types and parts of a GPU are there
/// [by name only](Offering::by_name_only).
pub fn offerings(facts: &Facts) -> Vec<Offering> {
    let mut list = Vec::new();
    // One set of labels for all offerings of a type.
    let labels_of: BTreeMap<&InstanceType, Labels> = facts
        .kinds
        .iter()
        .map(|(name, kind)| (name, labels(kind)))
        .collect();
    for (zone, names) in facts.zones.iter() {
        for kind in names.iter().filter_map(|name| facts.kinds.get(name)) {
            let labels = labels_of.get(&kind.name).cloned().unwrap_or_default();
            let offering = |capacity_type, price| {
                let mut offering = offering(kind, zone, capacity_type, price);
                offering.labels = labels.clone();
                offering
            };
            let Some(on_demand) = facts.on_demand.get(&kind.name).copied() else {
                continue;
            };
            if kind.usage.contains(&UsageClass::OnDemand) {
                list.push(offering(CapacityType::OnDemand, on_demand));
            }
            if kind.usage.contains(&UsageClass::Spot) {
                let price = match &facts.spot {
                    Some(prices) => prices
                        .get(&(kind.name.clone(), zone.clone()))
                        .map(|price| spot::believable(*price, on_demand)),
                    None => Some(spot::estimate(on_demand)),
                };
                list.extend(price.map(|price| offering(CapacityType::Spot, price)));
            }
        }
    }
    list
}

fn offering(kind: &InstanceKind, zone: &Zone, capacity_type: CapacityType, price: Price) -> Offering {
    let id = OfferingId {
        instance_type: kind.name.clone(),
        zone: zone.clone(),
        capacity_type,
    };
    let cpu = CpuMillis(kind.vcpus.saturating_mul(1000));
    let mut offering = Offering::new(id, kind.architecture, cpu, kind.memory, price);
    offering.generation = kind.generation();
    offering.dedicated = kind.can_be_dedicated();
    offering.by_name_only = kind.bare_metal || kind.is_legacy();
    if kind.burstable {
        let name = kind.name.as_str();
        // A burstable type that is not in the table yet is charged for all of its CPU rather than for too little.
        offering.baseline_cpu = Some(baseline(name).unwrap_or(CpuMillis(0)));
        offering.surplus_cpu_hour = surplus_cpu_hour(name);
    }
    if let Some(gpu) = &kind.gpu {
        offering.extended.insert(gpu.resource().to_owned(), gpu.devices);
        offering.gpu_model = Some(gpu.model.clone());
        offering.by_name_only |= gpu.is_part();
    }
    if let Some(neuron) = &kind.neuron {
        let cores = neuron.devices.saturating_mul(neuron.cores);
        offering
            .extended
            .insert(NEURON_DEVICES.to_owned(), neuron.devices);
        offering.extended.insert(NEURON_CORES.to_owned(), cores);
    }
    offering
}

//! Answers of EC2 as plain data: types, zones and spot prices. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    ArchitectureType, EphemeralNvmeSupport, InstanceTypeInfo, InstanceTypeOffering, LocationType,
    NeuronDeviceInfo, SpotPrice, UsageClassType,
};
use kip_core::ids::{InstanceType, Zone};
use kip_core::model::{Architecture, Bytes, Price};

use super::price::price;
use crate::api::catalogue::LINUX;
use crate::catalogue::{Gpu, InstanceKind, Neuron, UsageClass};

/// Makers of processors that pods can ask for.
const MAKERS: [&str; 3] = ["intel", "amd", "aws"];

/// What an element of DescribeInstanceTypes says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// A type.
    Kind(Box<InstanceKind>),
    /// A type no Linux of ours runs on, such as a Mac.
    Foreign,
    /// Not what is needed to place a pod.
    Unreadable,
}

/// Reads one type. One without name, vCPUs or memory is unreadable: a guess would place pods on what is too small.
pub(super) fn kind(info: &InstanceTypeInfo) -> Described {
    let Some(name) = info.instance_type.as_ref() else {
        return Described::Unreadable;
    };
    let architectures = info
        .processor_info
        .as_ref()
        .and_then(|processor| processor.supported_architectures.as_deref())
        .unwrap_or_default();
    let architecture = if architectures.contains(&ArchitectureType::X8664) {
        Architecture::Amd64
    } else if architectures.contains(&ArchitectureType::Arm64) {
        Architecture::Arm64
    } else if architectures.is_empty() {
        return Described::Unreadable;
    } else {
        return Described::Foreign;
    };
    let vcpus = info.v_cpu_info.as_ref().and_then(|cpu| count(cpu.default_v_cpus));
    let memory = info
        .memory_info
        .as_ref()
        .and_then(|memory| u64::try_from(memory.size_in_mib?).ok());
    let (Some(vcpus @ 1..), Some(mib @ 1..)) = (vcpus, memory) else {
        return Described::Unreadable;
    };
    let mut kind = InstanceKind::new(
        InstanceType::new(name.as_str()),
        architecture,
        vcpus,
        Bytes::mib(mib),
    );
    kind.burstable = info.burstable_performance_supported == Some(true);
    kind.bare_metal = info.bare_metal == Some(true);
    kind.current_generation = info.current_generation == Some(true);
    kind.hypervisor = info
        .hypervisor
        .as_ref()
        .map(|hypervisor| hypervisor.as_str().to_owned());
    kind.usage = info
        .supported_usage_classes
        .iter()
        .flatten()
        .filter_map(|class| match class {
            UsageClassType::OnDemand => Some(UsageClass::OnDemand),
            UsageClassType::Spot => Some(UsageClass::Spot),
            // Capacity blocks are bought in advance.
            _ => None,
        })
        .collect();
    kind.gpu = gpu(info);
    kind.neuron = info
        .neuron_info
        .as_ref()
        .and_then(|info| info.neuron_devices.as_deref()?.first())
        .and_then(neuron);
    let maker = info
        .processor_info
        .as_ref()
        .and_then(|processor| processor.manufacturer.as_deref());
    kind.cpu_maker = maker
        .map(str::to_ascii_lowercase)
        .filter(|maker| MAKERS.contains(&maker.as_str()));
    let disks = info.instance_storage_info.as_ref();
    kind.local_nvme = disks
        .and_then(|disks| disks.nvme_support.as_ref())
        .is_some_and(|support| *support != EphemeralNvmeSupport::Unsupported);
    kind.local_storage = disks
        .and_then(|storage| u64::try_from(storage.total_size_in_gb?).ok())
        .map_or(Bytes(0), |gigabytes| {
            Bytes(gigabytes.saturating_mul(1_000_000_000))
        });
    Described::Kind(Box::new(kind))
}

fn count(count: Option<i32>) -> Option<u64> {
    u64::try_from(count?).ok()
}

/// The first model listed; no type has two.
fn gpu(info: &InstanceTypeInfo) -> Option<Gpu> {
    let gpu = info.gpu_info.as_ref()?.gpus.as_deref()?.first()?;
    let whole = count(gpu.count)?;
    let devices = count(gpu.logical_gpu_count).unwrap_or(whole);
    let memory = gpu
        .memory_info
        .as_ref()
        .and_then(|memory| count(memory.size_in_mib));
    Some(Gpu::new(
        gpu.manufacturer.clone()?,
        gpu.name.clone()?,
        whole,
        devices,
        Bytes::mib(memory.unwrap_or(0)),
    ))
}

fn neuron(device: &NeuronDeviceInfo) -> Option<Neuron> {
    let cores = device
        .core_info
        .as_ref()
        .and_then(|cores| count(cores.count))
        .unwrap_or(0);
    Some(Neuron::new(device.name.clone()?, count(device.count)?, cores))
}

/// Which zone has which type; None for an element that is not about a zone.
pub(super) fn zone(offering: &InstanceTypeOffering) -> Option<(Zone, InstanceType)> {
    let is_zone = offering
        .location_type
        .as_ref()
        .is_none_or(|location| *location == LocationType::AvailabilityZone);
    let location = offering
        .location
        .as_deref()
        .filter(|location| is_zone && !location.is_empty())?;
    let name = offering.instance_type.as_ref()?.as_str();
    Some((Zone::new(location), InstanceType::new(name)))
}

/// Spot prices by type and zone.
pub(super) type SpotPrices = BTreeMap<(InstanceType, Zone), Price>;

/// The newest sound price of Linux of each type and zone, and how many elements could not be used. Of two of the same moment the higher.
pub(super) fn spot_prices(elements: &[SpotPrice]) -> (SpotPrices, usize) {
    let mut newest: BTreeMap<(InstanceType, Zone), ((i64, u32), Price)> = BTreeMap::new();
    let mut rejected = 0;
    for element in elements {
        match spot_price(element) {
            Some((place, at, price)) => {
                let known = newest.entry(place).or_insert((at, price));
                *known = (*known).max((at, price));
            }
            None => rejected += 1,
        }
    }
    let prices = newest
        .into_iter()
        .map(|(place, (_, price))| (place, price))
        .collect();
    (prices, rejected)
}

type Dated = ((InstanceType, Zone), (i64, u32), Price);

fn spot_price(element: &SpotPrice) -> Option<Dated> {
    let product = element.product_description.as_ref()?.as_str();
    let zone = element
        .availability_zone
        .as_deref()
        .filter(|zone| !zone.is_empty())?;
    let name = element.instance_type.as_ref()?.as_str();
    let at = element.timestamp.as_ref()?;
    let price = price(element.spot_price.as_deref()?)?;
    let place = (InstanceType::new(name), Zone::new(zone));
    LINUX
        .contains(&product)
        .then_some((place, (at.secs(), at.subsec_nanos()), price))
}

/// Which types each zone has, and how many elements could not be used.
pub(super) fn zones(elements: &[InstanceTypeOffering]) -> (BTreeMap<Zone, BTreeSet<InstanceType>>, usize) {
    let mut zones: BTreeMap<Zone, BTreeSet<InstanceType>> = BTreeMap::new();
    let mut rejected = 0;
    for element in elements {
        match zone(element) {
            Some((zone, name)) => drop(zones.entry(zone).or_default().insert(name)),
            None => rejected += 1,
        }
    }
    (zones, rejected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;
    use aws_sdk_ec2::types::{
        GpuDeviceInfo, GpuDeviceMemoryInfo, GpuInfo, InstanceStorageInfo, InstanceType as Name,
        InstanceTypeHypervisor, MemoryInfo, ProcessorInfo, RiProductDescription, VCpuInfo,
    };

    fn info(name: &str, architecture: &str) -> aws_sdk_ec2::types::builders::InstanceTypeInfoBuilder {
        InstanceTypeInfo::builder()
            .instance_type(Name::from(name))
            .processor_info(
                ProcessorInfo::builder()
                    .supported_architectures(ArchitectureType::from(architecture))
                    .manufacturer("Intel")
                    .build(),
            )
            .v_cpu_info(VCpuInfo::builder().default_v_cpus(4).build())
            .memory_info(MemoryInfo::builder().size_in_mib(16 << 10).build())
            .current_generation(true)
            .hypervisor(InstanceTypeHypervisor::Nitro)
            .supported_usage_classes(UsageClassType::OnDemand)
            .supported_usage_classes(UsageClassType::Spot)
    }

    #[test]
    fn all_that_places_a_pod_is_read_of_a_type() {
        let gpu = GpuDeviceInfo::builder()
            .manufacturer("NVIDIA")
            .name("T4")
            .count(1)
            .memory_info(GpuDeviceMemoryInfo::builder().size_in_mib(16 << 10).build())
            .build();
        let described = info("g4dn.xlarge", "x86_64")
            .gpu_info(GpuInfo::builder().gpus(gpu).build())
            .instance_storage_info(
                InstanceStorageInfo::builder()
                    .total_size_in_gb(125)
                    .nvme_support(EphemeralNvmeSupport::Required)
                    .build(),
            )
            .build();
        let mut expected = InstanceKind::new(
            InstanceType::new("g4dn.xlarge"),
            Architecture::Amd64,
            4,
            Bytes::gib(16),
        );
        expected.gpu = Some(Gpu::new("NVIDIA", "T4", 1, 1, Bytes::gib(16)));
        expected.local_storage = Bytes(125_000_000_000);
        expected.local_nvme = true;
        expected.cpu_maker = Some("intel".to_owned());
        assert_eq!(kind(&described), Described::Kind(Box::new(expected)));
    }

    #[test]
    fn what_kip_cannot_use_is_left_out_and_what_it_cannot_read_is_counted() {
        assert_eq!(kind(&info("mac2.metal", "arm64_mac").build()), Described::Foreign);
        for described in [
            InstanceTypeInfo::builder().build(),
            info("m5.large", "x86_64")
                .v_cpu_info(VCpuInfo::builder().build())
                .build(),
            info("m5.large", "x86_64")
                .v_cpu_info(VCpuInfo::builder().default_v_cpus(-2).build())
                .build(),
            info("m5.large", "x86_64")
                .memory_info(MemoryInfo::builder().size_in_mib(0).build())
                .build(),
        ] {
            assert_eq!(kind(&described), Described::Unreadable, "{described:?}");
        }
    }

    fn spot(zone: &str, price: &str, at: i64) -> SpotPrice {
        SpotPrice::builder()
            .instance_type(Name::from("m5.large"))
            .availability_zone(zone)
            .product_description(RiProductDescription::from("Linux/UNIX"))
            .spot_price(price)
            .timestamp(DateTime::from_secs(at))
            .build()
    }

    /// The history has old prices too: by one of them a pod would be sent where it has become dear.
    #[test]
    fn the_newest_spot_price_of_a_zone_counts() {
        let windows = {
            let mut row = spot("a", "0.001", 9);
            row.product_description = Some(RiProductDescription::from("Windows"));
            row
        };
        let (prices, rejected) = spot_prices(&[
            spot("a", "0.030", 1),
            spot("a", "0.040", 3),
            spot("a", "0.020", 2),
            spot("b", "0.050", 1),
            spot("b", "0.051", 1),
            spot("c", "0", 1),
            spot("c", "-1", 1),
            windows,
        ]);
        let found: Vec<(&str, u64)> = prices
            .iter()
            .map(|((_, zone), price)| (zone.as_str(), price.0))
            .collect();
        assert_eq!(found, [("a", 40_000), ("b", 51_000)]);
        assert_eq!(rejected, 3);
    }
}

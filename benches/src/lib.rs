//! Input for the benchmarks: a made-up catalogue and made-up pods, the same in every run.

use kip_core::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
use kip_core::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};

/// 3,000 offerings: 500 instance types in three zones, on demand and spot. Shaped like a cloud's list: families with 2, 4 and 8 GiB a
/// CPU, two architectures, sizes from 1 to 128 CPUs, some burstable, some with GPUs.
pub fn catalogue() -> Vec<Offering> {
    let mut list = Vec::with_capacity(3000);
    for family in 0..63_u64 {
        for (size, cpus) in [1_u64, 2, 4, 8, 16, 32, 64, 128].into_iter().enumerate() {
            if list.len() >= 3000 {
                return list;
            }
            let gib_per_cpu = [2, 4, 8][usize::try_from(family % 3).unwrap_or(0)];
            let arm = family % 4 == 3;
            // Families differ by a few percent, memory costs about a fifth of a CPU for each GiB, Arm is a fifth cheaper.
            let per_cpu = (20_000 + 4_000 * gib_per_cpu) * (100 + family % 17) / 100;
            let per_cpu = if arm { per_cpu * 4 / 5 } else { per_cpu };
            for zone in 0..3_u64 {
                for (capacity_type, percent) in
                    [(CapacityType::OnDemand, 100), (CapacityType::Spot, 35 + zone * 3)]
                {
                    let id = OfferingId {
                        instance_type: InstanceType::new(format!("f{family}.s{size}")),
                        zone: Zone::new(format!("zone-{zone}")),
                        capacity_type,
                    };
                    let architecture = if arm {
                        Architecture::Arm64
                    } else {
                        Architecture::Amd64
                    };
                    let mut offering = Offering::new(
                        id,
                        architecture,
                        CpuMillis(cpus * 1000),
                        Bytes::gib(cpus * gib_per_cpu),
                        Price(per_cpu * cpus * percent / 100),
                    );
                    offering.generation = u32::try_from(family % 8).unwrap_or(0);
                    if family % 16 == 0 && cpus <= 8 {
                        offering.baseline_cpu = Some(CpuMillis(cpus * 200));
                    }
                    if family % 20 == 19 {
                        offering
                            .extended
                            .insert("nvidia.com/gpu".to_owned(), cpus.div_ceil(8));
                        offering.price.0 *= 5;
                    }
                    list.push(offering);
                }
            }
        }
    }
    list
}

/// 256 pods of all kinds: from a tenth of a CPU to 100 CPUs, some tied to an architecture, a zone, spot, a type or GPUs. All fit somewhere.
pub fn demands() -> Vec<PodDemand> {
    (0..256_u64)
        .map(|n| {
            let pod = PodRef {
                uid: PodUid::new(format!("uid-{n}")),
                namespace: "default".to_owned(),
                name: format!("pod-{n}"),
            };
            let cpu = [100, 250, 500, 1000, 2000, 3500, 7000, 15_000, 30_000, 100_000];
            let cpu = cpu[usize::try_from(n % 10).unwrap_or(0)];
            let mib = cpu * [1, 2, 3, 5][usize::try_from(n / 10 % 4).unwrap_or(0)];
            let mut demand = PodDemand::new(pod, CpuMillis(cpu), Bytes::mib(mib));
            match n % 7 {
                1 => drop(demand.architectures.insert(Architecture::Arm64)),
                2 => drop(demand.zones.insert(Zone::new(format!("zone-{}", n % 3)))),
                3 => drop(demand.capacity_types.insert(CapacityType::Spot)),
                4 if cpu <= 30_000 => drop(demand.extended.insert("nvidia.com/gpu".to_owned(), 1)),
                5 => demand.instance_types = [format!("f{}.*", 2 + n % 20 * 3)].into(),
                _ => {}
            }
            demand
        })
        .collect()
}

//! Small ready-made values: offerings, demands, identities.

use kip_core::ids::{ClusterUid, InstanceType, NodeName, OfferingId, PodRef, PodUid, Zone};
use kip_core::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};

/// The cluster of the samples.
pub fn cluster() -> ClusterUid {
    ClusterUid::new("cluster-1")
}

/// The node of the samples.
pub fn node() -> NodeName {
    NodeName::new("kip-node")
}

/// An on-demand offering in zone `z1`.
pub fn offering_id(instance_type: &str) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new("z1"),
        capacity_type: CapacityType::OnDemand,
    }
}

/// `small` (2 CPU, 4 GiB), `medium` (4 CPU, 8 GiB) and `large` (8 CPU, 16 GiB), each twice as dear as the one before.
pub fn offerings() -> Vec<Offering> {
    [
        ("small", 2, 4, 10_000),
        ("medium", 4, 8, 20_000),
        ("large", 8, 16, 40_000),
    ]
    .into_iter()
    .map(|(name, cpu, memory, price)| {
        Offering::new(
            offering_id(name),
            Architecture::Amd64,
            CpuMillis(cpu * 1000),
            Bytes::gib(memory),
            Price(price),
        )
    })
    .collect()
}

/// A pod in namespace `default` whose UID is `uid-` and its name.
pub fn pod(name: &str) -> PodRef {
    PodRef {
        uid: PodUid::new(format!("uid-{name}")),
        namespace: "default".into(),
        name: name.into(),
    }
}

/// A pod that fits `small`.
pub fn demand(name: &str) -> PodDemand {
    PodDemand::new(pod(name), CpuMillis(1000), Bytes::gib(1))
}

//! What an operator may decide about sizing.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::InstanceType;
use crate::model::{Bytes, CapacityType, PodDemand, Price};

/// Memory of an instance that is not the pod's: kernel, container runtime and agent. CPU is never reserved, the agent runs at low weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReserve {
    /// Share of the instance's memory, in thousandths.
    pub permille: u16,
    /// On top of the share.
    pub fixed: Bytes,
}

impl Default for MemoryReserve {
    /// 3.5 % and 120 MiB: Kip's own default. The share stands for what firmware and kernel keep from the advertised size, the fixed
    /// part for a lean image's kernel, containerd and agent. To be replaced by measured figures per family.
    fn default() -> Self {
        Self {
            permille: 35,
            fixed: Bytes::mib(120),
        }
    }
}

impl MemoryReserve {
    /// What a pod may use of an instance with so much memory.
    pub fn usable(&self, memory: Bytes) -> Bytes {
        let share = u128::from(memory.0) * u128::from(self.permille.min(1000)) / 1000;
        // The share is at most `memory`, so it fits.
        let share = u64::try_from(share).unwrap_or(memory.0);
        Bytes(memory.0.saturating_sub(share).saturating_sub(self.fixed.0))
    }

    /// The smallest memory of an instance on which a pod may use so much.
    pub fn needed(&self, usable: Bytes) -> Bytes {
        let keeps = u128::from(1000 - self.permille.min(999));
        let needed = ((u128::from(usable.0) + u128::from(self.fixed.0)) * 1000).div_ceil(keeps);
        Bytes(u64::try_from(needed).unwrap_or(u64::MAX))
    }
}

/// What CPU a pod may count on from a burstable type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Burstable {
    /// All of it; what is asked above the baseline is added to the price as surplus credits. For instances with unlimited credits.
    #[default]
    Surplus,
    /// Its baseline. For instances with standard credits, which are slowed down when the credits are used up.
    Baseline,
    /// None: burstable types are not taken.
    Never,
}

/// What an operator may decide about sizing. The default is right for most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizingPolicy {
    /// Memory kept from the pod on every instance.
    pub reserve: MemoryReserve,
    /// Overrides by family: the part of an instance type's name before its first dot.
    pub families: BTreeMap<String, MemoryReserve>,
    /// Price of one CPU-hour used above a burstable type's baseline. Default $0.05, the surplus credit price of Linux T2, T3 and T3a
    /// instances. Source: "Unlimited mode for burstable performance instances", Amazon EC2 User Guide.
    pub surplus_cpu_hour: Price,
    /// What burstable types count for.
    pub burstable: Burstable,
    /// Instance type of a pod that asks for nothing at all. None means the cheapest.
    pub default_instance_type: Option<String>,
    /// Exact names or patterns with `*`: what pods may get that name no type themselves. Empty means all but those that are
    /// [`by_name_only`](crate::model::Offering::by_name_only).
    pub instance_types: Vec<String>,
    /// Capacity types of pods that name none. Of several the cheapest that has capacity is taken: with spot and on-demand that is spot as long
    /// as there is some. Default: on-demand.
    pub capacity_types: BTreeSet<CapacityType>,
}

impl Default for SizingPolicy {
    fn default() -> Self {
        Self {
            reserve: MemoryReserve::default(),
            families: BTreeMap::new(),
            surplus_cpu_hour: Price(50_000),
            burstable: Burstable::default(),
            default_instance_type: None,
            instance_types: Vec::new(),
            capacity_types: BTreeSet::from([CapacityType::OnDemand]),
        }
    }
}

impl SizingPolicy {
    /// Sets the reserve of all families that have no own.
    #[must_use]
    pub fn with_reserve(mut self, reserve: MemoryReserve) -> Self {
        self.reserve = reserve;
        self
    }

    /// Sets the reserve of one family.
    #[must_use]
    pub fn with_family(mut self, family: impl Into<String>, reserve: MemoryReserve) -> Self {
        self.families.insert(family.into(), reserve);
        self
    }

    /// Sets the price of one CPU-hour above a burstable type's baseline.
    #[must_use]
    pub fn with_surplus_cpu_hour(mut self, price: Price) -> Self {
        self.surplus_cpu_hour = price;
        self
    }

    /// Sets the instance type of a pod that asks for nothing at all.
    #[must_use]
    pub fn with_default_instance_type(mut self, instance_type: impl Into<String>) -> Self {
        self.default_instance_type = Some(instance_type.into());
        self
    }

    /// Sets what burstable types count for.
    #[must_use]
    pub fn with_burstable(mut self, burstable: Burstable) -> Self {
        self.burstable = burstable;
        self
    }

    /// Sets what pods may get that name no type themselves.
    #[must_use]
    pub fn with_instance_types(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.instance_types = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the capacity types of pods that name none.
    #[must_use]
    pub fn with_capacity_types(mut self, types: impl IntoIterator<Item = CapacityType>) -> Self {
        self.capacity_types = types.into_iter().collect();
        self
    }

    /// The capacity types this pod may have.
    pub(super) fn capacity_types_of<'a>(&'a self, demand: &'a PodDemand) -> &'a BTreeSet<CapacityType> {
        if demand.capacity_types.is_empty() {
            &self.capacity_types
        } else {
            &demand.capacity_types
        }
    }

    /// The reserve on an instance type.
    pub fn reserve_of(&self, instance_type: &InstanceType) -> MemoryReserve {
        let family = instance_type.as_str().split('.').next().unwrap_or_default();
        self.families.get(family).copied().unwrap_or(self.reserve)
    }
}

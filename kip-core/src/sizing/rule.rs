//! The rule itself, one offering at a time: does it fit, what does it cost, which of two is better.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::Serialize;

use super::gpu::same_model;
use super::{Avoid, Burstable, SizingPolicy, requirement};
use crate::ids::OfferingId;
use crate::model::{Bytes, CpuMillis, Offering, PodDemand, Price};

/// Why an offering is not for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
#[non_exhaustive]
pub enum Rejection {
    /// The pod insists on other instance types.
    InstanceType,
    /// A label the instance would have is not as the pod requires.
    Requirement {
        /// The requirement, as `kubectl` writes selectors; several with "or" between when the pod gave alternatives.
        needs: String,
        /// What the instance has, where there is one requirement.
        has: Option<String>,
    },
    /// It cannot be had on hardware that no other customer shares.
    NotDedicated,
    /// Only pods get it that name it, and this one does not.
    ByNameOnly,
    /// The policy takes no burstable types.
    Burstable,
    /// The pod cannot run on this architecture.
    Architecture,
    /// The pod may not run in this zone.
    Zone,
    /// The pod does not accept this way of buying.
    CapacityType,
    /// Its GPUs are of no model the pod accepts.
    GpuModel {
        /// What it has.
        has: Option<String>,
    },
    /// Too few CPUs.
    Cpu {
        /// CPUs of the instance that count.
        has: CpuMillis,
        /// CPUs the pod needs.
        needs: CpuMillis,
    },
    /// Too little memory.
    Memory {
        /// Memory of the instance.
        has: Bytes,
        /// Memory an instance needs so that the reserve leaves the pod what it asked for.
        needs: Bytes,
    },
    /// Too little of an extended resource.
    Extended {
        /// Its name.
        name: String,
        /// What the instance has.
        has: u64,
        /// What the pod needs.
        needs: u64,
    },
    /// It failed lately and is not tried again before a while.
    Avoided,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstanceType => f.write_str("not an instance type the pod asks for"),
            Self::Requirement {
                needs,
                has: Some(has),
            } => write!(f, "not {needs} (it is {has})"),
            Self::Requirement { needs, has: None } => write!(f, "not {needs}"),
            Self::NotDedicated => f.write_str("cannot be dedicated"),
            Self::ByNameOnly => f.write_str("only for pods that name its type"),
            Self::Burstable => f.write_str("burstable types are not taken"),
            Self::Architecture => f.write_str("not an architecture the pod can run on"),
            Self::Zone => f.write_str("not in a zone the pod may run in"),
            Self::CapacityType => f.write_str("not a capacity type the pod accepts"),
            Self::GpuModel { has: Some(model) } => write!(f, "no GPU model the pod accepts ({model})"),
            Self::GpuModel { has: None } => f.write_str("no GPU model the pod accepts (none)"),
            Self::Cpu { has, needs } => write!(f, "too few CPUs ({has}, needs {needs})"),
            Self::Memory { has, needs } => write!(
                f,
                "too little memory ({}, needs {} incl. reserve)",
                human(*has, false),
                human(*needs, true)
            ),
            Self::Extended { name, has, needs } => write!(f, "too little {name} ({has}, needs {needs})"),
            Self::Avoided => f.write_str("avoided for now after a failed launch"),
        }
    }
}

/// Memory for people: at most one decimal, rounded up for what is needed and down for what is there.
pub(super) fn human(bytes: Bytes, up: bool) -> String {
    for (shift, suffix) in [(40_u32, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        let unit = 1_u128 << shift;
        if u128::from(bytes.0) >= unit {
            let tenths = u128::from(bytes.0) * 10;
            let tenths = if up { tenths.div_ceil(unit) } else { tenths / unit };
            return if tenths.is_multiple_of(10) {
                format!("{}{suffix}", tenths / 10)
            } else {
                format!("{}.{}{suffix}", tenths / 10, tenths % 10)
            };
        }
    }
    bytes.to_string()
}

/// The instance types a demand insists on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Any.
    Any,
    /// The default for pods that ask for nothing.
    Default(&'a str),
    /// What the pod names.
    Named(&'a BTreeSet<String>),
}

impl<'a> Wanted<'a> {
    /// What this demand insists on.
    pub(super) fn of(policy: &'a SizingPolicy, demand: &'a PodDemand) -> Self {
        if !demand.instance_types.is_empty() {
            return Self::Named(&demand.instance_types);
        }
        let asks_nothing = demand.cpu.0 == 0
            && demand.memory.0 == 0
            && demand.extended.is_empty()
            && demand.requirements.is_empty();
        match &policy.default_instance_type {
            Some(default) if asks_nothing => Self::Default(default),
            Some(_) | None => Self::Any,
        }
    }

    /// The names and patterns; none when any will do.
    pub(super) fn patterns(self) -> impl Iterator<Item = &'a str> {
        let (default, named) = match self {
            Self::Any => (None, None),
            Self::Default(default) => (Some(default), None),
            Self::Named(named) => (None, Some(named)),
        };
        default
            .into_iter()
            .chain(named.into_iter().flatten().map(String::as_str))
    }

    /// Whether it insists on something.
    pub(super) fn is_some(self) -> bool {
        !matches!(self, Self::Any)
    }

    /// Whether a type will do.
    fn accepts(self, name: &str) -> bool {
        !self.is_some() || self.patterns().any(|pattern| glob(pattern, name))
    }
}

/// Hands every reason against an offering to `each`, until it breaks.
pub(super) fn reasons_against(
    policy: &SizingPolicy,
    offering: &Offering,
    demand: &PodDemand,
    mut each: impl FnMut(Rejection) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let wanted = Wanted::of(policy, demand);
    if !wanted.accepts(offering.id.instance_type.as_str()) {
        each(Rejection::InstanceType)?;
    }
    if !wanted.is_some() && !for_all(policy, offering) {
        each(Rejection::ByNameOnly)?;
    }
    if offering.baseline_cpu.is_some() && policy.burstable == Burstable::Never {
        each(Rejection::Burstable)?;
    }
    if !demand.architectures.is_empty() && !demand.architectures.contains(&offering.architecture) {
        each(Rejection::Architecture)?;
    }
    if !demand.zones.is_empty() && !demand.zones.contains(&offering.id.zone) {
        each(Rejection::Zone)?;
    }
    if !policy
        .capacity_types_of(demand)
        .contains(&offering.id.capacity_type)
    {
        each(Rejection::CapacityType)?;
    }
    if demand.options.dedicated && !offering.dedicated {
        each(Rejection::NotDedicated)?;
    }
    if let Some(unmet) = requirement::unmet(offering, demand) {
        each(unmet)?;
    }
    for (name, &needs) in &demand.extended {
        let has = offering.extended.get(name).copied().unwrap_or(0);
        if has < needs {
            each(Rejection::Extended {
                name: name.clone(),
                has,
                needs,
            })?;
        }
    }
    let accepted = |model: &String| demand.gpu_models.iter().any(|wanted| same_model(wanted, model));
    if !demand.gpu_models.is_empty() && !offering.gpu_model.as_ref().is_some_and(accepted) {
        each(Rejection::GpuModel {
            has: offering.gpu_model.clone(),
        })?;
    }
    let cpu = countable_cpu(policy, offering);
    if cpu < demand.cpu {
        each(Rejection::Cpu {
            has: cpu,
            needs: demand.cpu,
        })?;
    }
    let reserve = policy.reserve_of(&offering.id.instance_type);
    if reserve.usable(offering.memory) < demand.memory {
        each(Rejection::Memory {
            has: offering.memory,
            needs: reserve.needed(demand.memory),
        })?;
    }
    ControlFlow::Continue(())
}

/// Whether pods may get an offering that name no type.
pub(super) fn for_all(policy: &SizingPolicy, offering: &Offering) -> bool {
    if policy.instance_types.is_empty() {
        return !offering.by_name_only;
    }
    let name = offering.id.instance_type.as_str();
    policy.instance_types.iter().any(|pattern| glob(pattern, name))
}

/// The CPU a pod may count on.
pub(super) fn countable_cpu(policy: &SizingPolicy, offering: &Offering) -> CpuMillis {
    match (policy.burstable, offering.baseline_cpu) {
        (Burstable::Baseline, Some(baseline)) => baseline.min(offering.cpu),
        _ => offering.cpu,
    }
}

/// Whether an offering covers a demand.
pub(super) fn fits(policy: &SizingPolicy, offering: &Offering, demand: &PodDemand) -> bool {
    reasons_against(policy, offering, demand, |_| ControlFlow::Break(())).is_continue()
}

/// Whether an offering fits and is not avoided.
pub(super) fn available(
    policy: &SizingPolicy,
    offering: &Offering,
    demand: &PodDemand,
    avoid: &Avoid,
    now: Timestamp,
) -> bool {
    fits(policy, offering, demand) && !avoid.contains(&offering.id, now)
}

/// What an hour of this offering costs this pod: the list price, and on a burstable type the CPU it asks for above the baseline.
pub(super) fn effective_price(policy: &SizingPolicy, offering: &Offering, demand: &PodDemand) -> Price {
    let above = offering
        .baseline_cpu
        .map_or(0, |baseline| demand.cpu.0.saturating_sub(baseline.0));
    let rate = offering.surplus_cpu_hour.unwrap_or(policy.surplus_cpu_hour);
    let surcharge = u128::from(rate.0) * u128::from(above) / 1000;
    Price(
        offering
            .price
            .0
            .saturating_add(u64::try_from(surcharge).unwrap_or(u64::MAX)),
    )
}

/// What makes one offering better than another: cheaper, then larger memory, newer generation, name. Smaller is better.
pub(super) type Rank<'a> = (Price, Reverse<Bytes>, Reverse<u32>, &'a OfferingId);

/// The rank of an offering at a price.
pub(super) fn rank(price: Price, offering: &Offering) -> Rank<'_> {
    (
        price,
        Reverse(offering.memory),
        Reverse(offering.generation),
        &offering.id,
    )
}

/// Whether the name of an instance type matches a pattern in which `*` stands for any text.
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    // split always yields at least one part.
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty(); // No star: the whole name.
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

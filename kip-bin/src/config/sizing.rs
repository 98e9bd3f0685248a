//! The `sizing` and `orphans` sections: how offerings are chosen, and what happens to what is left over.

use std::collections::BTreeMap;
use std::time::Duration;

use kip_core::kubelet::SizingBasis;
use kip_core::model::{Bytes, CapacityType, Price};
use kip_core::plan::Policy;
use kip_core::sizing::{Burstable, MemoryReserve, SizingPolicy};
use serde::Serialize;

use super::document::Section;
use super::show;

/// How offerings are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sizing {
    /// `limits` (default): a container counts with its limit where it has one; or `requests`.
    pub(crate) basis: Basis,
    /// Memory kept from the pod on every instance. Default 3.5 percent and 120Mi.
    pub(crate) reserve: Reserve,
    /// The same for single families: the part of an instance type before its dot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) families: BTreeMap<String, Reserve>,
    /// Dollars for one CPU-hour above a burstable type's baseline. Default 0.05.
    #[serde(serialize_with = "show::micros", rename = "surplusCPUHour")]
    pub(crate) surplus_cpu_hour: u64,
    /// What CPU a pod may count on from burstable types: `surplus` (default), `baseline` or `never`.
    pub(crate) burstable: Credits,
    /// Names or patterns of instance types for pods that name none themselves. Default: all that are meant for every pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instance_types: Vec<String>,
    /// Capacity types of pods that name none themselves: `on-demand` (default), `spot`, `reserved`.
    pub(crate) capacity_types: Vec<CapacityType>,
}

/// What burstable types count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Credits {
    /// All CPU counts, and what is above the baseline is paid for.
    Surplus,
    /// The baseline counts.
    Baseline,
    /// They are not taken.
    Never,
}

impl From<Credits> for Burstable {
    fn from(credits: Credits) -> Self {
        match credits {
            Credits::Surplus => Self::Surplus,
            Credits::Baseline => Self::Baseline,
            Credits::Never => Self::Never,
        }
    }
}

/// Which of a container's two numbers counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Basis {
    /// The limit where there is one, else the request.
    Limits,
    /// The request.
    Requests,
}

impl From<Basis> for SizingBasis {
    fn from(basis: Basis) -> Self {
        match basis {
            Basis::Limits => Self::Limits,
            Basis::Requests => Self::Requests,
        }
    }
}

/// Memory that is not the pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reserve {
    /// Percent of the instance's memory, at most 50, in steps of a tenth.
    #[serde(serialize_with = "show::permille", rename = "percent")]
    permille: u16,
    /// On top of it.
    #[serde(serialize_with = "show::display")]
    fixed: Bytes,
}

impl From<Reserve> for MemoryReserve {
    fn from(reserve: Reserve) -> Self {
        Self {
            permille: reserve.permille,
            fixed: reserve.fixed,
        }
    }
}

impl Default for Sizing {
    fn default() -> Self {
        let policy = SizingPolicy::default();
        Self {
            basis: Basis::Limits,
            reserve: Reserve {
                permille: policy.reserve.permille,
                fixed: policy.reserve.fixed,
            },
            families: BTreeMap::new(),
            surplus_cpu_hour: policy.surplus_cpu_hour.0,
            burstable: Credits::Surplus,
            instance_types: Vec::new(),
            capacity_types: policy.capacity_types.into_iter().collect(),
        }
    }
}

impl Sizing {
    /// What the sizer is told.
    pub(crate) fn policy(&self, default_instance_type: Option<&str>) -> SizingPolicy {
        let mut policy = SizingPolicy::default()
            .with_reserve(self.reserve.into())
            .with_surplus_cpu_hour(Price(self.surplus_cpu_hour))
            .with_burstable(self.burstable.into())
            .with_instance_types(self.instance_types.iter().cloned())
            .with_capacity_types(self.capacity_types.iter().copied());
        for (family, reserve) in &self.families {
            policy = policy.with_family(family.clone(), (*reserve).into());
        }
        match default_instance_type {
            Some(name) => policy.with_default_instance_type(name),
            None => policy,
        }
    }
}

/// Reads `sizing`.
pub(super) fn read(section: Section<'_>) -> Sizing {
    let default = Sizing::default();
    let reserve = read_reserve(section.section("reserve"), default.reserve);
    let sizing = Sizing {
        basis: section
            .one_of(
                "basis",
                &[("limits", Basis::Limits), ("requests", Basis::Requests)],
            )
            .unwrap_or(default.basis),
        reserve,
        families: section
            .section_map("families")
            .into_iter()
            .map(|(family, section)| (family, read_reserve(section, reserve)))
            .collect(),
        surplus_cpu_hour: section
            .micros("surplusCPUHour")
            .unwrap_or(default.surplus_cpu_hour),
        burstable: section
            .one_of(
                "burstable",
                &[
                    ("surplus", Credits::Surplus),
                    ("baseline", Credits::Baseline),
                    ("never", Credits::Never),
                ],
            )
            .unwrap_or(default.burstable),
        instance_types: section.texts("instanceTypes"),
        capacity_types: read_capacity_types(&section).unwrap_or(default.capacity_types),
    };
    for pattern in &sizing.instance_types {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_*".contains(c);
        if pattern.is_empty() || !pattern.chars().all(plain) {
            section.problem(
                "instanceTypes",
                format!(
                    "{pattern:?} is no instance type; write names such as m5.large, or patterns such as m5.*"
                ),
            );
        }
    }
    section.finish();
    sizing
}

/// None when nothing is said.
fn read_capacity_types(section: &Section<'_>) -> Option<Vec<CapacityType>> {
    const KEY: &str = "capacityTypes";
    let all = [CapacityType::OnDemand, CapacityType::Spot, CapacityType::Reserved];
    let texts = section.texts(KEY);
    let mut types = Vec::new();
    for text in &texts {
        match all.into_iter().find(|one| one.as_str() == text) {
            Some(one) => types.push(one),
            None => section.problem(KEY, format!("{text:?} must be on-demand, spot or reserved")),
        }
    }
    (!types.is_empty()).then_some(types)
}

fn read_reserve(section: Section<'_>, default: Reserve) -> Reserve {
    let percent = section.thousandths("percent", 50);
    if percent.is_some_and(|thousandths| !thousandths.is_multiple_of(100)) {
        section.problem("percent", "must be in steps of 0.1");
    }
    let reserve = Reserve {
        permille: percent
            .and_then(|thousandths| u16::try_from(thousandths / 100).ok())
            .unwrap_or(default.permille),
        fixed: section.bytes("fixed").unwrap_or(default.fixed),
    };
    section.finish();
    reserve
}

/// What happens to instances and records that are left over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Orphans {
    /// Younger things are left alone. Default 2m.
    #[serde(serialize_with = "show::duration")]
    pub(crate) grace: Duration,
    /// Only log what would be done. Default false.
    pub(crate) dry_run: bool,
}

impl Default for Orphans {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            grace: policy.grace,
            dry_run: policy.dry_run,
        }
    }
}

impl Orphans {
    /// What the planner is told.
    pub(crate) fn policy(&self) -> Policy {
        Policy::default()
            .with_grace(self.grace)
            .with_dry_run(self.dry_run)
    }
}

/// Reads `orphans`.
pub(super) fn read_orphans(section: Section<'_>) -> Orphans {
    let default = Orphans::default();
    let orphans = Orphans {
        grace: section.duration("grace").unwrap_or(default.grace),
        dry_run: section.boolean("dryRun").unwrap_or(default.dry_run),
    };
    section.finish();
    orphans
}

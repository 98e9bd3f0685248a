//! The sizer Kip uses: the cheapest offering that fits.

use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::Serialize;

use super::index::Index;
use super::{Avoid, Choice, CliffAdvice, InstanceSizer, NoFit, Rejection, SizingPolicy, explain, rule};
use crate::model::{Offering, PodDemand, Price};

/// Chooses the cheapest offering that fits; ties go to larger memory, then the newer generation, then the name.
///
/// An offering fits if it covers the demand and the reserve for kernel and agent ([`SizingPolicy::reserve`]). A burstable type counts at list
/// price plus what the CPU asked for above its baseline costs. Built once per refresh, then answering in about a microsecond.
///
/// ```
/// use kip_core::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
/// use kip_core::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};
/// use kip_core::sizing::{Avoid, CheapestFit, InstanceSizer, SizingPolicy};
///
/// let offering = |name: &str, cpus: u64, gib: u64, micros: u64| {
///     let id = OfferingId {
///         instance_type: InstanceType::new(name),
///         zone: Zone::new("z1"),
///         capacity_type: CapacityType::OnDemand,
///     };
///     Offering::new(id, Architecture::Amd64, CpuMillis(cpus * 1000), Bytes::gib(gib), Price(micros))
/// };
/// let mut sizer = CheapestFit::new(SizingPolicy::default());
/// sizer.refresh(&[offering("small", 1, 2, 10_000), offering("large", 2, 8, 40_000)]);
///
/// let pod = PodRef { uid: PodUid::new("1"), namespace: "default".into(), name: "web".into() };
/// // 2Gi do not fit on an instance of 2Gi: kernel and agent need some of it.
/// let demand = PodDemand::new(pod, CpuMillis(500), Bytes::gib(2));
/// let choice = sizer.size(&demand, &Avoid::none(), jiff::Timestamp::UNIX_EPOCH)?;
/// assert_eq!(choice.offering.id.to_string(), "large/z1/on-demand");
/// # Ok::<(), kip_core::sizing::NoFit>(())
/// ```
#[derive(Debug, Default)]
pub struct CheapestFit {
    policy: SizingPolicy,
    index: Index,
}

/// An offering that was not taken, and every reason against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rejected {
    /// The offering.
    pub offering: Offering,
    /// Why not; empty when it fits and only costs more than the one taken.
    pub reasons: Vec<Rejection>,
}

impl CheapestFit {
    /// A sizer that knows no offerings yet.
    pub fn new(policy: SizingPolicy) -> Self {
        Self {
            policy,
            index: Index::default(),
        }
    }

    /// The policy it follows.
    pub fn policy(&self) -> &SizingPolicy {
        &self.policy
    }

    /// What an hour of an offering costs this pod: more than the list price where a burstable type's baseline is exceeded.
    pub fn effective_price(&self, offering: &Offering, demand: &PodDemand) -> Price {
        rule::effective_price(&self.policy, offering, demand)
    }

    /// Every offering but the one that would be taken, cheapest first, with the reasons against it. Looks at everything; for people.
    pub fn explain(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Vec<Rejected> {
        let taken = self.best(demand, avoid, now).map(|offering| &offering.id);
        let mut all: Vec<_> = self
            .index
            .offerings()
            .iter()
            .filter(|offering| Some(&offering.id) != taken)
            .collect();
        all.sort_by_key(|offering| rule::rank(self.effective_price(offering, demand), offering));
        all.into_iter()
            .map(|offering| {
                let mut reasons = Vec::new();
                // Never breaks, so it always ends by itself.
                let _ = rule::reasons_against(&self.policy, offering, demand, |reason| {
                    reasons.push(reason);
                    ControlFlow::Continue(())
                });
                if avoid.contains(&offering.id, now) {
                    reasons.push(Rejection::Avoided);
                }
                Rejected {
                    offering: offering.clone(),
                    reasons,
                }
            })
            .collect()
    }

    pub(super) fn best(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Option<&Offering> {
        self.index.best(&self.policy, demand, avoid, now)
    }
}

impl InstanceSizer for CheapestFit {
    fn refresh(&mut self, offerings: &[Offering]) {
        self.index = Index::build(&self.policy, offerings);
    }

    fn size(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Result<Choice, NoFit> {
        if demand.elastic
            && let Some(advice) = self.cliff(demand, avoid, now)
        {
            return Ok(Choice::from(advice));
        }
        match self.best(demand, avoid, now) {
            Some(offering) => Ok(Choice::new(offering.clone())),
            None => Err(explain::no_fit(&self.policy, &self.index, demand, avoid, now)),
        }
    }

    fn advice(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Option<CliffAdvice> {
        if demand.elastic {
            return None;
        }
        self.cliff(demand, avoid, now)
    }
}

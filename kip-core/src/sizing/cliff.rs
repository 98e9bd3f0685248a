//! Finds requests that lie just above a step of the price list.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::{Avoid, CheapestFit, rule};
use crate::model::{Bytes, CpuMillis, Offering, PodDemand, Price};

/// A request that is trimmed by at most so much, in thousandths ...
const TRIM_PERMILLE: u64 = 150;
/// ... is worth a word when the price falls by at least so much, in thousandths.
const SAVING_PERMILLE: u64 = 200;

/// Asking for a little less would cost much less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CliffAdvice {
    /// The cheaper offering.
    pub offering: Offering,
    /// What it costs this pod.
    pub price: Price,
    /// What the pod costs now.
    pub current_price: Price,
    /// CPU to ask for at most.
    pub cpu: CpuMillis,
    /// Memory to ask for at most.
    pub memory: Bytes,
}

impl CliffAdvice {
    /// How much of the price is saved, in whole percent.
    pub fn saving_percent(&self) -> u64 {
        let saved = self.current_price.0.saturating_sub(self.price.0);
        saved.saturating_mul(100) / self.current_price.0.max(1)
    }
}

impl fmt::Display for CliffAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "asking for at most {} CPU and {} memory would cut the price by {} %: {} at {} instead of {}",
            self.cpu,
            rule::human(self.memory, false),
            self.saving_percent(),
            self.offering.id,
            self.price,
            self.current_price,
        )
    }
}

impl CheapestFit {
    /// What the pod would save by asking for at most 15 % less, if that is at least 20 % of the price. Taking the smaller size is the
    /// user's decision ([`PodDemand::elastic`]). Pods that ask for nothing, or for which nothing fits, get none.
    pub fn cliff(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Option<CliffAdvice> {
        if demand.cpu.0 == 0 && demand.memory.0 == 0 {
            return None;
        }
        let current_price = self.effective_price(self.best(demand, avoid, now)?, demand);
        let mut trimmed = demand.clone();
        trimmed.cpu = CpuMillis(trim(demand.cpu.0));
        trimmed.memory = Bytes(trim(demand.memory.0));
        let offering = self.best(&trimmed, avoid, now)?;
        let usable = self
            .policy()
            .reserve_of(&offering.id.instance_type)
            .usable(offering.memory);
        // As little less as this offering allows.
        trimmed.cpu = demand.cpu.min(offering.cpu);
        trimmed.memory = demand.memory.min(usable);
        let price = self.effective_price(offering, &trimmed);
        let enough = price.0.saturating_mul(1000) <= current_price.0.saturating_mul(1000 - SAVING_PERMILLE);
        (enough && current_price.0 > 0).then(|| CliffAdvice {
            offering: offering.clone(),
            price,
            current_price,
            cpu: trimmed.cpu,
            memory: trimmed.memory,
        })
    }
}

/// So much less, rounded up so that it is never trimmed by more.
fn trim(amount: u64) -> u64 {
    let kept = u128::from(amount) * u128::from(1000 - TRIM_PERMILLE);
    u64::try_from(kept.div_ceil(1000)).unwrap_or(amount)
}

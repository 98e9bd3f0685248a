//! Examples for people who embed Kip: see the folder `examples` of this crate, and run one with
//! `cargo run -p examples --example embed`.

use jiff::Timestamp;
use kip_core::model::{Offering, PodDemand, Price};
use kip_core::sizing::{Avoid, CheapestFit, Choice, InstanceSizer, NoFit};

/// A sizer with an opinion of its own: the cheapest that fits, but never dearer than a limit.
#[derive(Debug)]
pub struct Thrifty {
    limit: Price,
    inner: CheapestFit,
}

impl Thrifty {
    /// Never pays more than `limit` for a pod.
    pub fn new(limit: Price) -> Self {
        Self {
            limit,
            inner: CheapestFit::default(),
        }
    }
}

impl InstanceSizer for Thrifty {
    fn refresh(&mut self, offerings: &[Offering]) {
        self.inner.refresh(offerings);
    }

    fn size(&self, demand: &PodDemand, avoid: &Avoid, now: Timestamp) -> Result<Choice, NoFit> {
        let choice = self.inner.size(demand, avoid, now)?;
        let price = self.inner.effective_price(&choice.offering, demand);
        if price <= self.limit {
            return Ok(choice);
        }
        Err(NoFit::new(
            format!(
                "the cheapest that fits is {} at {price}, but no more than {} may be paid",
                choice.offering.id, self.limit
            ),
            false,
        ))
    }
}

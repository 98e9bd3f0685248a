//! A guess at spot prices, until the cloud was asked.

use kip_core::model::Price;

/// Forty hundredths of the on-demand price.
const PERCENT: u64 = 40;

/// What spot capacity is taken to cost while no spot price of the region is known: 40 % of the on-demand price.
///
/// This is an estimate, not a figure of AWS: spot prices differ by type and zone and move; AWS promises only "up to 90 %" off. It is on the
/// careful side of what most types cost, keeps their order by on-demand price, and is the same in every zone, so that a pod that accepts
/// spot gets spot, and one that accepts both is not sent to on-demand by a guess.
pub fn estimate(on_demand: Price) -> Price {
    Price(on_demand.0.saturating_mul(PERCENT).div_ceil(100))
}

//! A guess at spot prices, until the cloud was asked.

use kip_core::model::Price;

/// Forty hundredths of the on-demand price.
const PERCENT: u64 = 40;

/// A spot price below one fiftieth of the on-demand price is not believed: AWS promises "up to 90 %" off.
const LEAST: u64 = 50;

/// A spot price of the cloud, or the [`estimate`] where it is too low to be true: spot is then sold there, but not for next to nothing, and
/// what costs next to nothing is chosen before everything else.
pub(super) fn believable(spot: Price, on_demand: Price) -> Price {
    if spot.0.saturating_mul(LEAST) < on_demand.0 {
        estimate(on_demand)
    } else {
        spot
    }
}

/// What spot capacity is taken to cost while no spot price of the region is known: 40 % of the on-demand price.
///
/// This is an estimate, not a figure of AWS: spot prices differ by type and zone and move; AWS promises only "up to 90 %" off. It is on the
/// careful side of what most types cost, keeps their order by on-demand price, and is the same in every zone, so that a pod that accepts
/// spot gets spot, and one that accepts both is not sent to on-demand by a guess.
pub fn estimate(on_demand: Price) -> Price {
    Price(on_demand.0.saturating_mul(PERCENT).div_ceil(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One broken price would send every pod that accepts spot to the largest machine there is.
    #[test]
    fn a_spot_price_of_next_to_nothing_is_not_believed() {
        let on_demand = Price(100_000);
        for (told, believed) in [
            (0, 40_000),
            (10, 40_000),
            (1_999, 40_000),
            (2_000, 2_000),
            (30_000, 30_000),
            (150_000, 150_000),
        ] {
            assert_eq!(believable(Price(told), on_demand), Price(believed), "{told}");
        }
    }
}

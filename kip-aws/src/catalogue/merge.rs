//! Puts what the cloud said in the place of what was known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use kip_core::ids::{InstanceType, Zone};
use kip_core::model::Price;

use super::{CatalogueError, Facts, InstanceKind, PriceSource, Stamp};

/// One complete answer of the cloud about a region: all pages of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Live {
    /// DescribeInstanceTypes.
    Kinds(Vec<InstanceKind>),
    /// DescribeInstanceTypeOfferings by availability zone.
    Zones(BTreeMap<Zone, BTreeSet<InstanceType>>),
    /// The Price List API: on-demand Linux prices, shared tenancy.
    OnDemandPrices(BTreeMap<InstanceType, Price>),
    /// DescribeSpotPriceHistory from now on: the price of Linux in each zone.
    SpotPrices(BTreeMap<(InstanceType, Zone), Price>),
}

/// Which part of the facts an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LivePart {
    /// The types.
    Kinds,
    /// The zones.
    Zones,
    /// The on-demand prices.
    OnDemandPrices,
    /// The spot prices.
    SpotPrices,
}

impl LivePart {
    /// All parts.
    pub const ALL: [Self; 4] = [Self::Kinds, Self::Zones, Self::OnDemandPrices, Self::SpotPrices];

    /// As a word of a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kinds => "types",
            Self::Zones => "zones",
            Self::OnDemandPrices => "on_demand_prices",
            Self::SpotPrices => "spot_prices",
        }
    }
}

impl fmt::Display for LivePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kinds => "instance types",
            Self::Zones => "zones with instance types",
            Self::OnDemandPrices => "on-demand prices",
            Self::SpotPrices => "spot prices",
        })
    }
}

impl Live {
    /// Which part it is about.
    pub fn part(&self) -> LivePart {
        match self {
            Self::Kinds(_) => LivePart::Kinds,
            Self::Zones(_) => LivePart::Zones,
            Self::OnDemandPrices(_) => LivePart::OnDemandPrices,
            Self::SpotPrices(_) => LivePart::SpotPrices,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Kinds(kinds) => kinds.is_empty(),
            Self::Zones(zones) => zones.values().all(BTreeSet::is_empty),
            Self::OnDemandPrices(prices) => prices.is_empty(),
            Self::SpotPrices(prices) => prices.is_empty(),
        }
    }
}

/// The facts with one part put anew. Pure.
///
/// Types, zones and spot prices replace what was known: what the cloud does not name any more is not sold any more. On-demand prices
/// replace those they name; a type that only the old list prices keeps that price, for the Price List API lags behind new types. A zero
/// price is taken for no price: it would always be the cheapest.
///
/// # Errors
/// [`CatalogueError::EmptyPart`] for an answer with nothing in it, which is a denied or broken answer and no region.
pub fn merge(facts: &Facts, live: Live, as_of: Timestamp) -> Result<Facts, CatalogueError> {
    if live.is_empty() {
        return Err(CatalogueError::EmptyPart {
            part: live.part(),
            region: facts.region.clone(),
        });
    }
    let mut facts = facts.clone();
    let stamp = Stamp::live(as_of);
    match live {
        Live::Kinds(kinds) => {
            let named = kinds.into_iter().map(|kind| (kind.name.clone(), kind));
            facts.kinds = Arc::new(named.collect());
            facts.kinds_stamp = stamp;
        }
        Live::Zones(zones) => {
            facts.zones = Arc::new(zones);
            facts.zones_stamp = stamp;
        }
        Live::OnDemandPrices(prices) => {
            let mut known = facts.on_demand.as_ref().clone();
            known.extend(prices.into_iter().filter(|(_, price)| price.0 > 0));
            facts.on_demand = Arc::new(known);
            facts.on_demand_stamp = stamp;
            facts.price_source = PriceSource::Live;
        }
        Live::SpotPrices(prices) => {
            let sound = prices.into_iter().filter(|(_, price)| price.0 > 0);
            facts.spot = Some(Arc::new(sound.collect()));
            facts.spot_stamp = stamp;
        }
    }
    Ok(facts)
}

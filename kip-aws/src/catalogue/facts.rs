//! What is known of a region at one time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kip_core::ids::{InstanceType, Zone};
use kip_core::model::Price;

use super::{CatalogueError, InstanceKind, LivePart, Seed};

/// Where a part is from, and of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamp {
    /// Whether the cloud said it to this controller.
    pub live: bool,
    /// When it was true.
    pub as_of: Timestamp,
}

impl Stamp {
    /// What is compiled in, of a day.
    pub fn seed(as_of: Timestamp) -> Self {
        Self { live: false, as_of }
    }

    /// What the cloud said at a time.
    pub fn live(as_of: Timestamp) -> Self {
        Self { live: true, as_of }
    }

    /// Seconds since then, for a metric; 0 for a time still to come.
    pub fn age_seconds(&self, now: Timestamp) -> u64 {
        u64::try_from(now.as_second().saturating_sub(self.as_of.as_second())).unwrap_or(0)
    }
}

/// Where on-demand prices are from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PriceSource {
    /// The public list of this region, compiled in.
    List,
    /// The public list of another region: which type is cheaper is nearly the same everywhere, the amounts are not.
    OtherRegion(String),
    /// A file of the operator's.
    File,
    /// The cloud.
    Live,
}

/// What is known of a region at one time. Parts are shared between versions, so a new one costs only what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The region.
    pub region: String,
    /// Types by name.
    pub kinds: Arc<BTreeMap<InstanceType, InstanceKind>>,
    /// Which types each zone has.
    pub zones: Arc<BTreeMap<Zone, BTreeSet<InstanceType>>>,
    /// On-demand prices of Linux. Types without one are not offered.
    pub on_demand: Arc<BTreeMap<InstanceType, Price>>,
    /// Spot prices of Linux by type and zone; None while they are only guessed at.
    pub spot: Option<Arc<BTreeMap<(InstanceType, Zone), Price>>>,
    /// Where on-demand prices are from.
    pub price_source: PriceSource,
    /// Of when the types are.
    pub kinds_stamp: Stamp,
    /// Of when the zones are.
    pub zones_stamp: Stamp,
    /// Of when the on-demand prices are.
    pub on_demand_stamp: Stamp,
    /// Of when the spot prices are; of a guess, of when the prices are that it is made from.
    pub spot_stamp: Stamp,
}

impl Facts {
    /// What is compiled in about a region.
    ///
    /// # Errors
    /// [`CatalogueError::UnknownRegion`], or a broken seed.
    pub fn seeded(region: &str) -> Result<Self, CatalogueError> {
        let seed = Seed::get()?;
        let place = seed.region(region)?;
        let mut zones: BTreeMap<Zone, BTreeSet<InstanceType>> = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        let mut on_demand = BTreeMap::new();
        for seeded in &seed.kinds {
            let name = &seeded.kind.name;
            let mut sold = false;
            for zone in seeded.zones(seed, place) {
                zones.entry(zone.clone()).or_default().insert(name.clone());
                sold = true;
            }
            if sold {
                kinds.insert(name.clone(), seeded.kind.clone());
                if let Some(price) = seeded.price {
                    on_demand.insert(name.clone(), price);
                }
            }
        }
        let (types, prices) = (Stamp::seed(seed.types_time()), Stamp::seed(seed.prices_time()));
        let price_source = if region == seed.price_region {
            PriceSource::List
        } else {
            PriceSource::OtherRegion(seed.price_region.clone())
        };
        Ok(Self {
            region: region.to_owned(),
            kinds: Arc::new(kinds),
            zones: Arc::new(zones),
            on_demand: Arc::new(on_demand),
            spot: None,
            price_source,
            kinds_stamp: types,
            zones_stamp: types,
            on_demand_stamp: prices,
            spot_stamp: prices,
        })
    }

    /// What is compiled in about a region; of one that is newer than this program, all types at the prices of another region, and no zone that has
    /// them: those must be asked for.
    ///
    /// # Errors
    /// A broken seed.
    pub fn seeded_or_new(region: &str) -> Result<Self, CatalogueError> {
        match Self::seeded(region) {
            Err(CatalogueError::UnknownRegion { .. }) => {}
            known => return known,
        }
        let seed = Seed::get()?;
        let named = |seeded: &super::SeededKind| (seeded.kind.name.clone(), seeded.kind.clone());
        let priced = |seeded: &super::SeededKind| Some((seeded.kind.name.clone(), seeded.price?));
        let (types, prices) = (Stamp::seed(seed.types_time()), Stamp::seed(seed.prices_time()));
        Ok(Self {
            region: region.to_owned(),
            kinds: Arc::new(seed.kinds.iter().map(named).collect()),
            zones: Arc::default(),
            on_demand: Arc::new(seed.kinds.iter().filter_map(priced).collect()),
            spot: None,
            price_source: PriceSource::OtherRegion(seed.price_region.clone()),
            kinds_stamp: types,
            zones_stamp: types,
            on_demand_stamp: prices,
            spot_stamp: prices,
        })
    }

    /// Of when a part is.
    pub fn stamp(&self, part: LivePart) -> Stamp {
        match part {
            LivePart::Kinds => self.kinds_stamp,
            LivePart::Zones => self.zones_stamp,
            LivePart::OnDemandPrices => self.on_demand_stamp,
            LivePart::SpotPrices => self.spot_stamp,
        }
    }

    /// How many types are sold in some zone and have an on-demand price.
    pub fn priced(&self) -> usize {
        self.kinds
            .keys()
            .filter(|name| self.on_demand.contains_key(*name))
            .count()
    }
}

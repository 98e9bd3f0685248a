//! What can be bought: of all that EC2 sells, what has a subnet in its zone and a boot image for its architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use arc_swap::ArcSwapOption;
use kip_core::error::{Error, ErrorKind, Result, Retry};
use kip_core::ids::{OfferingId, Zone};
use kip_core::model::{Architecture, CapacityType, Offering};

use crate::catalogue::{Catalogue, LivePart, Seed};

/// Where the offerings are from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From a catalogue, which may change.
    Catalogue(Arc<Catalogue>),
    /// From the caller.
    Fixed(Vec<Offering>),
}

/// What can be bought now.
#[derive(Debug)]
pub(crate) struct Sold {
    source: Source,
    zones: BTreeSet<Zone>,
    architectures: BTreeSet<Architecture>,
    current: ArcSwapOption<List>,
    /// Held by whoever makes the next list.
    making: Mutex<()>,
}

/// What could be bought at one time.
#[derive(Debug, Default)]
pub(crate) struct List {
    version: u64,
    by_id: BTreeMap<OfferingId, Offering>,
}

impl List {
    /// All of it.
    pub(crate) fn offerings(&self) -> impl Iterator<Item = &Offering> {
        self.by_id.values()
    }

    /// One offering.
    pub(crate) fn find(&self, id: &OfferingId) -> Option<&Offering> {
        self.by_id.get(id)
    }
}

impl Sold {
    pub(crate) fn new(source: Source, zones: BTreeSet<Zone>, architectures: BTreeSet<Architecture>) -> Self {
        Self {
            source,
            zones,
            architectures,
            current: ArcSwapOption::empty(),
            making: Mutex::default(),
        }
    }

    /// What can be bought now. Made anew only when the catalogue has changed; meanwhile others get the list before.
    pub(crate) fn list(&self) -> Arc<List> {
        let snapshot = match &self.source {
            Source::Catalogue(catalogue) => Some(catalogue.snapshot()),
            Source::Fixed(_) => None,
        };
        let version = snapshot.as_ref().map_or(0, |snapshot| snapshot.version());
        let known = self.current.load_full();
        if let Some(list) = known.as_ref().filter(|list| list.version >= version) {
            return Arc::clone(list);
        }
        let _making = match (self.making.try_lock(), known) {
            (Ok(making), _) => making,
            (Err(TryLockError::WouldBlock), Some(before)) => return before,
            // The first list has to be waited for; one that panicked while making stored it or did not.
            (Err(_), _) => self.making.lock().unwrap_or_else(PoisonError::into_inner),
        };
        // Somebody else may have made it while this one waited.
        if let Some(list) = self.current.load_full().filter(|list| list.version >= version) {
            return list;
        }
        let offerings = match (&snapshot, &self.source) {
            (Some(snapshot), _) => snapshot.offerings(),
            (None, Source::Fixed(offerings)) => offerings,
            (None, Source::Catalogue(_)) => &[],
        };
        let list = Arc::new(self.launchable(version, offerings));
        self.current.store(Some(Arc::clone(&list)));
        list
    }

    /// The architecture of what is to be launched, whether it is still offered or not: a launch whose answer was lost is repeated with the
    /// same offering, also after prices changed or by a controller that was started since.
    ///
    /// # Errors
    /// `InvalidRequest` for what was never sold here; `Unavailable`, to ask again, while EC2 has not told yet which types there are.
    pub(crate) fn architecture(&self, id: &OfferingId) -> Result<Architecture> {
        if let Some(offering) = self.list().find(id) {
            return Ok(offering.architecture);
        }
        let failed = |kind, message: &str| Error::new(kind, "launch", message).with_context("offering", id);
        // It was when the pod was placed; what is sold now may fit as well.
        let not_sold =
            || failed(ErrorKind::InvalidRequest, "this is not sold here").with_retry(Retry::Elsewhere);
        let Source::Catalogue(catalogue) = &self.source else {
            return Err(not_sold());
        };
        if !self.zones.contains(&id.zone)
            || !matches!(id.capacity_type, CapacityType::OnDemand | CapacityType::Spot)
        {
            return Err(not_sold());
        }
        let snapshot = catalogue.snapshot();
        let now = snapshot.facts().kinds.get(&id.instance_type);
        let before = || {
            let seed = Seed::get().ok()?;
            let place = seed
                .kinds
                .binary_search_by(|seeded| seeded.kind.name.cmp(&id.instance_type));
            seed.kinds.get(place.ok()?).map(|seeded| &seeded.kind)
        };
        match now.or_else(before) {
            Some(kind) => Ok(kind.architecture),
            None if snapshot.stamp(LivePart::Kinds).live => Err(not_sold()),
            None => Err(failed(
                ErrorKind::Unavailable,
                "it is not known yet which instance types there are",
            )),
        }
    }

    fn launchable(&self, version: u64, offerings: &[Offering]) -> List {
        let by_id = offerings
            .iter()
            .filter(|offering| {
                self.zones.contains(&offering.id.zone)
                    && self.architectures.contains(&offering.architecture)
                    && matches!(
                        offering.id.capacity_type,
                        CapacityType::OnDemand | CapacityType::Spot
                    )
            })
            .map(|offering| (offering.id.clone(), offering.clone()))
            .collect();
        List { version, by_id }
    }

    /// The zones that have a subnet and the architectures that have an image, for people.
    pub(crate) fn limits(&self) -> (String, String) {
        let zones: Vec<&str> = self.zones.iter().map(Zone::as_str).collect();
        let architectures: Vec<String> = self.architectures.iter().map(Architecture::to_string).collect();
        (zones.join(", "), architectures.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{InstanceKind, Live};
    use crate::testing::offering;
    use kip_core::model::{Bytes, CpuMillis, Price};

    /// An offering that cannot be launched would be chosen again and again for being cheap.
    #[test]
    fn only_what_can_be_launched_is_offered() {
        let offered = |kind: &str, zone: &str, architecture, capacity_type| {
            let mut id = offering(kind, capacity_type);
            id.zone = Zone::new(zone);
            Offering::new(id, architecture, CpuMillis(2000), Bytes::gib(2), Price(1))
        };
        use Architecture::{Amd64, Arm64};
        use CapacityType::{OnDemand, Reserved, Spot};
        let all = vec![
            offered("t3.small", "us-east-1a", Amd64, OnDemand),
            offered("t3.small", "us-east-1a", Amd64, Spot),
            offered("t3.small", "us-east-1a", Amd64, Reserved),
            offered("t3.small", "us-east-1b", Amd64, OnDemand),
            offered("t4g.small", "us-east-1a", Arm64, OnDemand),
        ];
        let zones = BTreeSet::from([Zone::new("us-east-1a")]);
        let sold = Sold::new(Source::Fixed(all), zones, BTreeSet::from([Amd64]));
        let list = sold.list();
        let left: Vec<String> = list.offerings().map(|offering| offering.id.to_string()).collect();
        assert_eq!(
            left,
            ["t3.small/us-east-1a/on-demand", "t3.small/us-east-1a/spot"]
        );
        assert!(Arc::ptr_eq(&list, &sold.list()), "it is not made anew each time");
    }

    /// Pods are placed while the list is made of new prices.
    #[test]
    fn who_comes_while_the_next_list_is_made_gets_the_one_before() {
        let catalogue = Arc::new(Catalogue::seeded("us-east-1").unwrap());
        let zones = BTreeSet::from([Zone::new("us-east-1a")]);
        let source = Source::Catalogue(Arc::clone(&catalogue));
        let sold = Sold::new(source, zones, BTreeSet::from([Architecture::Amd64]));
        let before = sold.list();
        let kind = InstanceKind::new(
            kip_core::ids::InstanceType::new("m5.large"),
            Architecture::Amd64,
            2,
            Bytes::gib(8),
        );
        catalogue
            .update(Live::Kinds(vec![kind]), jiff::Timestamp::UNIX_EPOCH)
            .unwrap();
        let making = sold.making.lock().unwrap();
        assert!(Arc::ptr_eq(&before, &sold.list()));
        drop(making);
        assert_eq!(sold.list().offerings().count(), 2, "then there is the new one");
    }

    #[test]
    fn the_compiled_in_catalogue_is_offered_where_there_are_subnets() {
        let catalogue = Arc::new(Catalogue::seeded("us-east-1").unwrap());
        let zones = BTreeSet::from([Zone::new("us-east-1b")]);
        let sold = Sold::new(
            Source::Catalogue(catalogue),
            zones,
            BTreeSet::from([Architecture::Arm64]),
        );
        let list = sold.list();
        assert!(list.offerings().count() > 100);
        assert!(
            list.offerings()
                .all(|offering| offering.id.zone.as_str() == "us-east-1b"
                    && offering.architecture == Architecture::Arm64)
        );
    }

    /// The first call may have launched an instance: refusing its repeat would lose it.
    #[test]
    fn a_launch_can_be_repeated_after_its_offering_is_gone() {
        let catalogue = Arc::new(Catalogue::seeded("us-east-1").unwrap());
        let zones = BTreeSet::from([Zone::new("us-east-1a")]);
        let architectures = BTreeSet::from([Architecture::Amd64, Architecture::Arm64]);
        let sold = Sold::new(Source::Catalogue(Arc::clone(&catalogue)), zones, architectures);
        let id = |kind: &str, zone: &str| {
            let mut id = offering(kind, CapacityType::Spot);
            id.zone = Zone::new(zone);
            id
        };
        let kind_of = |id: OfferingId| sold.architecture(&id).map_err(|error| error.kind());
        assert_eq!(kind_of(id("z9.large", "us-east-1a")), Err(ErrorKind::Unavailable));
        let left = InstanceKind::new(
            kip_core::ids::InstanceType::new("z8.large"),
            Architecture::Arm64,
            2,
            Bytes::gib(2),
        );
        catalogue
            .update(Live::Kinds(vec![left]), jiff::Timestamp::UNIX_EPOCH)
            .unwrap();
        for (kind, architecture) in [
            ("z8.large", Architecture::Arm64),
            ("m5.large", Architecture::Amd64),
        ] {
            let id = id(kind, "us-east-1a");
            assert!(sold.list().find(&id).is_none(), "{kind} is not offered now");
            assert_eq!(kind_of(id), Ok(architecture));
        }
        for never in [id("z9.large", "us-east-1a"), id("m5.large", "us-east-1z")] {
            assert_eq!(kind_of(never), Err(ErrorKind::InvalidRequest));
        }
    }
}

//! The compiled-in data, and what is made of it.

use std::collections::BTreeSet;

use kip_aws::catalogue::{Catalogue, CatalogueError, Facts, PriceSource, Seed, UsageClass, offerings};
use kip_core::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, Price};

fn named<'o>(list: &'o [Offering], id: &str) -> &'o Offering {
    list.iter()
        .find(|offering| offering.id.to_string() == id)
        .unwrap_or_else(|| panic!("{id} is not offered"))
}

/// Without it no pod could be placed before the cloud has answered, or at all without its permissions.
#[test]
fn the_compiled_in_data_loads_and_is_as_large_and_as_new_as_it_says() {
    let seed = Seed::get().unwrap();
    assert_eq!(seed.types_date.to_string(), "2026-10-27");
    assert_eq!(
        (seed.price_region.as_str(), seed.prices_date.to_string().as_str()),
        ("us-east-1", "2026-07-20")
    );
    assert_eq!(seed.regions.len(), 30);
    // moto has 1,395 types; nine of them run only macOS.
    assert_eq!(seed.kinds.len(), 1386);
    assert_eq!(seed.kinds.iter().filter(|one| one.price.is_some()).count(), 1340);
    assert!(
        Seed::packed_bytes() <= 150 * 1024,
        "{} bytes",
        Seed::packed_bytes()
    );
    let names: BTreeSet<_> = seed.kinds.iter().map(|one| &one.kind.name).collect();
    assert_eq!(names.len(), seed.kinds.len(), "each type once");
    for seeded in &seed.kinds {
        let kind = &seeded.kind;
        assert!(kind.vcpus > 0 && kind.memory > Bytes(0), "{kind:?}");
        assert!(kind.usage.contains(&UsageClass::OnDemand), "{kind:?}");
        assert!(kind.hypervisor.is_some() != kind.bare_metal, "{kind:?}");
        if kind.burstable && seeded.price.is_some() {
            assert!(
                kip_aws::catalogue::baseline(kind.name.as_str()).is_some(),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn prices_are_those_of_the_public_list() {
    let list = offerings(&Facts::seeded("us-east-1").unwrap());
    for (name, micros) in [
        ("m5.large", 96_000),
        ("c5a.large", 77_000),
        ("t3a.nano", 4_700),
        ("g4dn.xlarge", 526_000),
        ("c6g.metal", 2_306_600),
        ("m5.24xlarge", 4_608_000),
    ] {
        let offering = named(&list, &format!("{name}/us-east-1a/on-demand"));
        assert_eq!(offering.price, Price(micros), "{name}");
    }
}

#[test]
fn an_offering_says_all_that_a_pod_may_ask_for() {
    let list = offerings(&Facts::seeded("us-east-1").unwrap());
    let t4g = named(&list, "t4g.small/us-east-1a/on-demand");
    assert_eq!(t4g.architecture, Architecture::Arm64);
    assert_eq!(
        (t4g.baseline_cpu, t4g.surplus_cpu_hour),
        (Some(CpuMillis(400)), Some(Price(40_000)))
    );
    let g4dn = named(&list, "g4dn.12xlarge/us-east-1a/on-demand");
    assert_eq!(
        (g4dn.extended.get("nvidia.com/gpu"), g4dn.gpu_model.as_deref()),
        (Some(&4), Some("T4"))
    );
    assert_eq!(
        (g4dn.cpu, g4dn.memory, g4dn.generation),
        (CpuMillis(48_000), Bytes::gib(192), 4)
    );
    let inf2 = named(&list, "inf2.xlarge/us-east-1a/on-demand");
    assert_eq!(inf2.extended.get("aws.amazon.com/neuron"), Some(&1));
    assert_eq!(inf2.extended.get("aws.amazon.com/neuroncore"), Some(&2));
    for surprise in ["c6g.metal", "m1.small", "g6f.large"] {
        assert!(
            named(&list, &format!("{surprise}/us-east-1b/on-demand")).by_name_only,
            "{surprise}"
        );
    }
    assert!(!named(&list, "m5.large/us-east-1a/on-demand").by_name_only);
}

#[test]
fn spot_is_guessed_below_on_demand_and_only_where_it_is_sold() {
    let facts = Facts::seeded("us-east-1").unwrap();
    let list = offerings(&facts);
    assert_eq!(named(&list, "m5.large/us-east-1a/spot").price, Price(38_400));
    for offering in list
        .iter()
        .filter(|offering| offering.id.capacity_type == CapacityType::Spot)
    {
        let usage = &facts.kinds[&offering.id.instance_type].usage;
        assert!(usage.contains(&UsageClass::Spot), "{}", offering.id);
    }
}

#[test]
fn each_region_has_its_own_zones_and_says_whose_prices_it_shows() {
    let seed = Seed::get().unwrap();
    for region in &seed.regions {
        let facts = Facts::seeded(&region.name).unwrap();
        let list = offerings(&facts);
        let zones: BTreeSet<_> = list.iter().map(|offering| offering.id.zone.clone()).collect();
        assert_eq!(zones, region.zones.iter().cloned().collect(), "{}", region.name);
        assert!(facts.priced() > 200, "{}: {}", region.name, facts.priced());
        let ids: BTreeSet<_> = list.iter().map(|offering| &offering.id).collect();
        assert_eq!(ids.len(), list.len(), "{}: each offering once", region.name);
        let own = region.name == seed.price_region;
        assert_eq!(facts.price_source == PriceSource::List, own, "{}", region.name);
    }
}

#[test]
fn a_region_that_is_not_known_is_refused_with_those_that_are() {
    let error = Catalogue::seeded("us-east-9").unwrap_err();
    assert!(matches!(error, CatalogueError::UnknownRegion { .. }));
    let message = error.to_string();
    assert!(
        message.starts_with("region: \"us-east-9\" is not known; known are af-south-1, "),
        "{message}"
    );
    assert!(message.contains("us-east-1, us-east-2"), "{message}");
    let kip = kip_core::Error::from(error);
    assert_eq!(kip.kind(), kip_core::ErrorKind::ConfigInvalid);
}

//! What the cloud says takes the place of what was known, part by part, and nothing is lost when it says nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kip_aws::catalogue::{
    Catalogue, CatalogueError, Facts, InstanceKind, Live, LivePart, PriceSource, merge, offerings,
};
use kip_core::ids::{InstanceType, Zone};
use kip_core::model::{Architecture, Bytes, Price};
use proptest::prelude::*;

const LATER: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn seeded() -> Facts {
    Facts::seeded("us-east-1").expect("the seed has us-east-1")
}

fn name(text: &str) -> InstanceType {
    InstanceType::new(text)
}

fn prices(facts: &Facts, id: &str) -> Option<Price> {
    offerings(facts)
        .into_iter()
        .find(|offering| offering.id.to_string() == id)
        .map(|offering| offering.price)
}

#[test]
fn a_live_price_counts_and_types_it_does_not_name_keep_the_list_s() {
    let live = Live::OnDemandPrices(BTreeMap::from([
        (name("m5.large"), Price(101_000)),
        (name("c5.large"), Price(0)),
        (name("r9g.large"), Price(80_000)),
    ]));
    let facts = merge(&seeded(), live, LATER).unwrap();
    assert_eq!(
        prices(&facts, "m5.large/us-east-1a/on-demand"),
        Some(Price(101_000))
    );
    assert_eq!(
        prices(&facts, "m5.large/us-east-1a/spot"),
        Some(Price(40_400)),
        "the guess follows"
    );
    assert_eq!(
        prices(&facts, "m5.xlarge/us-east-1a/on-demand"),
        Some(Price(192_000))
    );
    assert_eq!(
        prices(&facts, "c5.large/us-east-1a/on-demand"),
        Some(Price(85_000)),
        "zero is no price"
    );
    assert_eq!(facts.price_source, PriceSource::Live);
    assert!(facts.on_demand_stamp.live && !facts.kinds_stamp.live);
    let sold_now = offerings(&facts)
        .iter()
        .any(|offering| offering.id.instance_type == name("r9g.large"));
    assert!(sold_now, "a type whose price was not known is sold once it is");
}

#[test]
fn a_spot_price_is_the_zone_s_and_without_one_there_is_no_spot() {
    let (a, b) = (Zone::new("us-east-1a"), Zone::new("us-east-1b"));
    let live = Live::SpotPrices(BTreeMap::from([
        ((name("m5.large"), a.clone()), Price(30_000)),
        ((name("m5.large"), b), Price(20_000)),
        ((name("m5.xlarge"), a), Price(0)),
    ]));
    let facts = merge(&seeded(), live, LATER).unwrap();
    assert_eq!(prices(&facts, "m5.large/us-east-1a/spot"), Some(Price(30_000)));
    assert_eq!(prices(&facts, "m5.large/us-east-1b/spot"), Some(Price(20_000)));
    assert_eq!(prices(&facts, "m5.large/us-east-1c/spot"), None);
    assert_eq!(prices(&facts, "m5.xlarge/us-east-1a/spot"), None);
}

#[test]
fn what_the_cloud_does_not_name_any_more_is_not_sold_any_more() {
    let kind = InstanceKind::new(name("m5.large"), Architecture::Amd64, 2, Bytes::gib(8));
    let facts = merge(&seeded(), Live::Kinds(vec![kind]), LATER).unwrap();
    let types: BTreeSet<_> = offerings(&facts)
        .into_iter()
        .map(|o| o.id.instance_type)
        .collect();
    assert_eq!(types, BTreeSet::from([name("m5.large")]));

    let zones = BTreeMap::from([(
        Zone::new("us-east-1z"),
        BTreeSet::from([name("m5.large"), name("c5.large")]),
    )]);
    let facts = merge(&facts, Live::Zones(zones), LATER).unwrap();
    let ids: Vec<_> = offerings(&facts).iter().map(|o| o.id.to_string()).collect();
    assert_eq!(ids, ["m5.large/us-east-1z/on-demand", "m5.large/us-east-1z/spot"]);
}

/// A denied call that looks like an empty answer must not empty the catalogue: no pod could be placed.
#[test]
fn an_empty_answer_is_refused_and_the_last_good_copy_stays_with_its_age() {
    let catalogue = Catalogue::new(seeded());
    let good = Live::OnDemandPrices(BTreeMap::from([(name("m5.large"), Price(1))]));
    catalogue.update(good, LATER).unwrap();
    let before = catalogue.snapshot();
    for empty in [
        Live::Kinds(Vec::new()),
        Live::Zones(BTreeMap::from([(Zone::new("us-east-1a"), BTreeSet::new())])),
        Live::OnDemandPrices(BTreeMap::new()),
        Live::SpotPrices(BTreeMap::new()),
    ] {
        let part = empty.part();
        let error = catalogue.update(empty, Timestamp::MAX).unwrap_err();
        assert!(
            matches!(error, CatalogueError::EmptyPart { part: of, .. } if of == part),
            "{error}"
        );
    }
    let after = catalogue.snapshot();
    assert_eq!(after.version(), before.version());
    assert_eq!(after.offerings(), before.offerings());
    let stamp = after.stamp(LivePart::OnDemandPrices);
    assert_eq!((stamp.live, stamp.as_of), (true, LATER));
    assert_eq!(stamp.age_seconds(Timestamp::constant(1_800_000_060, 0)), 60);
    assert_eq!(
        stamp.age_seconds(Timestamp::UNIX_EPOCH),
        0,
        "a clock that was set back is no age"
    );
}

#[test]
fn whoever_reads_keeps_a_whole_version_while_the_next_is_made() {
    let catalogue = Catalogue::new(seeded());
    let old = catalogue.snapshot();
    let price = Live::OnDemandPrices(BTreeMap::from([(name("m5.large"), Price(7))]));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| catalogue.update(price.clone(), LATER).map(|made| made.version())))
            .collect();
        let versions: BTreeSet<_> = writers
            .into_iter()
            .map(|one| one.join().unwrap().unwrap())
            .collect();
        assert_eq!(
            versions,
            BTreeSet::from([1, 2, 3, 4]),
            "no answer is lost between two others"
        );
    });
    assert_eq!(
        prices(old.facts(), "m5.large/us-east-1a/on-demand"),
        Some(Price(96_000))
    );
    assert_eq!(
        prices(catalogue.snapshot().facts(), "m5.large/us-east-1a/on-demand"),
        Some(Price(7))
    );
}

fn any_live() -> impl Strategy<Value = Live> {
    let names = || prop_oneof![Just("m5.large"), Just("c5.large"), Just("x.y")].prop_map(name);
    let zone = || prop_oneof![Just("us-east-1a"), Just("us-east-1b")].prop_map(Zone::new);
    let price = || (0..3u64).prop_map(Price);
    prop_oneof![
        proptest::collection::vec(names(), 0..3).prop_map(|names| {
            let kind = |name| InstanceKind::new(name, Architecture::Amd64, 2, Bytes::gib(8));
            Live::Kinds(names.into_iter().map(kind).collect())
        }),
        proptest::collection::btree_map(zone(), proptest::collection::btree_set(names(), 0..3), 0..2)
            .prop_map(Live::Zones),
        proptest::collection::btree_map(names(), price(), 0..3).prop_map(Live::OnDemandPrices),
        proptest::collection::btree_map((names(), zone()), price(), 0..3).prop_map(Live::SpotPrices),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Answers about different parts come in any order, so any order must give the same catalogue.
    #[test]
    fn the_order_of_answers_about_different_parts_does_not_matter(one in any_live(), other in any_live()) {
        prop_assume!(one.part() != other.part());
        let both = |first: &Live, second: &Live| {
            let after = merge(&seeded(), first.clone(), LATER).unwrap_or_else(|_| seeded());
            merge(&after, second.clone(), LATER).unwrap_or(after)
        };
        prop_assert_eq!(both(&one, &other), both(&other, &one));
    }

    /// Said twice is said once, and nothing is ever sold for nothing.
    #[test]
    fn an_answer_that_comes_twice_changes_nothing_more(live in any_live()) {
        if let Ok(once) = merge(&seeded(), live.clone(), LATER) {
            prop_assert!(offerings(&once).iter().all(|offering| offering.price > Price(0)));
            let twice = merge(&once, live, LATER);
            prop_assert_eq!(twice.ok(), Some(once));
        }
    }
}

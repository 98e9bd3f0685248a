//! What must hold of the memory, in single cases and in any order of events.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
use crate::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};
use crate::sizing::{Avoid, CheapestFit, Choice, InstanceSizer as _, NoFit, SizingPolicy};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

const SECOND: i64 = 1000;

fn id(name: &str, zone: &str) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(name),
        zone: Zone::new(zone),
        capacity_type: CapacityType::OnDemand,
    }
}

/// Five offerings of the same size, in the order of their prices.
fn offerings() -> Vec<Offering> {
    let names = [("a", "z1"), ("a", "z2"), ("b", "z1"), ("c", "z1"), ("d", "z1")];
    let offering = |(price, (name, zone)): (u64, &(&str, &str))| {
        Offering::new(
            id(name, zone),
            Architecture::Amd64,
            CpuMillis(2000),
            Bytes::gib(8),
            Price(price),
        )
    };
    (1..).zip(&names).map(offering).collect()
}

struct Market {
    sizer: CheapestFit,
    memory: CapacityMemory,
}

impl Market {
    fn new() -> Self {
        Self::selling(&offerings())
    }

    fn selling(offerings: &[Offering]) -> Self {
        let mut sizer = CheapestFit::new(SizingPolicy::default());
        sizer.refresh(offerings);
        Self {
            sizer,
            memory: CapacityMemory::new(CapacityConfig::default()),
        }
    }

    fn place(&mut self, now: Timestamp) -> Result<OfferingId, NoFit> {
        let pod = PodRef {
            uid: PodUid::new("p"),
            namespace: "n".into(),
            name: "p".into(),
        };
        let demand = PodDemand::new(pod, CpuMillis(1000), Bytes::gib(1));
        let placed = self.memory.place(&self.sizer, &demand, &Avoid::none(), now);
        placed.map(|Choice { offering, .. }| offering.id)
    }

    /// Places and launches one pod at once.
    fn launch(&mut self, now: Timestamp, outcome: Outcome) -> Result<OfferingId, NoFit> {
        let offering = self.place(now)?;
        self.memory.began(&offering, now);
        self.memory.ended(&offering, now, outcome, now);
        Ok(offering)
    }

    /// Spends what a new memory has.
    fn broke() -> Self {
        let mut market = Self::new();
        market
            .memory
            .ended(&id("x", "z9"), at(0), Outcome::NoCapacity, at(0));
        market
    }
}

#[test]
fn a_dry_offering_is_left_alone_and_the_next_cheapest_is_taken_at_once() {
    let mut market = Market::broke();
    assert_eq!(market.launch(at(0), Outcome::NoCapacity), Ok(id("a", "z1")));
    assert_eq!(market.place(at(0)), Ok(id("a", "z2")));
    assert_eq!(market.place(at(29 * SECOND)), Ok(id("a", "z2")));
    // The wait is over, but nobody has paid for a probe and there is something else.
    assert_eq!(market.place(at(31 * SECOND)), Ok(id("a", "z2")));
}

#[test]
fn launches_that_work_pay_for_one_probe_and_only_one_pod_makes_it() {
    let mut market = Market::broke();
    let _ = market.launch(at(0), Outcome::NoCapacity);
    for _ in 0..3 * 28 {
        assert_eq!(market.launch(at(SECOND), Outcome::Launched), Ok(id("a", "z2")));
    }
    let now = at(40 * SECOND);
    assert_eq!(market.place(now), Ok(id("a", "z1")), "the probe");
    assert_eq!(market.place(now), Ok(id("a", "z2")), "everybody else");
    market.memory.began(&id("a", "z1"), now);
    let change = market.memory.ended(&id("a", "z1"), now, Outcome::Launched, now);
    assert!(change.opened, "pods that wait are told");
    assert_eq!(market.place(now), Ok(id("a", "z1")), "the cheapest again");
}

#[test]
fn a_pod_with_nothing_else_waits_only_for_the_offering_itself_or_it_would_starve() {
    let only = &offerings()[..1];
    let mut market = Market::selling(only);
    let mut now = 0;
    for wait in [30, 60, 120, 240, 480, 900, 900] {
        assert_eq!(
            market.launch(at(now), Outcome::NoCapacity),
            Ok(id("a", "z1")),
            "after {now}"
        );
        let no_fit = market.place(at(now)).unwrap_err();
        assert!(no_fit.only_avoided);
        assert_eq!(no_fit.retry_at, Some(at(now + wait * SECOND)), "it is told when");
        now += wait * SECOND;
    }
    let _ = market.launch(at(now), Outcome::Launched);
    let _ = market.launch(at(now), Outcome::NoCapacity);
    let no_fit = market.place(at(now)).unwrap_err();
    assert_eq!(
        no_fit.retry_at,
        Some(at(now + 30 * SECOND)),
        "what worked resets the wait"
    );
}

#[test]
fn a_burst_at_an_offering_that_went_dry_loses_a_few_calls_not_hundreds() {
    let mut market = Market::new();
    let offering = id("a", "z1");
    let mut sent = 0;
    for _ in 0..1000 {
        if market.memory.gate(&offering, at(0)) == Gate::Go {
            market.memory.began(&offering, at(0));
            sent += 1;
        }
    }
    assert_eq!(sent, 4);
    market
        .memory
        .ended(&offering, at(0), Outcome::NoCapacity, at(500));
    assert_eq!(
        market.memory.gate(&offering, at(500)),
        Gate::Closed,
        "the rest go elsewhere without a call"
    );
}

#[test]
fn a_healthy_burst_opens_the_window_with_each_answer_and_is_over_in_a_few_round_trips() {
    let mut market = Market::new();
    let offering = id("a", "z1");
    let (mut left, mut rounds) = (1000, 0);
    while left > 0 {
        let now = at(rounds * 100);
        let mut sent = 0;
        while left > 0 && market.memory.gate(&offering, now) == Gate::Go {
            market.memory.began(&offering, now);
            (sent, left) = (sent + 1, left - 1);
        }
        assert!(sent <= 96);
        for _ in 0..sent {
            market
                .memory
                .ended(&offering, now, Outcome::Launched, at(rounds * 100 + 50));
        }
        rounds += 1;
    }
    assert!(rounds <= 15, "{rounds} round trips");
}

#[test]
fn launches_that_are_never_answered_do_not_block_an_offering_for_ever() {
    let mut market = Market::new();
    let offering = id("a", "z1");
    for _ in 0..4 {
        market.memory.began(&offering, at(0));
    }
    assert_eq!(
        market.memory.gate(&offering, at(SECOND)),
        Gate::Wait(at(20 * SECOND))
    );
    assert_eq!(market.memory.gate(&offering, at(20 * SECOND)), Gate::Go);
}

#[test]
fn a_quota_hit_by_one_type_closes_that_type_and_by_three_the_capacity_type() {
    let mut market = Market::broke();
    assert_eq!(market.launch(at(0), Outcome::Quota), Ok(id("a", "z1")));
    assert_eq!(market.launch(at(0), Outcome::Quota), Ok(id("a", "z2")));
    assert_eq!(market.launch(at(0), Outcome::Quota), Ok(id("b", "z1")));
    assert_eq!(
        market.launch(at(0), Outcome::Quota),
        Ok(id("c", "z1")),
        "a third type"
    );
    let no_fit = market.place(at(0)).unwrap_err();
    assert_eq!(
        no_fit.retry_at,
        Some(at(60 * SECOND)),
        "also for d, which nobody tried"
    );
    assert_eq!(market.memory.closed_quotas(), 1);
    market.memory.freed(at(10 * SECOND));
    assert_eq!(
        market.place(at(40 * SECOND)),
        Ok(id("d", "z1")),
        "an instance ended: sooner"
    );
    assert!(market.place(at(40 * SECOND)).is_err(), "one at a time");
    market.memory.began(&id("d", "z1"), at(40 * SECOND));
    market.memory.ended(
        &id("d", "z1"),
        at(40 * SECOND),
        Outcome::Launched,
        at(41 * SECOND),
    );
    assert_eq!(market.memory.closed_quotas(), 0);
}

#[test]
fn one_success_of_a_type_makes_its_siblings_worth_a_try_soon() {
    let mut market = Market::broke();
    for _ in 0..6 {
        market
            .memory
            .ended(&id("a", "z1"), at(0), Outcome::NoCapacity, at(0));
        market
            .memory
            .ended(&id("a", "z2"), at(0), Outcome::NoCapacity, at(0));
    }
    let both = [id("a", "z1"), id("a", "z2")];
    for offering in &both {
        assert_eq!(market.memory.gate(offering, at(29 * SECOND)), Gate::Closed);
    }
    market.memory.began(&both[0], at(31 * SECOND));
    market
        .memory
        .ended(&both[0], at(31 * SECOND), Outcome::Launched, at(31 * SECOND));
    assert_eq!(market.memory.gate(&both[0], at(31 * SECOND)), Gate::Go);
    assert_eq!(
        market.memory.gate(&both[1], at(61 * SECOND)),
        Gate::Go,
        "within half a minute"
    );
}

#[test]
fn a_clock_that_goes_back_a_year_closes_nothing_for_a_year() {
    let mut market = Market::selling(&offerings()[..1]);
    let _ = market.launch(at(365 * 86_400 * SECOND), Outcome::NoCapacity);
    assert_eq!(market.place(at(0)), Ok(id("a", "z1")));
    market.memory.began(&id("a", "z1"), at(0));
    let change = market
        .memory
        .ended(&id("a", "z1"), at(0), Outcome::Launched, at(1));
    assert!(change.opened);
}

#[derive(Clone, Debug)]
enum Happening {
    Place(Outcome),
    Answer(usize),
    Pass(i64),
    Freed,
}

fn happening() -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Launched),
        3 => Just(Outcome::NoCapacity),
        1 => Just(Outcome::Quota),
        1 => Just(Outcome::ZoneFull),
        1 => Just(Outcome::Other),
    ];
    prop_oneof![
        5 => outcome.prop_map(Happening::Place),
        4 => (0_usize..8).prop_map(Happening::Answer),
        3 => (-5_000_i64..120_000).prop_map(Happening::Pass),
        1 => (-4_000_000_i64..4_000_000).prop_map(Happening::Pass),
        1 => Just(Happening::Freed),
    ]
}

proptest! {
    /// Whatever happens in whatever order, with a clock that jumps: pure and total; never more under way than allowed; a closed offering
    /// is never chosen; and a pod that can be placed nowhere is told when to come back, and then can be.
    #[test]
    fn in_any_order_of_events_no_closed_offering_is_chosen_and_no_pod_starves(events in prop::collection::vec(happening(), 1..120)) {
        let mut market = Market::new();
        let mut now = 0;
        let mut under_way: Vec<(OfferingId, i64, Outcome)> = Vec::new();
        for event in events {
            match event {
                Happening::Place(outcome) => {
                    let before = market.memory.clone();
                    match market.place(at(now)) {
                        Ok(offering) => {
                            let mut again = Market { sizer: CheapestFit::default(), memory: before.clone() };
                            again.sizer.refresh(&offerings());
                            let again = again.place(at(now));
                            prop_assert_eq!(again.as_ref(), Ok(&offering), "pure");
                            prop_assert_ne!(before.gate(&offering, at(now)), Gate::Closed, "a closed one");
                            if market.memory.gate(&offering, at(now)) == Gate::Go {
                                market.memory.began(&offering, at(now));
                                under_way.push((offering, now, outcome));
                            }
                        }
                        Err(no_fit) => {
                            prop_assert!(no_fit.only_avoided);
                            let retry_at = no_fit.retry_at.unwrap();
                            prop_assert!(retry_at > at(now), "a time to wait for");
                            // Nothing is forever: within the longest wait, should nothing else happen, it can be placed.
                            prop_assert!(retry_at <= at(now + 46 * 60 * SECOND));
                            let mut later = Market { sizer: CheapestFit::default(), memory: market.memory.clone() };
                            later.sizer.refresh(&offerings());
                            prop_assert!(later.place(retry_at).is_ok(), "at the time it was told");
                        }
                    }
                }
                Happening::Answer(which) => {
                    if !under_way.is_empty() {
                        let (offering, began, outcome) = under_way.swap_remove(which % under_way.len());
                        market.memory.ended(&offering, at(began), outcome, at(now));
                    }
                }
                Happening::Pass(millis) => now += millis,
                Happening::Freed => market.memory.freed(at(now)),
            }
            // A window of one at what is closed, and of 96 at most at what is not, whatever happened.
            for offering in offerings() {
                let recent = |(id, began, _): &&(OfferingId, i64, Outcome)| {
                    *id == offering.id && (now - began).abs() < 20 * SECOND
                };
                prop_assert!(under_way.iter().filter(recent).count() <= 96);
            }
        }
    }

    /// With something that always works beside it, what is dry costs at most one call in 28 that work, and what is given.
    #[test]
    fn calls_lost_to_dry_offerings_are_bounded_by_those_that_work(gaps in prop::collection::vec(0_i64..20_000, 200..600)) {
        let mut market = Market::new();
        let (mut now, mut lost, mut worked) = (0, 0_u32, 0_u32);
        for gap in gaps {
            now += gap;
            let offering = market.place(at(now)).unwrap();
            let works = offering == id("d", "z1");
            market.memory.began(&offering, at(now));
            let outcome = if works { Outcome::Launched } else { Outcome::NoCapacity };
            market.memory.ended(&offering, at(now), outcome, at(now + 100));
            if works { worked += 1 } else { lost += 1 }
        }
        // Four are discovered, one is free, and so is one in ten minutes.
        let allowed = u32::try_from(now / (600 * SECOND)).unwrap();
        prop_assert!(lost <= 4 + 1 + worked / 28 + allowed, "{lost} lost, {worked} worked");
    }
}

#[test]
fn what_counts_as_capacity_is_read_from_the_error_as_placement_means_it() {
    use crate::error::{Error, ErrorKind, Retry};
    let of = |kind| Outcome::of_error(&Error::new(kind, "launch", "x"));
    assert_eq!(of(ErrorKind::InsufficientCapacity), Outcome::NoCapacity);
    assert_eq!(of(ErrorKind::QuotaExceeded), Outcome::Quota);
    assert_eq!(of(ErrorKind::RateLimited), Outcome::Other);
    assert_eq!(of(ErrorKind::Timeout), Outcome::Other);
    let zonal = Error::new(ErrorKind::QuotaExceeded, "launch", "x").with_retry(Retry::Elsewhere);
    assert_eq!(Outcome::of_error(&zonal), Outcome::NoCapacity);
    let full = Error::new(ErrorKind::InsufficientCapacity, "launch", "x").with_retry(Retry::OtherZone);
    assert_eq!(Outcome::of_error(&full), Outcome::ZoneFull);
}

/// A pod that must be near its volume would climb the price list of a zone that has no address for any of its types.
#[test]
fn a_full_zone_makes_nobody_pay_for_a_dearer_type_of_it() {
    let mut market = Market::broke();
    assert_eq!(market.launch(at(0), Outcome::ZoneFull), Ok(id("a", "z1")));
    assert_eq!(market.memory.closed_zones(), 1);
    assert_eq!(
        market.place(at(0)),
        Ok(id("a", "z2")),
        "the same type in another zone"
    );
    assert_eq!(market.memory.gate(&id("b", "z1"), at(0)), Gate::Closed);

    // Who must be in z1 waits, is told until when, and then gets the cheapest.
    let pinned: Vec<Offering> = offerings()
        .into_iter()
        .filter(|of| of.id.zone == Zone::new("z1"))
        .collect();
    let mut market = Market::selling(&pinned);
    let mut now = 0;
    for wait in [30, 60, 120] {
        assert_eq!(market.launch(at(now), Outcome::ZoneFull), Ok(id("a", "z1")));
        let no_fit = market.place(at(now)).unwrap_err();
        assert!(no_fit.only_avoided);
        assert_eq!(no_fit.retry_at, Some(at(now + wait * SECOND)));
        now += wait * SECOND;
    }
    assert_eq!(market.place(at(now)), Ok(id("a", "z1")));
    assert!(market.place(at(now)).is_err(), "one finds out");
    market.memory.began(&id("a", "z1"), at(now));
    let change = market
        .memory
        .ended(&id("a", "z1"), at(now), Outcome::Launched, at(now + 1));
    assert!(
        change.opened && market.memory.closed_zones() == 0,
        "the others are told"
    );
    assert_eq!(market.place(at(now + 1)), Ok(id("a", "z1")));
}

#[test]
fn addresses_come_back_when_an_instance_ends() {
    let pinned = &offerings()[..1];
    let mut market = Market::selling(pinned);
    for now in [0, 30, 90, 210] {
        assert_eq!(
            market.launch(at(now * SECOND), Outcome::ZoneFull),
            Ok(id("a", "z1"))
        );
    }
    assert!(market.place(at(245 * SECOND)).is_err());
    market.memory.freed(at(215 * SECOND));
    assert_eq!(
        market.place(at(245 * SECOND)),
        Ok(id("a", "z1")),
        "not after four minutes"
    );
}

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
use crate::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn id(name: &str, zone: &str, capacity_type: CapacityType) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(name),
        zone: Zone::new(zone),
        capacity_type,
    }
}

fn offering(name: &str, cpu: u64, gib: u64, price: u64) -> Offering {
    Offering::new(
        id(name, "z1", CapacityType::OnDemand),
        Architecture::Amd64,
        CpuMillis(cpu * 1000),
        Bytes::gib(gib),
        Price(price),
    )
}

fn demand(cpu: u64, mib: u64) -> PodDemand {
    let pod = PodRef {
        uid: PodUid::new("u"),
        namespace: "default".into(),
        name: "p".into(),
    };
    PodDemand::new(pod, CpuMillis(cpu), Bytes::mib(mib))
}

fn sizer(offerings: &[Offering]) -> CheapestFit {
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(offerings);
    sizer
}

fn pick(sizer: &CheapestFit, demand: &PodDemand) -> String {
    match sizer.size(demand, &Avoid::none(), NOW) {
        Ok(choice) => choice.offering.id.to_string(),
        Err(no_fit) => no_fit.to_string(),
    }
}

#[test]
fn the_reserve_is_memory_only_and_kept_from_the_pod_or_the_kernel_would_kill_it() {
    let sizer = sizer(&[offering("small", 2, 8, 10), offering("large", 2, 16, 20)]);
    // 8192 MiB - 3.5 % - 120 MiB = 7785.28 MiB.
    assert_eq!(pick(&sizer, &demand(2000, 7785)), "small/z1/on-demand");
    assert_eq!(pick(&sizer, &demand(2000, 7786)), "large/z1/on-demand");
}

#[test]
fn what_an_instance_needs_and_what_a_pod_may_use_of_it_agree() {
    let reserve = MemoryReserve::default();
    for mib in [0, 1, 100, 1000, 7785, 1_000_000] {
        let needed = reserve.needed(Bytes::mib(mib));
        assert!(reserve.usable(needed) >= Bytes::mib(mib), "{mib} MiB");
        assert!(
            reserve.usable(Bytes(needed.0 - 2)) < Bytes::mib(mib).max(Bytes(1)),
            "{mib} MiB"
        );
    }
}

#[test]
fn a_family_may_have_its_own_reserve() {
    let own = MemoryReserve {
        permille: 0,
        fixed: Bytes(0),
    };
    let mut sizer = CheapestFit::new(SizingPolicy::default().with_family("lean", own));
    sizer.refresh(&[offering("lean.large", 2, 8, 20), offering("fat.large", 2, 8, 10)]);
    assert_eq!(pick(&sizer, &demand(1, 8192)), "lean.large/z1/on-demand");
}

#[test]
fn ties_go_to_memory_then_generation_then_name_so_the_answer_never_wavers() {
    let mut newer = offering("b", 2, 8, 10);
    newer.generation = 7;
    let list = [
        offering("d", 2, 4, 10),
        offering("c", 2, 8, 10),
        newer.clone(),
        offering("a", 2, 8, 10),
    ];
    assert_eq!(pick(&sizer(&list), &demand(1, 1)), "b/z1/on-demand");
    newer.generation = 0;
    let list = [offering("c", 2, 8, 10), newer, offering("a", 2, 8, 10)];
    assert_eq!(pick(&sizer(&list), &demand(1, 1)), "a/z1/on-demand");
}

#[test]
fn a_burstable_type_counts_with_the_cpu_it_will_be_billed_for() {
    let mut burstable = offering("t", 2, 8, 40_000);
    burstable.baseline_cpu = Some(CpuMillis(400));
    let sizer = sizer(&[burstable, offering("m", 2, 8, 90_000)]);
    assert_eq!(pick(&sizer, &demand(400, 1)), "t/z1/on-demand");
    // 1 CPU above the baseline: 40,000 + 50,000 = 90,000; the name decides.
    assert_eq!(pick(&sizer, &demand(1400, 1)), "m/z1/on-demand");
    assert_eq!(pick(&sizer, &demand(1399, 1)), "t/z1/on-demand");
}

#[test]
fn spot_is_bought_only_for_pods_that_accept_it() {
    let mut spot = offering("a", 2, 8, 1);
    spot.id.capacity_type = CapacityType::Spot;
    let sizer = sizer(&[spot, offering("a", 2, 8, 10)]);
    let mut wants = demand(1, 1);
    assert_eq!(pick(&sizer, &wants), "a/z1/on-demand");
    wants.capacity_types = BTreeSet::from([CapacityType::Spot]);
    assert_eq!(pick(&sizer, &wants), "a/z1/spot");
}

#[test]
fn instance_types_are_asked_for_by_name_or_glob() {
    let list = [
        offering("c5.large", 2, 4, 10),
        offering("c5.xlarge", 4, 8, 20),
        offering("m5.large", 2, 8, 15),
    ];
    let sizer = sizer(&list);
    for (pattern, expected) in [
        ("c5.xlarge", "c5.xlarge/z1/on-demand"),
        ("c5.*", "c5.large/z1/on-demand"),
        ("*.xlarge", "c5.xlarge/z1/on-demand"),
        ("m*e", "m5.large/z1/on-demand"),
        (
            "c5.large*2",
            "0 of 3 offerings fit: 3 are not of instance type c5.large*2",
        ),
        (
            "c5.larg",
            "0 of 3 offerings fit: 3 are not of instance type c5.larg",
        ),
    ] {
        let mut wants = demand(1, 1);
        wants.instance_type = Some(pattern.into());
        assert_eq!(pick(&sizer, &wants), expected);
    }
}

#[test]
fn a_named_type_must_still_be_large_enough_or_the_pod_would_be_killed_at_once() {
    let mut wants = demand(4000, 1);
    wants.instance_type = Some("c5.large".into());
    assert_eq!(
        pick(&sizer(&[offering("c5.large", 2, 4, 10)]), &wants),
        "0 of 1 offerings fit: 1 have too few CPUs (largest 2, needs 4)"
    );
}

#[test]
fn the_default_type_is_for_pods_that_ask_for_nothing() {
    let mut sizer = CheapestFit::new(SizingPolicy::default().with_default_instance_type("b"));
    sizer.refresh(&[offering("a", 1, 1, 1), offering("b", 2, 2, 2)]);
    assert_eq!(pick(&sizer, &demand(0, 0)), "b/z1/on-demand");
    assert_eq!(pick(&sizer, &demand(1, 0)), "a/z1/on-demand");
}

#[test]
fn the_sentence_says_what_would_be_needed_so_the_user_can_act() {
    let mut arm = offering("g", 64, 256, 1);
    arm.architecture = Architecture::Arm64;
    let mut wants = demand(1000, 68 << 10);
    wants.architectures = BTreeSet::from([Architecture::Amd64]);
    let list = [offering("a", 2, 4, 10), offering("b", 16, 64, 20), arm.clone()];
    assert_eq!(
        pick(&sizer(&list), &wants),
        "0 of 3 offerings fit: 2 have too little memory (largest 64Gi, needs 70.6Gi incl. reserve), \
         1 are not amd64"
    );
    wants.extended.insert("nvidia.com/gpu".into(), 1);
    wants.zones = BTreeSet::from([Zone::new("z9")]);
    assert_eq!(
        pick(&sizer(&[arm]), &wants),
        "0 of 1 offerings fit: 1 are not amd64, 1 are not in zone z9, \
         1 have too little nvidia.com/gpu (largest 0, needs 1)"
    );
    assert_eq!(
        pick(&sizer(&[]), &wants),
        "the provider offers no instance types now; check its region, zones and permissions"
    );
}

#[test]
fn a_dry_offering_is_passed_over_until_its_time_is_up() {
    let list = [offering("a", 1, 1, 1), offering("b", 1, 1, 2)];
    let sizer = sizer(&list);
    let later = Timestamp::from_second(60).unwrap();
    let mut avoid = Avoid::none();
    avoid.until(list[0].id.clone(), later);
    let chosen = |now| sizer.size(&demand(1, 1), &avoid, now).unwrap().offering.id;
    assert_eq!(chosen(NOW), list[1].id);
    assert_eq!(chosen(later), list[0].id);

    avoid.until(list[1].id.clone(), later);
    let no_fit = sizer.size(&demand(1, 1), &avoid, NOW).unwrap_err();
    assert!(no_fit.only_avoided, "waiting helps");
    assert_eq!(
        no_fit.message,
        "0 of 2 offerings fit: 2 are avoided for now after a failed launch"
    );
    assert!(
        !sizer
            .size(&demand(9000, 1), &avoid, NOW)
            .unwrap_err()
            .only_avoided
    );
}

#[test]
fn explain_lists_all_others_with_every_reason() {
    let sizer = sizer(&[
        offering("a", 1, 1, 1),
        offering("b", 2, 4, 2),
        offering("c", 4, 8, 3),
    ]);
    let rejected = sizer.explain(&demand(2000, 2048), &Avoid::none(), NOW);
    let names: Vec<_> = rejected
        .iter()
        .map(|r| r.offering.id.instance_type.as_str())
        .collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(rejected[0].reasons.len(), 2);
    assert_eq!(
        rejected[0].reasons[1].to_string(),
        "too little memory (1Gi, needs 2.2Gi incl. reserve)"
    );
    assert!(rejected[1].reasons.is_empty(), "it fits, it only costs more");
}

#[test]
fn the_user_is_told_when_a_little_less_would_be_much_cheaper() {
    let sizer = sizer(&[offering("small", 2, 8, 50_000), offering("large", 2, 16, 100_000)]);
    let advice = sizer.cliff(&demand(2000, 8192), &Avoid::none(), NOW).unwrap();
    assert_eq!(
        advice.to_string(),
        "asking for at most 2 CPU and 7.6Gi memory would cut the price by 50 %: small/z1/on-demand at $0.0500/h \
         instead of $0.1000/h"
    );
    // Taking the advice gives what it promises.
    let mut taken = demand(2000, 0);
    taken.memory = advice.memory;
    assert_eq!(pick(&sizer, &taken), "small/z1/on-demand");
    assert_eq!(sizer.cliff(&demand(2000, 4096), &Avoid::none(), NOW), None);
    assert_eq!(
        sizer.cliff(&demand(2000, 12_000), &Avoid::none(), NOW),
        None,
        "more than 15 % above the step"
    );
}

fn any_offering() -> impl Strategy<Value = Offering> {
    let name = prop_oneof![Just("a.x"), Just("a.y"), Just("b.x"), Just("b.y"), Just("c.z")];
    let kind = (0..3u8, any::<bool>(), 0..3u8, 0..3u64);
    let size = (1..9u64, 1..17u64, 1..6u64, 0..3u32);
    (name, kind, size, proptest::option::of(0..4u64)).prop_map(
        |(name, (zone, arm, capacity, gpus), (cpu, gib, price, generation), baseline)| {
            let capacity_type =
                [CapacityType::OnDemand, CapacityType::Spot, CapacityType::Reserved][usize::from(capacity)];
            let mut offering = offering(name, cpu, gib, price * 10_000);
            offering.id = id(name, &format!("z{zone}"), capacity_type);
            if arm {
                offering.architecture = Architecture::Arm64;
            }
            if gpus > 0 {
                offering.extended.insert("nvidia.com/gpu".into(), gpus);
            }
            offering.generation = generation;
            offering.baseline_cpu = baseline.map(|cpus| CpuMillis(cpus * 500));
            offering
        },
    )
}

/// At most one entry an id, as a cloud's list has.
fn any_list() -> impl Strategy<Value = Vec<Offering>> {
    proptest::collection::vec(any_offering(), 0..120).prop_map(|list| {
        let mut seen = BTreeSet::new();
        list.into_iter().filter(|o| seen.insert(o.id.clone())).collect()
    })
}

fn any_demand() -> impl Strategy<Value = PodDemand> {
    let kinds = (
        proptest::collection::btree_set(
            prop_oneof![Just(Architecture::Amd64), Just(Architecture::Arm64)],
            0..2,
        ),
        proptest::collection::btree_set(0..4u8, 0..3),
        proptest::collection::btree_set(
            prop_oneof![
                Just(CapacityType::OnDemand),
                Just(CapacityType::Spot),
                Just(CapacityType::Reserved)
            ],
            0..3,
        ),
    );
    let pattern = proptest::option::weighted(
        0.3,
        prop_oneof![Just("a.x"), Just("a.*"), Just("*.x"), Just("*"), Just("d")],
    );
    (0..9000u64, 0..17_000u64, kinds, pattern, 0..3u64).prop_map(
        |(cpu, mib, (architectures, zones, capacity_types), pattern, gpus)| {
            let mut demand = demand(cpu, mib);
            demand.architectures = architectures;
            demand.zones = zones.into_iter().map(|z| Zone::new(format!("z{z}"))).collect();
            demand.capacity_types = capacity_types;
            demand.instance_type = pattern.map(str::to_owned);
            if gpus > 0 {
                demand.extended.insert("nvidia.com/gpu".into(), gpus);
            }
            demand
        },
    )
}

fn avoiding(list: &[Offering], which: &[bool]) -> Avoid {
    let mut avoid = Avoid::none();
    for (offering, _) in list.iter().zip(which).filter(|(_, avoided)| **avoided) {
        avoid.until(offering.id.clone(), Timestamp::MAX);
    }
    avoid
}

proptest! {
    /// The index is a shortcut, never another answer: a user must not pay more because of it.
    #[test]
    fn the_index_answers_what_looking_at_everything_answers(
        list in any_list(), demand in any_demand(), which in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let sizer = sizer(&list);
        let avoid = avoiding(&list, &which);
        let policy = SizingPolicy::default();
        let brute = list
            .iter()
            .filter(|o| rule::available(&policy, o, &demand, &avoid, NOW))
            .min_by_key(|o| rule::rank(rule::effective_price(&policy, o, &demand), o));
        let answer = sizer.size(&demand, &avoid, NOW);
        prop_assert_eq!(answer.as_ref().ok().map(|c| &c.offering), brute);
        if let Err(no_fit) = answer {
            let any_fits = list.iter().any(|o| rule::fits(&policy, o, &demand));
            prop_assert_eq!(no_fit.only_avoided, any_fits);
        }
    }

    /// The order in which a cloud lists things means nothing: two controllers must choose alike.
    #[test]
    fn the_order_of_the_list_does_not_matter(list in any_list(), demand in any_demand()) {
        let mut reversed = list.clone();
        reversed.reverse();
        prop_assert_eq!(
            sizer(&list).size(&demand, &Avoid::none(), NOW),
            sizer(&reversed).size(&demand, &Avoid::none(), NOW)
        );
    }

    /// Asking for more never costs less, and never fits where less did not.
    #[test]
    fn more_never_costs_less(list in any_list(), less in any_demand(), cpu in 0..2000u64, mib in 0..4000u64) {
        let sizer = sizer(&list);
        let mut more = less.clone();
        more.cpu.0 += cpu;
        more.memory.0 += mib << 20;
        if let Ok(larger) = sizer.size(&more, &Avoid::none(), NOW) {
            let smaller = sizer.size(&less, &Avoid::none(), NOW);
            prop_assert!(smaller.is_ok());
            let smaller = smaller.expect("checked");
            prop_assert!(
                sizer.effective_price(&smaller.offering, &less) <= sizer.effective_price(&larger.offering, &more)
            );
        }
    }

    /// Advice is never wrong about what it saves, nor about how little it takes.
    #[test]
    fn advice_keeps_its_promise(list in any_list(), demand in any_demand()) {
        let sizer = sizer(&list);
        if let Some(advice) = sizer.cliff(&demand, &Avoid::none(), NOW) {
            let mut taken = demand.clone();
            taken.cpu = advice.cpu;
            taken.memory = advice.memory;
            let choice = sizer.size(&taken, &Avoid::none(), NOW).expect("the advised offering fits");
            prop_assert!(sizer.effective_price(&choice.offering, &taken) <= advice.price);
            prop_assert!(advice.saving_percent() >= 20);
            prop_assert!(advice.cpu.0 * 100 >= demand.cpu.0 * 85);
            prop_assert!(u128::from(advice.memory.0) * 100 >= u128::from(demand.memory.0) * 85);
        }
    }
}

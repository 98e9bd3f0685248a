//! Properties of the choice, over made-up clouds and pods.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::tests::{NOW, demand, id, offering, sizer};
use super::*;
use crate::ids::Zone;
use crate::model::{
    Architecture, CapacityType, CpuMillis, Offering, Operator, PodDemand, Price, Requirement,
};

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
                offering.gpu_model = Some(["T4", "L4"][usize::from(cpu > 4)].to_owned());
            }
            offering.generation = generation;
            offering.baseline_cpu = baseline.map(|cpus| CpuMillis(cpus * 500));
            offering.surplus_cpu_hour = baseline.filter(|cpus| *cpus > 1).map(|_| Price(3_000));
            offering.by_name_only = generation == 1 && gib < 6;
            offering.dedicated = generation != 2;
            offering.labels = [("cpu", cpu.to_string()), ("family", name[..1].to_owned())]
                .into_iter()
                .collect();
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

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let number = |key: &'static str, operator| {
        (0..9u64).prop_map(move |bound| Requirement::new(key, operator, [bound.to_string()]))
    };
    prop_oneof![
        number("cpu", Operator::Gt),
        number("cpu", Operator::Lt),
        Just(Requirement::new("family", Operator::In, ["a", "b"])),
        Just(Requirement::new("family", Operator::NotIn, ["a"])),
        Just(Requirement::new(
            "topology.kubernetes.io/zone",
            Operator::NotIn,
            ["z1"]
        )),
        Just(Requirement::new("family", Operator::DoesNotExist, [""; 0])),
        Just(Requirement::new("nobody-has-it", Operator::NotIn, ["a"])),
    ]
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
    let model = proptest::option::weighted(0.2, prop_oneof![Just("T4"), Just("nvidia-l4")]);
    let alternatives =
        proptest::collection::btree_set(proptest::collection::btree_set(any_requirement(), 1..3), 0..3);
    let labels = (
        proptest::option::weighted(0.4, alternatives),
        proptest::bool::weighted(0.2),
    );
    (0..9000u64, 0..17_000u64, kinds, pattern, (0..3u64, model), labels).prop_map(
        |(
            cpu,
            mib,
            (architectures, zones, capacity_types),
            pattern,
            (gpus, model),
            (alternatives, dedicated),
        )| {
            let mut demand = demand(cpu, mib);
            demand.architectures = architectures;
            demand.zones = zones.into_iter().map(|z| Zone::new(format!("z{z}"))).collect();
            demand.capacity_types = capacity_types;
            demand.requirements = alternatives.unwrap_or_default();
            demand.options.dedicated = dedicated;
            demand.instance_types.extend(pattern.map(str::to_owned));
            if gpus > 0 {
                demand.extended.insert("nvidia.com/gpu".into(), gpus);
                demand.gpu_models.extend(model.map(str::to_owned));
            }
            demand
        },
    )
}

fn any_policy() -> impl Strategy<Value = SizingPolicy> {
    let burstable = prop_oneof![
        Just(Burstable::Surplus),
        Just(Burstable::Baseline),
        Just(Burstable::Never)
    ];
    let patterns = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["a.*", "*.y"]), 1 => Just(vec!["c.z"])];
    let capacity = prop_oneof![
        Just(vec![CapacityType::OnDemand]),
        Just(vec![CapacityType::OnDemand, CapacityType::Spot])
    ];
    (burstable, patterns, capacity).prop_map(|(burstable, patterns, capacity)| {
        SizingPolicy::default()
            .with_capacity_types(capacity)
            .with_burstable(burstable)
            .with_instance_types(patterns)
    })
}

fn sizer_by(policy: &SizingPolicy, offerings: &[Offering]) -> CheapestFit {
    let mut sizer = CheapestFit::new(policy.clone());
    sizer.refresh(offerings);
    sizer
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
        policy in any_policy(), list in any_list(), demand in any_demand(),
        which in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let sizer = sizer_by(&policy, &list);
        let avoid = avoiding(&list, &which);
        // A label that no offering has refuses; without any offering nothing is to be had anyway.
        let unknown = demand.requirements.iter().flatten().any(|one| one.key == "nobody-has-it");
        let brute = list
            .iter()
            .filter(|_| !unknown)
            .filter(|o| rule::available(&policy, o, &demand, &avoid, NOW))
            .min_by_key(|o| rule::rank(rule::effective_price(&policy, o, &demand), o));
        let answer = sizer.size(&demand, &avoid, NOW);
        prop_assert_eq!(answer.as_ref().ok().map(|c| &c.offering), brute);
        if let Err(no_fit) = answer {
            let any_fits = !unknown && list.iter().any(|o| rule::fits(&policy, o, &demand));
            prop_assert_eq!(no_fit.only_avoided, any_fits);
        }
    }

    /// What is bought holds the pod, and nothing that holds it costs less.
    #[test]
    fn the_result_fits_and_nothing_cheaper_does(
        policy in any_policy(), list in any_list(), demand in any_demand(),
    ) {
        let sizer = sizer_by(&policy, &list);
        if let Ok(Choice { offering, .. }) = sizer.size(&demand, &Avoid::none(), NOW) {
            let usable = policy.reserve_of(&offering.id.instance_type).usable(offering.memory);
            prop_assert!(offering.cpu >= demand.cpu && usable >= demand.memory);
            let meets = |all: &BTreeSet<Requirement>| all.iter().all(|one| one.is_met(offering.label(&one.key)));
            prop_assert!(demand.requirements.is_empty() || demand.requirements.iter().any(meets));
            prop_assert!(offering.dedicated || !demand.options.dedicated);
            for (name, needs) in &demand.extended {
                prop_assert!(offering.extended.get(name) >= Some(needs));
            }
            let price = sizer.effective_price(&offering, &demand);
            for rejected in sizer.explain(&demand, &Avoid::none(), NOW) {
                let cheaper = sizer.effective_price(&rejected.offering, &demand) < price;
                prop_assert!(!(cheaper && rejected.reasons.is_empty()), "{:?}", rejected);
            }
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
    fn more_never_costs_less(
        policy in any_policy(), list in any_list(), less in any_demand(),
        cpu in 0..2000u64, mib in 0..4000u64, gpus in 0..2u64,
    ) {
        let sizer = sizer_by(&policy, &list);
        let mut more = less.clone();
        if gpus > 0 {
            *more.extended.entry("nvidia.com/gpu".into()).or_default() += gpus;
        }
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
            let mut elastic = demand.clone();
            elastic.elastic = true;
            let choice = sizer.size(&elastic, &Avoid::none(), NOW).expect("the advised offering is taken");
            prop_assert_eq!(&choice.offering, &advice.offering);
        }
    }
}

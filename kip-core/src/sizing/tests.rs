use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
use crate::model::{
    Architecture, Bytes, CapacityType, CpuMillis, Offering, Operator, PodDemand, Price, Requirement,
};

pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) fn id(name: &str, zone: &str, capacity_type: CapacityType) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(name),
        zone: Zone::new(zone),
        capacity_type,
    }
}

pub(super) fn offering(name: &str, cpu: u64, gib: u64, price: u64) -> Offering {
    Offering::new(
        id(name, "z1", CapacityType::OnDemand),
        Architecture::Amd64,
        CpuMillis(cpu * 1000),
        Bytes::gib(gib),
        Price(price),
    )
}

pub(super) fn demand(cpu: u64, mib: u64) -> PodDemand {
    let pod = PodRef {
        uid: PodUid::new("u"),
        namespace: "default".into(),
        name: "p".into(),
    };
    PodDemand::new(pod, CpuMillis(cpu), Bytes::mib(mib))
}

pub(super) fn sizer(offerings: &[Offering]) -> CheapestFit {
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(offerings);
    sizer
}

pub(super) fn pick(sizer: &CheapestFit, demand: &PodDemand) -> String {
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
            "no instance type on offer is called c5.large*2; there are c5.large, c5.xlarge",
        ),
        (
            "c5.larg",
            "no instance type on offer is called c5.larg; there are c5.large, c5.xlarge",
        ),
    ] {
        let mut wants = demand(1, 1);
        wants.instance_types = [pattern.into()].into();
        assert_eq!(pick(&sizer, &wants), expected);
    }
}

#[test]
fn a_named_type_must_still_be_large_enough_or_the_pod_would_be_killed_at_once() {
    let mut wants = demand(4000, 1);
    wants.instance_types = ["c5.large".into()].into();
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

#[test]
fn a_pod_that_is_elastic_takes_the_smaller_size_and_no_other_pod_does() {
    let list = [offering("small", 2, 8, 50_000), offering("large", 2, 16, 100_000)];
    let sizer = sizer(&list);
    let mut wants = demand(2000, 8192);
    assert_eq!(pick(&sizer, &wants), "large/z1/on-demand");
    assert!(sizer.advice(&wants, &Avoid::none(), NOW).is_some());
    wants.elastic = true;
    let choice = sizer.size(&wants, &Avoid::none(), NOW).unwrap();
    assert_eq!(choice.offering.id.instance_type.as_str(), "small");
    assert_eq!(choice.smaller.map(|advice| advice.saving_percent()), Some(50));
    assert_eq!(sizer.advice(&wants, &Avoid::none(), NOW), None, "it was taken");
    // Where nothing is saved by it, or the smaller one is not to be had, a pod gets what it asks for.
    let mut avoid = Avoid::none();
    avoid.until(list[0].id.clone(), Timestamp::MAX);
    let choice = sizer.size(&wants, &avoid, NOW).unwrap();
    assert_eq!(choice, Choice::new(list[1].clone()));
    wants.memory = Bytes::gib(4);
    assert_eq!(pick(&sizer, &wants), "small/z1/on-demand");
}

#[test]
fn a_gpu_is_had_by_its_model_whatever_the_label_calls_it() {
    let with = |name: &str, model: &str, price| {
        let mut offering = offering(name, 4, 16, price);
        offering.extended.insert("nvidia.com/gpu".into(), 1);
        offering.gpu_model = Some(model.into());
        offering
    };
    let list = [
        with("g4dn", "T4", 10),
        with("g6", "L4", 20),
        offering("m", 4, 16, 1),
    ];
    let mut wants = demand(1000, 1024);
    wants.extended.insert("nvidia.com/gpu".into(), 1);
    assert_eq!(pick(&sizer(&list), &wants), "g4dn/z1/on-demand");
    wants.gpu_models = BTreeSet::from(["nvidia-l4".into()]);
    assert_eq!(pick(&sizer(&list), &wants), "g6/z1/on-demand");
    wants.gpu_models = BTreeSet::from(["H100".into()]);
    assert_eq!(
        pick(&sizer(&list), &wants),
        "0 of 3 offerings fit: 3 have no GPU of model H100 (others are L4, T4), \
         1 have too little nvidia.com/gpu (largest 0, needs 1)"
    );
}

#[test]
fn bare_metal_and_old_types_go_only_to_pods_that_name_them() {
    let mut metal = offering("m5.metal", 96, 384, 1);
    metal.by_name_only = true;
    let list = [metal, offering("m5.24xlarge", 96, 384, 2)];
    let mut wants = demand(1000, 1024);
    assert_eq!(pick(&sizer(&list), &wants), "m5.24xlarge/z1/on-demand");
    assert_eq!(
        pick(&sizer(&list[..1]), &wants),
        "0 of 1 offerings fit: 1 are only for pods that name their type"
    );
    for name in ["m5.metal", "m5.m*"] {
        wants.instance_types = [name.into()].into();
        assert_eq!(pick(&sizer(&list), &wants), "m5.metal/z1/on-demand");
    }
}

#[test]
fn an_operator_decides_what_pods_get_that_name_no_type() {
    let policy = SizingPolicy::default().with_instance_types(["m5.*", "t3.micro"]);
    let mut sizer = CheapestFit::new(policy);
    sizer.refresh(&[
        offering("c5.large", 2, 4, 1),
        offering("m5.large", 2, 8, 2),
        offering("m5a.large", 2, 8, 1),
    ]);
    let mut wants = demand(1000, 1024);
    assert_eq!(pick(&sizer, &wants), "m5.large/z1/on-demand");
    wants.instance_types = ["c5.large".into()].into();
    assert_eq!(
        pick(&sizer, &wants),
        "c5.large/z1/on-demand",
        "the pod's own word counts more"
    );
}

#[test]
fn what_a_burstable_type_counts_for_is_the_operator_s_choice() {
    let mut burstable = offering("t", 2, 8, 10_000);
    burstable.baseline_cpu = Some(CpuMillis(400));
    let list = [burstable, offering("m", 2, 8, 90_000)];
    let with = |burstable| {
        let mut sizer = CheapestFit::new(SizingPolicy::default().with_burstable(burstable));
        sizer.refresh(&list);
        [400, 401, 1999].map(|cpu| pick(&sizer, &demand(cpu, 1)).chars().next())
    };
    assert_eq!(with(Burstable::Surplus), [Some('t'), Some('t'), Some('t')]);
    assert_eq!(with(Burstable::Baseline), [Some('t'), Some('m'), Some('m')]);
    assert_eq!(with(Burstable::Never), [Some('m'), Some('m'), Some('m')]);
}

#[test]
fn a_cloud_s_own_surplus_price_counts_more_than_the_policy_s() {
    let mut burstable = offering("t4g", 2, 8, 30_000);
    burstable.baseline_cpu = Some(CpuMillis(400));
    let sizer = sizer(&[]);
    let demand = demand(1400, 1);
    assert_eq!(sizer.effective_price(&burstable, &demand), Price(80_000));
    burstable.surplus_cpu_hour = Some(Price(40_000));
    assert_eq!(sizer.effective_price(&burstable, &demand), Price(70_000));
}

fn labelled(name: &str, price: u64, labels: &[(&str, &str)]) -> Offering {
    let mut offering = offering(name, 2, 8, price);
    offering.labels = labels.iter().copied().collect();
    offering
}

#[test]
fn a_pod_gets_only_what_has_the_labels_it_requires() {
    let list = [
        labelled("m5.large", 1, &[("family", "m5"), ("cpu", "2")]),
        labelled("m5d.large", 2, &[("family", "m5d"), ("cpu", "2"), ("nvme", "75")]),
        labelled(
            "m5d.xlarge",
            3,
            &[("family", "m5d"), ("cpu", "4"), ("nvme", "150")],
        ),
    ];
    let pick_with = |alternatives: &[&[Requirement]]| {
        let mut wants = demand(1000, 1024);
        wants.requirements = alternatives
            .iter()
            .map(|all| all.iter().cloned().collect())
            .collect();
        pick(&sizer(&list), &wants)
    };
    let nvme = |operator, bound: &[&str]| Requirement::new("nvme", operator, bound.iter().copied());
    assert_eq!(
        pick_with(&[&[nvme(Operator::Gt, &["74"])]]),
        "m5d.large/z1/on-demand"
    );
    assert_eq!(
        pick_with(&[&[nvme(Operator::Gt, &["75"])]]),
        "m5d.xlarge/z1/on-demand"
    );
    assert_eq!(
        pick_with(&[&[nvme(Operator::DoesNotExist, &[])]]),
        "m5.large/z1/on-demand"
    );
    let cpu = Requirement::new("cpu", Operator::In, ["4"]);
    let alternatives: [&[Requirement]; 2] = [
        &[cpu.clone(), nvme(Operator::DoesNotExist, &[])],
        &[cpu, nvme(Operator::Lt, &["200"])],
    ];
    assert_eq!(pick_with(&alternatives), "m5d.xlarge/z1/on-demand");
    let zone = Requirement::new("topology.kubernetes.io/zone", Operator::NotIn, ["z1"]);
    assert_eq!(
        pick_with(&[&[zone]]),
        "0 of 3 offerings fit: 3 are not topology.kubernetes.io/zone notin (z1) (there are z1)"
    );
    assert_eq!(
        pick_with(&[&[nvme(Operator::Gt, &["150"])]]),
        "0 of 3 offerings fit: 3 are not nvme > 150 (there are 75, 150)"
    );
}

#[test]
fn a_label_nobody_has_is_told_with_those_there_are_and_never_taken_for_met() {
    let list = [labelled(
        "m5.large",
        1,
        &[("aws/instance-family", "m5"), ("other", "x")],
    )];
    let mut wants = demand(1000, 1024);
    wants.requirements = [[Requirement::new("aws/instance-famly", Operator::NotIn, ["t3"])].into()].into();
    assert_eq!(
        pick(&sizer(&list), &wants),
        "the pod selects by aws/instance-famly, which no instance has; there are aws/instance-family"
    );
    assert_eq!(
        pick(&sizer(&[offering("m", 2, 8, 1)]), &wants),
        "the pod selects by aws/instance-famly, and this cloud's instances have no labels to select by"
    );
}

#[test]
fn of_several_types_that_a_pod_names_the_cheapest_is_taken() {
    let list = [
        offering("a.large", 2, 8, 3),
        offering("b.large", 2, 8, 2),
        offering("c.large", 2, 8, 1),
    ];
    let mut wants = demand(1000, 1024);
    wants.instance_types = ["a.*".to_owned(), "b.large".to_owned()].into();
    assert_eq!(pick(&sizer(&list), &wants), "b.large/z1/on-demand");
    wants.instance_types = ["a.huge".to_owned(), "bb.*".to_owned()].into();
    assert_eq!(
        pick(&sizer(&list), &wants),
        "no instance type on offer is called a.huge or bb.*; there are a.large"
    );
    let list = [offering("m5.large", 2, 8, 3), offering("m5a.large", 2, 8, 3)];
    wants.instance_types = ["m55.large".to_owned()].into();
    assert_eq!(
        pick(&sizer(&list), &wants),
        "no instance type on offer is called m55.large; there are m5.*, m5a.*"
    );
}

#[test]
fn the_sentence_says_where_a_type_is_that_the_pod_s_zone_does_not_have() {
    let mut far = offering("gpu.large", 2, 8, 1);
    far.id = id("gpu.large", "z2", CapacityType::OnDemand);
    let mut wants = demand(1000, 1024);
    wants.instance_types = ["gpu.*".to_owned()].into();
    wants.zones = [Zone::new("z1")].into();
    assert_eq!(
        pick(&sizer(&[far, offering("m", 2, 8, 1)]), &wants),
        "0 of 2 offerings fit: 1 are not of instance type gpu.*, 1 are not in zone z1; it would fit in z2"
    );
}

#[test]
fn hardware_that_is_shared_is_never_sold_as_dedicated() {
    let mut apart = offering("m5", 2, 8, 2);
    apart.dedicated = true;
    let list = [offering("t2", 2, 8, 1), apart];
    let mut wants = demand(1000, 1024);
    wants.options.dedicated = true;
    assert_eq!(pick(&sizer(&list), &wants), "m5/z1/on-demand");
    assert_eq!(
        pick(&sizer(&list[..1]), &wants),
        "0 of 1 offerings fit: 1 cannot be dedicated"
    );
}

#[test]
fn an_operator_may_let_all_pods_have_spot_and_on_demand_when_spot_is_dry() {
    let mut spot = offering("m", 2, 8, 3);
    spot.id = id("m", "z1", CapacityType::Spot);
    let list = [offering("m", 2, 8, 9), spot.clone()];
    let both = [CapacityType::Spot, CapacityType::OnDemand];
    let mut sizer = CheapestFit::new(SizingPolicy::default().with_capacity_types(both));
    sizer.refresh(&list);
    let mut wants = demand(1000, 1024);
    assert_eq!(pick(&sizer, &wants), "m/z1/spot");
    let mut dry = Avoid::none();
    dry.until(spot.id, Timestamp::MAX);
    let choice = sizer.size(&wants, &dry, NOW).unwrap();
    assert_eq!(choice.offering.id, list[0].id);
    wants.capacity_types = [CapacityType::OnDemand].into();
    assert_eq!(
        pick(&sizer, &wants),
        "m/z1/on-demand",
        "the pod's own word counts more"
    );
}

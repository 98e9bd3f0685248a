//! The choice over the whole catalogue: what the old Kip chose, and what is chosen now.

use std::sync::OnceLock;

use jiff::Timestamp;
use kip_aws::catalogue::{Facts, classic_policy, offerings};
use kip_core::ids::{InstanceType, OfferingId, PodRef, PodUid, Zone};
use kip_core::model::{
    Architecture, Bytes, CapacityType, CpuMillis, Offering, Operator, PodDemand, Requirement,
};
use kip_core::sizing::{Avoid, Burstable, CheapestFit, InstanceSizer as _, SizingPolicy};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// One row of a table: its name, GiB, vCPUs, what else is asked, and the type that is taken.
struct Row {
    id: &'static str,
    gib: f64,
    cpus: f64,
    asks: Asks,
    takes: &'static str,
}

enum Asks {
    Nothing,
    Gpus(u64),
    Type(&'static str),
    Without(&'static str),
    Credits(Burstable),
}

fn row(id: &'static str, gib: f64, cpus: f64, asks: Asks, takes: &'static str) -> Row {
    Row {
        id,
        gib,
        cpus,
        asks,
        takes,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers of a table"
)]
fn demand(gib: f64, cpus: f64) -> PodDemand {
    let pod = PodRef {
        uid: PodUid::new("u"),
        namespace: "default".into(),
        name: "p".into(),
    };
    let memory = Bytes((gib * f64::from(1 << 30)).round() as u64);
    let mut demand = PodDemand::new(pod, CpuMillis((cpus * 1000.0).round() as u64), memory);
    demand.architectures = [Architecture::Amd64].into();
    demand
}

/// One zone that has them all, so that a row names a type.
fn list() -> Vec<Offering> {
    let mut list = offerings(&Facts::seeded("us-east-1").expect("the seed has us-east-1"));
    list.retain(|offering| offering.id.capacity_type == CapacityType::OnDemand);
    list
}

fn check(list: &[Offering], policy: &SizingPolicy, rows: &[Row]) {
    for Row {
        id,
        gib,
        cpus,
        asks,
        takes,
    } in rows
    {
        let mut demand = demand(*gib, *cpus);
        let mut policy = policy.clone();
        let mut avoid = Avoid::none();
        match asks {
            Asks::Nothing => {}
            Asks::Gpus(count) => drop(demand.extended.insert("nvidia.com/gpu".into(), *count)),
            Asks::Type(pattern) => demand.instance_types = [(*pattern).to_owned()].into(),
            Asks::Credits(burstable) => policy = policy.with_burstable(*burstable),
            Asks::Without(name) => {
                for zone in ["a", "b", "c", "d", "e", "f"] {
                    let id = OfferingId {
                        instance_type: InstanceType::new(*name),
                        zone: Zone::new(format!("us-east-1{zone}")),
                        capacity_type: CapacityType::OnDemand,
                    };
                    avoid.until(id, Timestamp::MAX);
                }
            }
        }
        let mut sizer = CheapestFit::new(policy);
        sizer.refresh(list);
        let taken = sizer
            .size(&demand, &avoid, NOW)
            .map(|choice| choice.offering.id.instance_type);
        assert_eq!(
            taken,
            Ok(InstanceType::new(*takes)),
            "{id}: {gib} GiB, {cpus} vCPU"
        );
    }
}

/// Whoever moves from the old Kip can have exactly what they had.
#[test]
fn the_compatibility_mode_makes_the_golden_choices_of_the_old_selector() {
    use Asks::{Credits, Gpus, Nothing, Type, Without};
    let rows = [
        row("aws-1", 0.5, 0.5, Nothing, "t3a.small"),
        row("aws-2", 0.5, 1.0, Nothing, "m1.small"),
        row("aws-3", 2.0, 1.0, Nothing, "t3a.small"),
        row("aws-4", 4.0, 1.0, Nothing, "t3a.medium"),
        row("aws-5", 1.5, 1.5, Nothing, "t3a.small"),
        row("aws-6", 4.0, 1.0, Gpus(1), "g4dn.xlarge"),
        row("aws-7", 180.0, 48.0, Nothing, "m5a.12xlarge"),
        row("aws-8", 15.0, 32.0, Nothing, "c5a.8xlarge"),
        // sustained=false: only the baseline counts.
        row("aws-9", 1.0, 1.0, Credits(Burstable::Baseline), "m1.small"),
        row("aws-10", 0.5, 0.5, Type("c5*"), "c5a.large"),
        row("aws-11", 15.0, 32.0, Type("m5.*"), "m5.8xlarge"),
        row("aws-12", 2.0, 1.0, Without("t3a.small"), "t3.small"),
        // dedicatedCPU: no burstable type.
        row("aws-13", 1.0, 1.0, Credits(Burstable::Never), "m1.small"),
    ];
    check(&list(), &classic_policy(), &rows);
}

/// The same pods today: a reserve for kernel and agent, newer families, nothing that is phased out.
#[test]
fn the_choices_of_today_leave_room_for_the_kernel_and_know_newer_types() {
    use Asks::{Gpus, Nothing, Type};
    let rows = [
        row("aws-1", 0.5, 0.5, Nothing, "t3a.small"),
        row("aws-2", 0.5, 1.0, Nothing, "t3a.small"),
        row("aws-4", 4.0, 1.0, Nothing, "r7a.medium"),
        row("aws-6", 4.0, 1.0, Gpus(1), "g4dn.xlarge"),
        row("aws-8", 15.0, 32.0, Nothing, "c6a.8xlarge"),
        row("aws-10", 0.5, 0.5, Type("c5*"), "c5a.large"),
        row("aws-11", 15.0, 32.0, Type("m5.*"), "m5.8xlarge"),
        row("old by name", 0.5, 1.0, Type("m1.small"), "m1.small"),
    ];
    check(&list(), &SizingPolicy::default(), &rows);
}

#[test]
fn arm_and_gpu_models_are_found_in_the_real_catalogue() {
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(&list());
    let take = |demand: &PodDemand| match sizer.size(demand, &Avoid::none(), NOW) {
        Ok(choice) => choice.offering.id.instance_type.as_str().to_owned(),
        Err(no_fit) => no_fit.message,
    };
    let mut wants = demand(6.0, 2.0);
    wants.architectures.insert(Architecture::Arm64);
    assert!(take(&wants).contains('g'), "{}", take(&wants));

    let mut wants = demand(8.0, 2.0);
    wants.extended.insert("nvidia.com/gpu".into(), 1);
    for (model, takes) in [
        ("nvidia-tesla-t4", "g4dn.xlarge"),
        ("L4", "g6.xlarge"),
        ("nvidia-h100", "p5.4xlarge"),
    ] {
        wants.gpu_models = [model.to_owned()].into();
        assert_eq!(take(&wants), takes, "{model}");
    }
    wants.gpu_models = ["RTX 9999".to_owned()].into();
    let message = take(&wants);
    assert!(
        message.contains("have no GPU of model RTX 9999 (others are A100, A10G, "),
        "{message}"
    );

    let mut wants = demand(1.0, 1.0);
    wants.instance_types = ["c99.*".to_owned()].into();
    assert_eq!(
        take(&wants),
        "no instance type on offer is called c99.*; there are c9g.*, c9gd.*"
    );
}

/// Two controllers see two lists in different orders, and must choose alike.
#[test]
fn the_order_in_which_ec2_lists_its_types_does_not_matter() {
    let mut reversed = list();
    reversed.reverse();
    let sizers = [list(), reversed].map(|list| {
        let mut sizer = CheapestFit::new(SizingPolicy::default());
        sizer.refresh(&list);
        sizer
    });
    for step in 0..60 {
        let demand = demand(f64::from(step) * 7.3, f64::from(step % 13) * 3.1);
        let [one, other] = &sizers;
        assert_eq!(
            one.size(&demand, &Avoid::none(), NOW),
            other.size(&demand, &Avoid::none(), NOW)
        );
    }
}

/// Selectors written for Karpenter choose the same kinds of instances here.
#[test]
fn pods_select_instances_by_the_labels_karpenter_taught_them() {
    use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(&list());
    let mut wrong = Vec::new();
    for (requirements, takes) in [
        (vec![("family", In, &["m6i", "m6a"][..])], "m6a.large"),
        (
            vec![("category", In, &["r"]), ("generation", Gt, &["6"])],
            "r7a.medium",
        ),
        (
            vec![("size", In, &["2xlarge"]), ("category", In, &["c"])],
            "c6a.2xlarge",
        ),
        (vec![("local-nvme", Gt, &["100"])], "c6id.large"),
        (
            vec![("local-nvme", Gt, &["1800"]), ("local-nvme", Lt, &["2000"])],
            "i3.2xlarge",
        ),
        (
            vec![("cpu", Gt, &["7"]), ("local-nvme", DoesNotExist, &[])],
            "t3a.2xlarge",
        ),
        (vec![("memory", Gt, &["65536"])], "x2iedn.xlarge"),
        (vec![("gpu-manufacturer", In, &["nvidia"])], "g4dn.xlarge"),
        (
            vec![("gpu-memory", Gt, &["20000"]), ("gpu-name", NotIn, &["l4"])],
            "g5.xlarge",
        ),
        (vec![("accelerator-name", Exists, &[])], "inf1.xlarge"),
        (
            vec![
                ("cpu-manufacturer", In, &["intel"]),
                ("hypervisor", In, &["nitro"]),
            ],
            "t3.micro",
        ),
        (vec![("capability-flex", In, &["true"])], "c7i-flex.large"),
    ] {
        let mut demand = demand(0.5, 0.5);
        let all = requirements
            .iter()
            .map(|(name, operator, values)| {
                let key = format!("karpenter.k8s.aws/instance-{name}");
                Requirement::new(key, *operator, values.iter().copied())
            })
            .collect();
        demand.requirements = [all].into();
        let taken = sizer.size(&demand, &Avoid::none(), NOW);
        let taken = taken.map(|choice| choice.offering.id.instance_type.to_string());
        if taken.as_deref() != Ok(takes) {
            wrong.push((requirements, taken));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_dedicated_instance_is_of_a_type_that_can_be_one() {
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(&list());
    let mut demand = demand(0.5, 0.5);
    demand.options.dedicated = true;
    let taken = sizer
        .size(&demand, &Avoid::none(), NOW)
        .expect("T3 can be dedicated");
    assert_eq!(taken.offering.id.instance_type.as_str(), "t3a.small");
    demand.instance_types = ["t2.*".to_owned()].into();
    let none = sizer.size(&demand, &Avoid::none(), NOW).expect_err("T2 cannot");
    assert!(none.message.contains("cannot be dedicated"), "{none}");
}

/// Everything of us-east-1, indexed once.
fn all_of_it() -> &'static CheapestFit {
    static SIZER: OnceLock<CheapestFit> = OnceLock::new();
    SIZER.get_or_init(|| {
        let mut sizer = CheapestFit::new(SizingPolicy::default());
        sizer.refresh(&offerings(
            &Facts::seeded("us-east-1").expect("the seed has us-east-1"),
        ));
        sizer
    })
}

fn any_demand() -> impl Strategy<Value = PodDemand> {
    let gpus = prop_oneof![6 => Just(0_u64), 1 => 1..9_u64];
    let pattern = proptest::option::weighted(
        0.2,
        prop_oneof![Just("m5.*"), Just("c*.xlarge"), Just("t3.small")],
    );
    (
        0.0..300.0_f64,
        0.0..100.0_f64,
        any::<(bool, bool, bool)>(),
        gpus,
        pattern,
    )
        .prop_map(|(gib, cpus, (arm, spot, zone), gpus, pattern)| {
            // Small pods are the many.
            let mut demand = demand(gib * gib / 300.0, cpus * cpus / 100.0);
            if arm {
                demand.architectures.insert(Architecture::Arm64);
            }
            if spot {
                demand.capacity_types = [CapacityType::OnDemand, CapacityType::Spot].into();
            }
            if zone {
                demand.zones.insert(Zone::new("us-east-1d"));
            }
            if gpus > 0 {
                demand.extended.insert("nvidia.com/gpu".into(), gpus);
            }
            demand.instance_types.extend(pattern.map(str::to_owned));
            demand
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over the real list: what is bought holds the pod, and nothing that holds it is cheaper; where nothing is bought, nothing holds it.
    #[test]
    fn in_all_of_ec2_nothing_cheaper_fits(demand in any_demand()) {
        let sizer = all_of_it();
        let taken = sizer.size(&demand, &Avoid::none(), NOW).ok().map(|choice| choice.offering);
        let price = taken.as_ref().map(|offering| sizer.effective_price(offering, &demand));
        if let Some(offering) = &taken {
            let reserve = sizer.policy().reserve_of(&offering.id.instance_type);
            prop_assert!(offering.cpu >= demand.cpu && reserve.usable(offering.memory) >= demand.memory);
            prop_assert!(demand.architectures.contains(&offering.architecture));
        }
        for other in sizer.explain(&demand, &Avoid::none(), NOW) {
            let fits_for_less = other.reasons.is_empty()
                && price.is_none_or(|price| sizer.effective_price(&other.offering, &demand) < price);
            prop_assert!(!fits_for_less, "{:?} and not {}", taken, other.offering.id);
        }
    }

    /// Over the real list: asking for more never costs less.
    #[test]
    fn in_all_of_ec2_more_never_costs_less(demand in any_demand(), cpu in 0..4000_u64, mib in 0..8000_u64) {
        let sizer = all_of_it();
        let mut more = demand.clone();
        more.cpu.0 += cpu;
        more.memory.0 += mib << 20;
        let price = |demand: &PodDemand| {
            let choice = sizer.size(demand, &Avoid::none(), NOW).ok()?;
            Some(sizer.effective_price(&choice.offering, demand))
        };
        if let Some(larger) = price(&more) {
            prop_assert!(price(&demand).is_some_and(|smaller| smaller <= larger));
        }
    }
}

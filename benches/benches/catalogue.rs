//! Placement over all that EC2 sells in three zones of us-east-1, on demand and as spot. Budgets: p50 at most 2 microseconds for one,
//! at most 200 including the index when it serves the pods of one refresh, 100 milliseconds for ten thousand.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use kip_aws::catalogue::{Facts, offerings};
use kip_core::ids::Zone;
use kip_core::model::{Architecture, Offering, Operator, PodDemand, Requirement};
use kip_core::sizing::{Avoid, CheapestFit, InstanceSizer as _, SizingPolicy};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const PODS: usize = 10_000;

/// Everything in the three zones.
fn catalogue() -> Vec<Offering> {
    let facts = match Facts::seeded("us-east-1") {
        Ok(facts) => facts,
        Err(error) => panic!("{error}"),
    };
    let mut list = offerings(&facts);
    list.retain(|offering| ZONES.contains(&offering.id.zone.as_str()));
    list
}

/// Pods of all kinds, as EC2 calls things; all fit somewhere.
fn demands() -> Vec<PodDemand> {
    let mut demands = benches::demands();
    for (n, demand) in demands.iter_mut().enumerate() {
        demand.zones = demand
            .zones
            .iter()
            .filter_map(|_| ZONES.get(n % 3))
            .map(|zone| Zone::new(*zone))
            .collect();
        if demand.architectures.is_empty() {
            demand.architectures.insert(Architecture::Amd64);
        }
        if !demand.instance_types.is_empty() {
            // No single family need have more than this.
            let pattern =
                (demand.cpu.0 <= 30_000).then(|| ["m5.*", "c6i.*", "r6a.*", "m7i*"][n % 4].to_owned());
            demand.instance_types = pattern.into_iter().collect();
            demand.architectures = [Architecture::Amd64].into();
        }
        if !demand.extended.is_empty() {
            demand.gpu_models = if n % 2 == 0 {
                ["T4".to_owned()].into()
            } else {
                [].into()
            };
        }
    }
    demands
}

fn placement(c: &mut Criterion) {
    let list = catalogue();
    // 1,320 and more types in three zones, sold in two ways.
    assert!(list.len() > 7_500, "{}", list.len());
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(&list);
    let (avoid, now) = (Avoid::none(), Timestamp::UNIX_EPOCH);
    let demands = demands();
    for demand in &demands {
        if let Err(no_fit) = sizer.size(demand, &avoid, now) {
            panic!("every demand of this benchmark fits somewhere: {demand:?}: {no_fit}");
        }
    }

    let mut next = demands.iter().cycle();
    c.bench_function("catalogue/one_placement_over_all_of_ec2", |b| {
        b.iter(|| {
            let choice = next
                .next()
                .map(|demand| sizer.size(black_box(demand), &avoid, now));
            black_box(choice)
        });
    });

    // What selects by labels is checked offering by offering.
    let mut by_labels: Vec<PodDemand> = demands
        .iter()
        .filter(|demand| {
            demand.instance_types.is_empty() && demand.extended.is_empty() && demand.cpu.0 <= 30_000
        })
        .cloned()
        .collect();
    for demand in &mut by_labels {
        let category = Requirement::new(
            "karpenter.k8s.aws/instance-category",
            Operator::In,
            ["c", "m", "r"],
        );
        let generation = Requirement::new("karpenter.k8s.aws/instance-generation", Operator::Gt, ["5"]);
        demand.requirements = [[category, generation].into()].into();
    }
    let mut next = by_labels.iter().cycle();
    c.bench_function("catalogue/one_placement_by_labels_over_all_of_ec2", |b| {
        b.iter(|| {
            let choice = next
                .next()
                .map(|demand| sizer.size(black_box(demand), &avoid, now));
            black_box(choice)
        });
    });

    c.bench_function("catalogue/ten_thousand_placements_over_all_of_ec2", |b| {
        b.iter(|| {
            let fit = demands.iter().cycle().take(PODS).filter(|demand| {
                let choice = sizer.size(black_box(demand), &avoid, now);
                choice.is_ok()
            });
            assert_eq!(fit.count(), PODS);
        });
    });

    c.bench_function("catalogue/refresh_all_of_ec2", |b| {
        b.iter(|| sizer.refresh(black_box(&list)))
    });

    c.bench_function("catalogue/refresh_and_ten_thousand_placements", |b| {
        b.iter(|| {
            sizer.refresh(black_box(&list));
            let fit = demands
                .iter()
                .cycle()
                .take(PODS)
                .filter(|demand| sizer.size(demand, &avoid, now).is_ok());
            assert_eq!(fit.count(), PODS);
        });
    });
}

criterion_group!(benches, placement);
criterion_main!(benches);

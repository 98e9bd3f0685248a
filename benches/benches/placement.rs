//! One placement over 3,000 offerings, also while three in ten have no capacity. Budget: p50 at most 2 microseconds, indexed.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use kip_core::capacity::{CapacityConfig, CapacityMemory, Outcome};
use kip_core::model::{Bytes, PodDemand};
use kip_core::sizing::{Avoid, CheapestFit, InstanceSizer as _, SizingPolicy};

fn placement(c: &mut Criterion) {
    let catalogue = benches::catalogue();
    assert_eq!(catalogue.len(), 3000);
    let mut sizer = CheapestFit::new(SizingPolicy::default());
    sizer.refresh(&catalogue);
    let (avoid, now) = (Avoid::none(), Timestamp::UNIX_EPOCH);
    let demands = benches::demands();
    for demand in &demands {
        if let Err(no_fit) = sizer.size(demand, &avoid, now) {
            panic!("every demand of this benchmark fits somewhere: {demand:?}: {no_fit}");
        }
    }

    let mut next = demands.iter().cycle();
    c.bench_function("placement/3000_offerings_mixed_pods", |b| {
        b.iter(|| {
            let demand = next
                .next()
                .map(|demand| sizer.size(black_box(demand), &avoid, now));
            black_box(demand)
        });
    });

    // Three offerings in ten have no capacity, and the memory of that is asked and told.
    let mut memory = CapacityMemory::new(CapacityConfig::default());
    for (n, offering) in catalogue.iter().enumerate() {
        if n * 7 % 10 < 3 {
            memory.ended(&offering.id, now, Outcome::NoCapacity, now);
        }
    }
    assert_eq!(memory.closed_offerings(), 900);
    let mut next = demands.iter().cycle();
    c.bench_function("placement/3000_offerings_mixed_pods_900_closed", |b| {
        b.iter(|| {
            let choice = next
                .next()
                .map(|demand| memory.place(&sizer, black_box(demand), &avoid, now));
            black_box(choice)
        });
    });

    let mut huge: PodDemand = demands[0].clone();
    huge.memory = Bytes::gib(1 << 20);
    c.bench_function("placement/3000_offerings_nothing_fits", |b| {
        b.iter(|| black_box(sizer.size(black_box(&huge), &avoid, now)));
    });

    c.bench_function("placement/refresh_3000_offerings", |b| {
        b.iter(|| sizer.refresh(black_box(&catalogue)));
    });
}

criterion_group!(benches, placement);
criterion_main!(benches);

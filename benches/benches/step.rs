//! One step of the machine. Budget: 1 microsecond, as the mean over an ordinary life from the first word of the source to a heartbeat.
//!
//! `event/...` shows what each event costs by itself. The dearest is `placed`, once per launch: it makes the record and hashes the
//! launch token.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use kip_core::ids::{ClusterUid, InstanceId, NodeName};
use kip_core::machine::{Event, Identity, Phase, PodState, StepConfig, Wanted, step};
use kip_core::model::{ContainerReport, ContainerState, Instance, RuntimeReport};
use kip_core::sizing::Choice;

fn report(pod: &str) -> RuntimeReport {
    let container = |name: &str| ContainerReport {
        name: name.into(),
        image: "registry.example/team/app:v1".into(),
        image_id: "registry.example/team/app@sha256:0123456789abcdef".into(),
        container_id: "containerd://0123456789abcdef".into(),
        restart_count: 0,
        state: ContainerState::Running {
            started_at: Timestamp::UNIX_EPOCH,
        },
        last_state: None,
        ready: true,
        started: true,
    };
    RuntimeReport {
        pod_uid: pod.into(),
        observed_generation: 1,
        boot_id: "b".into(),
        sandbox_ready: true,
        containers: vec![container("main"), container("proxy")],
        ..RuntimeReport::default()
    }
}

fn steps(c: &mut Criterion) {
    let cfg = StepConfig::new(Identity {
        cluster: ClusterUid::new("6e1f3c1e-0000-4000-8000-000000000000"),
        node: NodeName::new("kip-node"),
    });
    let mut now = Timestamp::UNIX_EPOCH;
    let demand = benches::demands().swap_remove(0);
    let pod = demand.pod.clone();
    let offering = benches::catalogue().swap_remove(0);
    let mut instance = Instance::new(InstanceId::new("i-1"), "x:///i-1", offering.id.clone(), now);
    instance.addresses.management = Some([10, 0, 0, 1].into());
    let wanted = Event::Wanted {
        wanted: Wanted::Run {
            demand: Arc::new(demand),
            active_deadline: None,
            restartable: true,
        },
        refresh: false,
        started_before: false,
    };
    let reported = |report: RuntimeReport| Event::Reported {
        attempt: 1,
        report: Arc::new(report),
    };
    let life = [
        ("wanted", wanted),
        ("placed", Event::Placed(Choice::new(offering))),
        (
            "launched",
            Event::Launched {
                attempt: 1,
                result: Ok(instance),
            },
        ),
        ("agent_answers", reported(RuntimeReport::default())),
        ("running", reported(report(pod.uid.as_str()))),
        // What a running pod costs from then on: the same report again, and a timer.
        ("heartbeat", reported(report(pod.uid.as_str()))),
        ("woke", Event::Woke),
    ];
    c.bench_function("step/mean_of_a_life", |b| {
        b.iter_custom(|lives| {
            let mut took = Duration::ZERO;
            for _ in 0..lives {
                let events = life.clone();
                let mut state = PodState::new(pod.clone(), now);
                let began = Instant::now();
                for (_, event) in events {
                    state = black_box(step(&cfg, state, event, now)).next;
                }
                took += began.elapsed();
            }
            took / u32::try_from(life.len()).unwrap_or(1)
        });
    });

    let mut state = PodState::new(pod, now);
    for (name, event) in life {
        c.bench_function(&format!("event/{name}"), |b| {
            b.iter_batched(
                || (state.clone(), event.clone()),
                |(state, event)| black_box(step(&cfg, state, event, now)),
                BatchSize::SmallInput,
            );
        });
        state = step(&cfg, state, event, now).next;
        now += Duration::from_millis(10);
    }
    assert_eq!(state.phase(), Phase::Running, "the life this benchmark is about");
}

criterion_group!(benches, steps);
criterion_main!(benches);

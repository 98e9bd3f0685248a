//! One step of a pod's machine. Budget: at most a microsecond.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use kip_core::ids::{ClusterUid, InstanceId, NodeName, PodRef, PodUid};
use kip_core::machine::{Event, Identity, Phase, PodState, StepConfig, Wanted, step};
use kip_core::model::{
    Bytes, ContainerReport, ContainerState, CpuMillis, Instance, InstancePhase, PodDemand, RuntimeReport,
};
use kip_core::sizing::Choice;

/// What happens to a pod on its way to running, one state before each event.
fn life(config: &StepConfig, now: Timestamp) -> Vec<(PodState, Event)> {
    let pod = PodRef {
        uid: PodUid::new("uid-1"),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
    };
    let demand = PodDemand::new(pod.clone(), CpuMillis(1000), Bytes::gib(1));
    let offering = benches::catalogue().swap_remove(0);
    let mut instance = Instance::new(InstanceId::new("i-1"), "fake:///i-1", offering.id.clone(), now);
    instance.phase = InstancePhase::Running;
    instance.addresses.management = Some([10, 0, 0, 1].into());
    let fresh = RuntimeReport {
        boot_id: "boot".to_owned(),
        ..RuntimeReport::default()
    };
    let events = [
        Event::Wanted {
            wanted: Wanted::Run {
                demand: Arc::new(demand),
                active_deadline: None,
                restartable: true,
            },
            refresh: false,
            started_before: false,
        },
        Event::Placed(Choice::new(offering)),
        Event::Launched {
            attempt: 1,
            result: Ok(instance),
        },
        Event::Reported {
            attempt: 1,
            report: Arc::new(fresh.clone()),
        },
        Event::Reported {
            attempt: 1,
            report: Arc::new(running(&fresh, now)),
        },
        // The same once more: the commonest event of all.
        Event::Reported {
            attempt: 1,
            report: Arc::new(running(&fresh, now)),
        },
    ];
    let mut state = PodState::new(pod, now);
    let mut pairs = Vec::new();
    for event in events {
        pairs.push((state.clone(), event.clone()));
        state = step(config, state, event, now).next;
    }
    assert_eq!(state.phase(), Phase::Running, "the story leads to a running pod");
    pairs
}

fn running(fresh: &RuntimeReport, now: Timestamp) -> RuntimeReport {
    RuntimeReport {
        pod_uid: "uid-1".to_owned(),
        observed_generation: 1,
        sandbox_ready: true,
        pod_ips: vec![[10, 0, 0, 2].into()],
        containers: vec![ContainerReport {
            name: "main".to_owned(),
            image: "docker.io/library/busybox:1.35".to_owned(),
            image_id: "sha256:1".to_owned(),
            container_id: "containerd://1".to_owned(),
            restart_count: 0,
            state: ContainerState::Running { started_at: now },
            last_state: None,
            ready: true,
            started: true,
        }],
        ..fresh.clone()
    }
}

fn steps(c: &mut Criterion) {
    let config = StepConfig::new(Identity {
        cluster: ClusterUid::new("cluster"),
        node: NodeName::new("node"),
    });
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
    let names = [
        "wanted",
        "placed",
        "launched",
        "connected",
        "running",
        "report_again",
    ];
    for (name, (state, event)) in names.into_iter().zip(life(&config, now)) {
        c.bench_function(&format!("step/{name}"), |b| {
            b.iter_batched(
                || (state.clone(), event.clone()),
                |(state, event)| step(black_box(&config), state, event, now),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);

//! Values the machine's tests are made of.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod life;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{ClusterUid, InstanceId, NodeName, PodRef, PodUid};
use kip_core::machine::{Identity, StepConfig, Wanted};
use kip_core::model::{
    ContainerReport, ContainerState, Instance, InstancePhase, Offering, PodDemand, RuntimeReport, StartMarks,
    Termination,
};
use kip_testkit::samples;

pub fn config() -> StepConfig {
    let mut config = StepConfig::new(Identity {
        cluster: ClusterUid::new("c"),
        node: NodeName::new("n"),
    });
    config.consistency = Duration::from_secs(20);
    config
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).expect("in range")
}

pub fn pod() -> PodRef {
    PodRef {
        uid: PodUid::new("p"),
        namespace: "default".into(),
        name: "web".into(),
    }
}

pub fn offering(name: &str) -> Offering {
    let all = samples::offerings();
    all.into_iter()
        .find(|offering| offering.id.instance_type.as_str() == name)
        .expect("a sample")
}

pub fn instance(id: &str, now: Timestamp) -> Instance {
    let mut instance = Instance::new(InstanceId::new(id), "fake:///x", offering("small").id, now);
    instance.phase = InstancePhase::Running;
    instance.addresses.management = Some("10.0.0.1".parse().expect("an address"));
    instance
}

pub fn run_wanted(restartable: bool, active_deadline: Option<Duration>) -> Wanted {
    let mut demand = samples::demand("web");
    demand.pod = pod();
    let demand: Arc<PodDemand> = Arc::new(demand);
    Wanted::Run {
        demand,
        active_deadline,
        restartable,
    }
}

/// What an agent says that runs pod `uid`, or whose pod ended with this code.
pub fn report(exit_code: Option<i32>, uid: &str) -> Arc<RuntimeReport> {
    let state = match exit_code {
        None => ContainerState::Running { started_at: at(1) },
        Some(exit_code) => ContainerState::Terminated(Termination {
            exit_code,
            signal: 0,
            reason: "Completed".into(),
            message: String::new(),
            started_at: Some(at(1)),
            finished_at: Some(at(2)),
            container_id: "x".into(),
        }),
    };
    Arc::new(RuntimeReport {
        pod_uid: uid.into(),
        observed_generation: 1,
        boot_id: "b".into(),
        sandbox_ready: true,
        finished: exit_code.is_some(),
        containers: vec![ContainerReport {
            name: "main".into(),
            image: "i".into(),
            image_id: String::new(),
            container_id: "x".into(),
            restart_count: 0,
            state,
            last_state: None,
            ready: exit_code.is_none(),
            started: true,
        }],
        marks: StartMarks {
            running_at: Some(at(1)),
            ..StartMarks::default()
        },
        ..RuntimeReport::default()
    })
}

//! Calls that must not be made: a mock fails the test that makes one.
#![cfg(feature = "mock")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kip_core::Result;
use kip_core::driver::{Kip, PodIntent, PodNotice, PodSource, Presence};
use kip_core::ids::{CellName, ClusterUid, NodeName, PodRef, PodUid};
use kip_core::mock::{MockCloudProvider, MockPodRuntime};
use kip_core::model::{Bytes, CpuMillis, PodDemand, PodManifest, PodPhase, PodReport};
use kip_core::provider::{Capabilities, ProviderInfo};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Reports {
    last: Mutex<BTreeMap<PodUid, PodReport>>,
    changed: Notify,
}

#[async_trait]
impl PodSource for Reports {
    async fn manifest(&self, _: &PodUid, _: &CellName, _: Option<std::net::IpAddr>) -> Result<PodManifest> {
        unreachable!("a refused pod is deployed nowhere")
    }
    async fn publish(&self, pod: &PodUid, report: &PodReport) -> Result<()> {
        self.last
            .lock()
            .expect("not poisoned")
            .insert(pod.clone(), report.clone());
        self.changed.notify_one();
        Ok(())
    }
    async fn notify(&self, _: &PodUid, _: PodNotice) {}
    async fn presence(&self, _: &PodRef) -> Result<Presence> {
        Ok(Presence::Wanted)
    }
    async fn release(&self, _: &PodUid) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_fails_without_a_single_call_that_could_cost_money() {
    let mut provider = MockCloudProvider::new();
    let info = ProviderInfo::new("mock", "mock-1", Capabilities::default());
    provider.expect_info().return_const(info);
    provider.expect_list().returning(|_| Box::pin(Nothing));
    provider.expect_offerings().returning(|_| Ok(Vec::new()));
    provider.expect_interruptions().returning(|| None);
    provider.expect_launch().never();
    let source = Arc::new(Reports::default());
    let driver = Kip::builder(Arc::new(provider))
        .identity(ClusterUid::new("c"), NodeName::new("n"))
        .runtime(Arc::new(MockPodRuntime::new()))
        .source(Arc::clone(&source) as Arc<_>)
        .build()
        .expect("builds");
    let handle = driver.handle();
    let task = tokio::spawn(driver.run(std::future::pending()));
    let pod = PodRef {
        uid: PodUid::new("u"),
        namespace: "default".into(),
        name: "privileged".into(),
    };
    let intent = PodIntent::Refuse {
        demand: Box::new(PodDemand::new(pod, CpuMillis(100), Bytes::mib(64))),
        reason: "Unsupported".into(),
        message: "spec.x: not possible here".into(),
    };
    let uid = PodUid::new("u");
    handle.intent(uid.clone(), intent);
    let published = async {
        while !source.last.lock().expect("not poisoned").contains_key(&uid) {
            source.changed.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), published)
        .await
        .expect("published in time");
    let report = source
        .last
        .lock()
        .expect("not poisoned")
        .remove(&uid)
        .expect("just seen");
    assert_eq!(
        (report.phase, report.reason.as_str()),
        (PodPhase::Failed, "Unsupported")
    );
    task.abort();
}

struct Nothing;

impl futures_core::Stream for Nothing {
    type Item = Result<kip_core::model::Instance>;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(None)
    }
}

//! The whole driver on an EC2 in which everything goes wrong: each pod has one instance, and none is left when the pods are gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use futures::stream::BoxStream;
use kip_core::ids::PodUid;
use kip_core::model::{PodManifest, RuntimeReport};
use kip_core::provider::{UserData, tags};
use kip_core::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};
use kip_core::{Error, ErrorKind};
use kip_testkit::ec2::Life;
use kip_testkit::samples;

use crate::fake::{FakeEc2, Fault, Leads as _};
use crate::running::Running;

/// How long all of it may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Hosts that never come up: what is looked at here ends before that.
#[derive(Debug, Default)]
pub(crate) struct NoHosts {
    /// How often one was dialled.
    pub(crate) dialled: AtomicUsize,
}

fn not_up() -> Error {
    Error::new(ErrorKind::Unavailable, "watch", "the host is not up")
}

#[async_trait]
impl PodRuntime for NoHosts {
    fn user_data(&self, request: &BootRequest) -> kip_core::Result<UserData> {
        Ok(UserData::new(request.token.as_str()))
    }

    async fn watch(
        &self,
        _: &CellEndpoint,
        patience: Duration,
    ) -> kip_core::Result<BoxStream<'static, kip_core::Result<RuntimeReport>>> {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        let up = tokio::time::timeout(patience, std::future::pending());
        up.await.map_err(|_| not_up())
    }

    async fn deploy(&self, _: &CellEndpoint, _: &PodManifest) -> kip_core::Result<()> {
        Err(not_up())
    }

    async fn update(&self, _: &CellEndpoint, _: &PodManifest) -> kip_core::Result<()> {
        Err(not_up())
    }

    async fn stop(&self, _: &CellEndpoint, _: &PodUid, _: Duration, _: &str) -> kip_core::Result<()> {
        Err(not_up())
    }

    async fn logs(
        &self,
        _: &CellEndpoint,
        _: &PodUid,
        _: LogRequest,
    ) -> kip_core::Result<BoxStream<'static, kip_core::Result<Vec<u8>>>> {
        Err(not_up())
    }

    async fn open(&self, _: &CellEndpoint, _: &PodUid, _: StreamKind) -> kip_core::Result<Upgrade> {
        Err(not_up())
    }

    async fn stats(&self, _: &CellEndpoint, _: &PodUid) -> kip_core::Result<PodStats> {
        Err(not_up())
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("{what}: not within {} s", PATIENCE.as_secs()),
    }
}

/// Instances a pod has.
fn by_pod(ec2: &FakeEc2) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for mut tags_of_it in ec2.state().alive() {
        let pod = tags_of_it.remove(tags::POD_UID).unwrap_or_default();
        *count.entry(pod).or_insert(0) += 1;
    }
    count
}

/// What is wrong with the lives of all instances there ever were: two for one attempt, or two of a pod at the same time.
fn doubles(ec2: &FakeEc2) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_pod: BTreeMap<String, Vec<Life>> = BTreeMap::new();
    for life in ec2.state().lives() {
        by_pod
            .entry(life.tags.get(tags::POD_UID).cloned().unwrap_or_default())
            .or_default()
            .push(life);
    }
    for (pod, mut lives) in by_pod {
        lives.sort_by_key(|life| life.from);
        let mut attempts = BTreeMap::new();
        for life in &lives {
            let attempt = life.tags.get(tags::ATTEMPT).cloned().unwrap_or_default();
            let count = attempts.entry(attempt).or_insert(0);
            *count += 1;
            if *count > 1 {
                wrong.push(format!("{pod}: two instances for one attempt: {:?}", life.tags));
            }
        }
        for pair in lives.windows(2) {
            if pair[0].until.is_none_or(|until| until > pair[1].from) {
                wrong.push(format!(
                    "{pod}: two instances at the same time: {:?}",
                    pair[1].tags
                ));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn every_pod_has_one_instance_and_none_is_left_whatever_ec2_does() -> Result<()> {
    const PODS: usize = 20;
    let ec2 = FakeEc2::start().await?;
    {
        let mut state = ec2.state();
        state.lag = Duration::from_millis(200);
        state.boot = Some(Duration::from_millis(100));
        state.shutdown = Duration::from_millis(100);
        // The cheapest is soon sold out, and the next subnet soon full.
        state.capacity.insert(("t3.small".into(), "us-east-1a".into()), 5);
        state.subnets.insert("subnet-b".into(), ("us-east-1b".into(), 9));
    }
    let mut config = ec2.config();
    config.list_lag = Duration::from_millis(500);
    config.call_timeout = Duration::from_secs(1);
    ec2.fail(
        "RunInstances",
        [
            Fault::LostReply,
            Fault::Refused("InternalError", 500),
            Fault::LostCall,
            Fault::Silence,
            Fault::Refused("RequestLimitExceeded", 503),
            Fault::LostReply,
        ],
    );
    ec2.fail(
        "TerminateInstances",
        [
            Fault::LostReply,
            Fault::Refused("RequestLimitExceeded", 503),
            Fault::LostCall,
        ],
    );
    ec2.fail("DescribeInstances", [Fault::LostReply, Fault::Silence]);

    let cloud = ec2.open(config).await?;
    let running = Running::start(cloud)?;
    let source = &running.source;
    let pods: Vec<PodUid> = (0..PODS)
        .map(|i| source.run(samples::demand(&format!("pod-{i}"))))
        .collect();

    until("each pod has an instance", || by_pod(&ec2).len() == PODS).await?;
    for pod in &pods {
        source.delete(pod, Duration::ZERO);
    }
    until("nothing is left", || {
        ec2.state().alive().is_empty() && source.is_empty()
    })
    .await?;
    let doubles = doubles(&ec2);
    ensure!(doubles.is_empty(), "{doubles:#?}");
    println!(
        "{PODS} pods: {} RunInstances, {} TerminateInstances, {} DescribeInstances",
        ec2.calls("RunInstances").len(),
        ec2.calls("TerminateInstances").len(),
        ec2.calls("DescribeInstances").len()
    );
    running.end().await
}

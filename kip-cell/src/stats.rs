//! Reports what the pod's containers use, as the runtime measures it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_cell_api::v1::{ContainerStats, StatsSample};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::cri::Runtime;
use crate::cri::v1::UInt64Value;
use crate::pod::model::Phase;
use crate::pod::project::proto_time;
use crate::pod::spec::{LABEL_CONTAINER, LABEL_UID};
use crate::reconcile::View;

/// Samples now and then every `interval_seconds`; one only when that is 0.
pub(crate) fn samples(
    runtime: Runtime,
    view: watch::Receiver<Arc<View>>,
    interval_seconds: u32,
) -> impl Stream<Item = Result<StatsSample, Status>> + Send {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(u64::from(interval_seconds.max(1))));
        loop {
            ticks.tick().await;
            let now = view.borrow().clone();
            if sender.send(sample(&runtime, &now).await).await.is_err() || interval_seconds == 0 {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn sample(runtime: &Runtime, view: &View) -> Result<StatsSample, Status> {
    let uid = view.pod.as_ref().map(|pod| pod.uid.clone()).unwrap_or_default();
    let stats = runtime.container_stats(&[(LABEL_UID, &uid)]).await;
    let stats = stats
        .map_err(|error| Status::unavailable(format!("the container runtime gave no usage: {error}")))?;
    let value = |value: Option<UInt64Value>| value.map_or(0, |value| value.value);
    let containers = stats.into_iter().filter_map(|stats| {
        let attributes = stats.attributes.unwrap_or_default();
        let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
        // Only live containers use anything; the runtime lists ended ones with zeros.
        let run = view.seen.runs.get(&attributes.id)?;
        let Phase::Running { started_at } = run.phase else {
            return None;
        };
        Some(ContainerStats {
            name: attributes
                .labels
                .get(LABEL_CONTAINER)
                .cloned()
                .unwrap_or_default(),
            cpu_nanoseconds: value(cpu.usage_core_nano_seconds),
            memory_working_set_bytes: value(memory.working_set_bytes),
            memory_usage_bytes: value(memory.usage_bytes),
            memory_rss_bytes: value(memory.rss_bytes),
            filesystem_used_bytes: value(stats.writable_layer.and_then(|layer| layer.used_bytes)),
            started_at: Some(proto_time(started_at)),
        })
    });
    Ok(StatsSample {
        at: Some(proto_time(Timestamp::now())),
        containers: containers.collect(),
        // CRI before 1.7 does not report the sandbox's network; 0 means unknown.
        network_rx_bytes: 0,
        network_tx_bytes: 0,
    })
}

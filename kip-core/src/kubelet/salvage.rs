//! Keeps the last log lines of pods that have ended, since their cells are terminated before anybody asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;

use crate::error::Result;
use crate::ids::PodUid;
use crate::model::RuntimeReport;
use crate::runtime::{CellEndpoint, LogRequest, PodRuntime};

/// Kept of one container.
const PER_CONTAINER: usize = 1 << 20;
/// Lines asked for; the rest of a longer log stays on the cell and goes with it.
const LINES: u64 = 20_000;
/// Kept altogether; beyond it the oldest pods' logs go.
const TOTAL: usize = 64 << 20;
/// How long a cell may take to give its logs before it is terminated without.
const PATIENCE: Duration = Duration::from_secs(5);

type Logs = BTreeMap<String, Arc<Vec<u8>>>;

/// The logs of ended pods, by pod and container, in memory.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pods: BTreeMap<PodUid, Logs>,
    order: VecDeque<PodUid>,
    size: usize,
}

impl Salvage {
    fn locked(&self) -> MutexGuard<'_, Kept> {
        // Each critical section leaves the parts consistent, so a panic elsewhere does not spoil them.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines kept of a container, each behind its timestamp.
    pub(crate) fn get(&self, pod: &PodUid, container: &str) -> Option<Arc<Vec<u8>>> {
        self.locked().pods.get(pod)?.get(container).cloned()
    }

    /// Whether this pod's logs are kept.
    pub(crate) fn has(&self, pod: &PodUid) -> bool {
        self.locked().pods.contains_key(pod)
    }

    /// Reads the logs of all containers that ran, at most five seconds, and keeps what came. Best effort: what cannot be read is lost
    /// with the cell, and that is logged.
    pub(crate) async fn read(
        &self,
        runtime: &Arc<dyn PodRuntime>,
        cell: &CellEndpoint,
        pod: &PodUid,
        report: &RuntimeReport,
    ) {
        let ran = report
            .init_containers
            .iter()
            .chain(&report.containers)
            .filter(|container| !container.container_id.is_empty());
        let reads = ran.map(|container| async {
            let name = container.name.clone();
            match tokio::time::timeout(PATIENCE, tail(runtime, cell, pod, &name)).await {
                Ok(Ok(lines)) => Some((name, Arc::new(lines))),
                Ok(Err(error)) => {
                    tracing::warn!(%pod, container = name, error = %error.chain(), "the logs of an ended pod could not be kept");
                    None
                }
                Err(_) => {
                    tracing::warn!(%pod, container = name, "the logs of an ended pod could not be kept: the cell was too slow");
                    None
                }
            }
        });
        let logs: Logs = join_all(reads).await.into_iter().flatten().collect();
        self.keep(pod.clone(), logs);
    }

    fn keep(&self, pod: PodUid, logs: Logs) {
        self.forget(&pod);
        let mut kept = self.locked();
        kept.size += size(&logs);
        kept.order.push_back(pod.clone());
        kept.pods.insert(pod, logs);
        while kept.size > TOTAL {
            let Some(oldest) = kept.order.pop_front() else {
                break;
            };
            if let Some(logs) = kept.pods.remove(&oldest) {
                kept.size -= size(&logs);
            }
        }
    }

    /// Drops what is kept of a pod.
    pub(crate) fn forget(&self, pod: &PodUid) {
        let mut kept = self.locked();
        if let Some(logs) = kept.pods.remove(pod) {
            kept.size -= size(&logs);
            kept.order.retain(|other| other != pod);
        }
    }
}

fn size(logs: &Logs) -> usize {
    logs.values().map(|lines| lines.len()).sum()
}

async fn tail(
    runtime: &Arc<dyn PodRuntime>,
    cell: &CellEndpoint,
    pod: &PodUid,
    container: &str,
) -> Result<Vec<u8>> {
    let request = LogRequest {
        container: container.to_owned(),
        timestamps: true,
        tail_lines: Some(LINES),
        ..LogRequest::default()
    };
    let mut stream = runtime.logs(cell, pod, request).await?;
    let mut lines: Vec<u8> = Vec::new();
    while let Some(bytes) = stream.next().await {
        lines.extend_from_slice(&bytes?);
        if lines.len() > 2 * PER_CONTAINER {
            cut(&mut lines);
        }
    }
    cut(&mut lines);
    Ok(lines)
}

/// Cuts the oldest lines off.
fn cut(lines: &mut Vec<u8>) {
    if lines.len() <= PER_CONTAINER {
        return;
    }
    let from = lines.len() - PER_CONTAINER;
    let line = lines[from..].iter().position(|byte| *byte == b'\n');
    lines.drain(..line.map_or(from, |at| from + at + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_whole() {
        let mut lines = Vec::new();
        for i in 0..200_000 {
            lines.extend_from_slice(format!("line {i}\n").as_bytes());
        }
        cut(&mut lines);
        assert!(lines.len() <= PER_CONTAINER);
        assert!(lines.starts_with(b"line ") && lines.ends_with(b"line 199999\n"));
    }

    #[test]
    fn old_pods_make_room_and_memory_stays_bounded() {
        let salvage = Salvage::default();
        for i in 0..100 {
            let logs = [("c".to_owned(), Arc::new(vec![b'x'; 1 << 20]))].into();
            salvage.keep(PodUid::new(format!("pod-{i:03}")), logs);
        }
        assert!(salvage.get(&PodUid::new("pod-000"), "c").is_none());
        assert!(salvage.get(&PodUid::new("pod-099"), "c").is_some());
        assert!(salvage.locked().size <= TOTAL);
        salvage.forget(&PodUid::new("pod-099"));
        assert!(!salvage.has(&PodUid::new("pod-099")));
    }
}

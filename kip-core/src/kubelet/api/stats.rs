//! Statistics of the node's pods: the kubelet's summary and resource metrics. Rendering is pure; samples are cached briefly.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::directory::PodDirectory;
use crate::ids::{NodeName, PodUid};
use crate::runtime::{ContainerStats, PodRuntime, PodStats};

/// How long a set of samples answers further scrapes.
const FRESH: Duration = Duration::from_secs(5);
/// A cell that does not answer in this time is left out of a scrape, so that one dead cell does not lose the others' metrics.
const PATIENCE: Duration = Duration::from_secs(3);
/// Cells asked at once.
const AT_ONCE: usize = 64;

/// One pod's sample.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) pod: Arc<Pod>,
    pub(super) stats: PodStats,
}

/// Samples of all pods, taken when asked and kept for [`FRESH`].
#[derive(Debug, Default)]
pub(super) struct Sampler {
    last: Mutex<Option<(Instant, Arc<Vec<Sample>>)>>,
}

impl Sampler {
    /// Samples not older than [`FRESH`]. Scrapes at the same time share one round.
    pub(super) async fn samples(
        &self,
        directory: &dyn PodDirectory,
        runtime: &dyn PodRuntime,
    ) -> Arc<Vec<Sample>> {
        let mut last = self.last.lock().await;
        if let Some((at, samples)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(samples);
        }
        let targets = directory.pods().into_iter().filter_map(|pod| {
            let uid = PodUid::new(pod.metadata.uid.clone()?);
            let endpoint = directory.endpoint(&uid)?;
            Some((pod, uid, endpoint))
        });
        let asked = stream::iter(targets.collect::<Vec<_>>()).map(async |(pod, uid, endpoint)| {
            match tokio::time::timeout(PATIENCE, runtime.stats(&endpoint, &uid)).await {
                Ok(Ok(stats)) => Some(Sample { pod, stats }),
                Ok(Err(error)) => {
                    tracing::debug!(cell = %endpoint.cell, error = %error.chain(), "a cell gave no statistics");
                    None
                }
                Err(_) => {
                    tracing::debug!(cell = %endpoint.cell, "a cell gave no statistics in time");
                    None
                }
            }
        });
        let samples: Vec<Sample> = asked
            .buffer_unordered(AT_ONCE)
            .filter_map(async |sample| sample)
            .collect()
            .await;
        let samples = Arc::new(samples);
        *last = Some((Instant::now(), Arc::clone(&samples)));
        samples
    }
}

/// `/stats/summary`: the node as the sum of its pods.
pub(super) fn summary(node: &NodeName, started: Timestamp, samples: &[Sample], now: Timestamp) -> Value {
    let total =
        |of: fn(&ContainerStats) -> u64| -> u64 { samples.iter().map(|sample| sum(&sample.stats, of)).sum() };
    json!({
        "node": {
            "nodeName": node.as_str(),
            "startTime": started.to_string(),
            "cpu": { "time": now.to_string(), "usageCoreNanoSeconds": total(|c| c.cpu_nanoseconds) },
            "memory": memory(now, total(|c| c.memory_working_set_bytes), total(|c| c.memory_usage_bytes), total(|c| c.memory_rss_bytes)),
        },
        "pods": samples.iter().map(pod_summary).collect::<Vec<_>>(),
    })
}

fn pod_summary(sample: &Sample) -> Value {
    let stats = &sample.stats;
    let meta = &sample.pod.metadata;
    let at = stats.at.to_string();
    json!({
        "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
        "startTime": sample.pod.status.as_ref().and_then(|status| status.start_time.as_ref()),
        "cpu": { "time": at, "usageCoreNanoSeconds": sum(stats, |c| c.cpu_nanoseconds) },
        "memory": memory(
            stats.at,
            sum(stats, |c| c.memory_working_set_bytes),
            sum(stats, |c| c.memory_usage_bytes),
            sum(stats, |c| c.memory_rss_bytes),
        ),
        "network": { "time": at, "rxBytes": stats.network_rx_bytes, "txBytes": stats.network_tx_bytes },
        "containers": stats.containers.iter().map(|container| json!({
            "name": container.name,
            "startTime": container.started_at.map(|at| at.to_string()),
            "cpu": { "time": at, "usageCoreNanoSeconds": container.cpu_nanoseconds },
            "memory": memory(
                stats.at,
                container.memory_working_set_bytes,
                container.memory_usage_bytes,
                container.memory_rss_bytes,
            ),
            "rootfs": { "time": at, "usedBytes": container.filesystem_used_bytes },
        })).collect::<Vec<_>>(),
    })
}

fn memory(at: Timestamp, working_set: u64, usage: u64, rss: u64) -> Value {
    json!({ "time": at.to_string(), "workingSetBytes": working_set, "usageBytes": usage, "rssBytes": rss })
}

fn sum(stats: &PodStats, of: fn(&ContainerStats) -> u64) -> u64 {
    stats.containers.iter().map(of).sum()
}

/// `/metrics/resource` in the text format metrics-server reads. Each sample carries the time it was taken at. Labels of containers come in the
/// order container, pod, namespace, which both metrics-server and the virtual-kubelet suite accept.
pub(super) fn resource_metrics(samples: &[Sample], now: Timestamp) -> String {
    let mut out = String::new();
    let node_cpu: f64 = samples
        .iter()
        .map(|sample| seconds(sum(&sample.stats, |c| c.cpu_nanoseconds)))
        .sum();
    let node_memory: u64 = samples
        .iter()
        .map(|sample| sum(&sample.stats, |c| c.memory_working_set_bytes))
        .sum();
    let at = now.as_millisecond();
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative CPU time of the node's pods in seconds",
    );
    line(&mut out, "node_cpu_usage_seconds_total", &[], node_cpu, at);
    head(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "Working set of the node's pods in bytes",
    );
    line(&mut out, "node_memory_working_set_bytes", &[], node_memory, at);

    type Series = (
        &'static str,
        &'static str,
        &'static str,
        fn(&ContainerStats) -> Option<f64>,
    );
    const CONTAINER: [Series; 3] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative CPU time of the container in seconds",
            |c| Some(seconds(c.cpu_nanoseconds)),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Working set of the container in bytes",
            |c| Some(float(c.memory_working_set_bytes)),
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since the Unix epoch in seconds",
            |c| c.started_at.map(|at| at.as_duration().as_secs_f64()),
        ),
    ];
    for (name, kind, help, of) in CONTAINER {
        head(&mut out, name, kind, help);
        for sample in samples {
            let (pod, namespace) = names(&sample.pod);
            for container in &sample.stats.containers {
                if let Some(value) = of(container) {
                    let labels = [
                        ("container", container.name.as_str()),
                        ("pod", pod),
                        ("namespace", namespace),
                    ];
                    line(&mut out, name, &labels, value, sample.stats.at.as_millisecond());
                }
            }
        }
    }
    head(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative CPU time of the pod in seconds",
    );
    for sample in samples {
        let (pod, namespace) = names(&sample.pod);
        let value = seconds(sum(&sample.stats, |c| c.cpu_nanoseconds));
        let labels = [("namespace", namespace), ("pod", pod)];
        line(
            &mut out,
            "pod_cpu_usage_seconds_total",
            &labels,
            value,
            sample.stats.at.as_millisecond(),
        );
    }
    head(
        &mut out,
        "pod_memory_working_set_bytes",
        "gauge",
        "Working set of the pod in bytes",
    );
    for sample in samples {
        let (pod, namespace) = names(&sample.pod);
        let value = sum(&sample.stats, |c| c.memory_working_set_bytes);
        let labels = [("namespace", namespace), ("pod", pod)];
        line(
            &mut out,
            "pod_memory_working_set_bytes",
            &labels,
            value,
            sample.stats.at.as_millisecond(),
        );
    }
    head(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting the metrics, 0 otherwise",
    );
    line(&mut out, "resource_scrape_error", &[], 0, at);
    out
}

fn names(pod: &Pod) -> (&str, &str) {
    (
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
    )
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display, at: i64) {
    out.push_str(name);
    for (i, (key, value)) in labels.iter().enumerate() {
        // Values are Kubernetes names, which need no escaping.
        let _ = write!(out, "{}{key}=\"{value}\"", if i == 0 { '{' } else { ',' });
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value} {at}");
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of bytes is exact up to 8 PiB")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("shop".into());
        pod.metadata.uid = Some("u-1".into());
        let at = Timestamp::from_millisecond(1_000).expect("a time");
        let container = ContainerStats {
            name: "main".into(),
            cpu_nanoseconds: 1_500_000_000,
            memory_working_set_bytes: 4096,
            started_at: Some(at),
            ..ContainerStats::default()
        };
        let stats = PodStats {
            at,
            containers: vec![container],
            network_rx_bytes: 1,
            network_tx_bytes: 2,
        };
        Sample {
            pod: Arc::new(pod),
            stats,
        }
    }

    #[test]
    fn metrics_server_finds_cpu_memory_and_start_time_or_kubectl_top_would_be_empty() {
        let text = resource_metrics(&[sample()], Timestamp::from_millisecond(2_000).expect("a time"));
        for expected in [
            "node_cpu_usage_seconds_total 1.5 2000\n",
            "container_cpu_usage_seconds_total{container=\"main\",pod=\"web\",namespace=\"shop\"} 1.5 1000\n",
            "container_memory_working_set_bytes{container=\"main\",pod=\"web\",namespace=\"shop\"} 4096 1000\n",
            "container_start_time_seconds{container=\"main\",pod=\"web\",namespace=\"shop\"} 1 1000\n",
            "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 1.5 1000\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn the_summary_names_node_pod_and_every_container() {
        let now = Timestamp::UNIX_EPOCH;
        let summary = summary(&NodeName::new("kip"), now, &[sample()], now);
        assert_eq!(summary["node"]["nodeName"], "kip");
        assert_eq!(summary["pods"][0]["podRef"]["uid"], "u-1");
        assert_eq!(summary["pods"][0]["containers"][0]["name"], "main");
    }
}

//! The driver's counters as Prometheus metrics. Names and meanings are listed in `docs/operations.md`.

use kip_core::driver::{BUCKETS, DriverMetrics, Durations, HeldBack, LaunchOutcome};
use kip_core::model::NoticeKind;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A family of one kind of metric, each with its labels.
pub(crate) fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, std::fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

/// Writes the driver's counters.
pub(crate) fn encode(
    metrics: &DriverMetrics,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);

    let mut pods = family(
        encoder,
        "kip_pods",
        "Pods by the phase of their machine",
        MetricType::Gauge,
    )?;
    for (phase, count) in &metrics.pods {
        let labels = [("phase", phase.to_string())];
        ConstGauge::new(signed(*count)).encode(pods.encode_family(&labels)?)?;
    }

    let help = "Steps from one phase to another";
    let mut transitions = family(encoder, "kip_transitions", help, MetricType::Counter)?;
    for ((from, to), count) in &metrics.transitions {
        let labels = [("from", from.to_string()), ("to", to.to_string())];
        ConstCounter::new(*count).encode(transitions.encode_family(&labels)?)?;
    }

    let help = "How long calls to the provider took";
    let name = "kip_provider_request_duration_seconds";
    let mut requests = family(encoder, name, help, MetricType::Histogram)?;
    for (op, durations) in &metrics.requests {
        let labels = [("op", *op)];
        encode_durations(durations, requests.encode_family(&labels)?)?;
    }

    let help = "Calls to the provider that failed";
    let mut errors = family(encoder, "kip_provider_errors", help, MetricType::Counter)?;
    for ((op, kind), count) in &metrics.errors {
        let labels = [("op", *op), ("error_kind", kind.as_str())];
        ConstCounter::new(*count).encode(errors.encode_family(&labels)?)?;
    }

    let help = "From the decision to launch to all containers running";
    let running = family(
        encoder,
        "kip_launch_to_running_seconds",
        help,
        MetricType::Histogram,
    )?;
    encode_durations(&metrics.launch_to_running, running)?;

    encode_launches(metrics, encoder)?;

    let help = "What the cloud announced about instances that run a pod";
    let mut notices = family(encoder, "kip_instance_notices", help, MetricType::Counter)?;
    for kind in NoticeKind::ALL {
        let count = metrics.notices.get(&kind).copied().unwrap_or(0);
        ConstCounter::new(count).encode(notices.encode_family(&[("kind", kind.as_str())])?)?;
    }

    let gauges = [
        (
            "kip_launches_under_way",
            "Launch calls that were not answered yet",
            metrics.launches_under_way,
        ),
        (
            "kip_launch_queue_length",
            "Launches that wait for their turn",
            metrics.launch_queue_length,
        ),
        (
            "kip_offerings_closed",
            "Offerings that no pod is placed on for want of capacity, until a probe",
            metrics.offerings_closed,
        ),
        (
            "kip_quotas_closed",
            "Capacity types believed to be at the account's limit",
            metrics.quotas_closed,
        ),
        (
            "kip_zones_closed",
            "Zones believed to have no room for any type",
            metrics.zones_closed,
        ),
        (
            "kip_orphans",
            "What the last sweep found left over",
            metrics.orphans,
        ),
        (
            "kip_foreign_instances",
            "Instances with this node's tags that are not proved to be Kip's; never touched",
            metrics.foreign,
        ),
        (
            "kip_cells_damaged",
            "Cell records that were changed by hand or cannot be read; never acted on",
            metrics.damaged,
        ),
        (
            "kip_queue_depth",
            "Pods that wait to be worked on, or are",
            metrics.queue_depth,
        ),
    ];
    for (name, help, value) in gauges {
        ConstGauge::new(signed(value)).encode(family(encoder, name, help, MetricType::Gauge)?)?;
    }
    let seconds = [
        (
            "kip_launch_queue_oldest_seconds",
            "How long the oldest pod whose launch waits for its turn has been waiting",
            Some(metrics.launch_queue_oldest.as_secs_f64()),
        ),
        (
            "kip_launches_wasted_per_success",
            "Wasted launches for each instance that ran its pod, since the start",
            metrics.wasted_per_success(),
        ),
    ];
    for (name, help, value) in seconds {
        if let Some(value) = value {
            ConstGauge::new(value).encode(family(encoder, name, help, MetricType::Gauge)?)?;
        }
    }
    let counters = [
        (
            "kip_launches_wasted",
            "Launch calls refused, and instances that ended before they ran their pod",
            metrics.wasted_launches,
        ),
        (
            "kip_launches_ambiguous",
            "Launch calls that ended without a clear answer",
            metrics.ambiguous_launches,
        ),
        (
            "kip_sizing_advice",
            "Pods that would cost at least 20 % less if they asked for at most 15 % less",
            metrics.advised,
        ),
        (
            "kip_cells_adopted",
            "Cells taken over from a controller before this one",
            metrics.adopted,
        ),
    ];
    for (name, help, value) in counters {
        ConstCounter::new(value).encode(family(encoder, name, help, MetricType::Counter)?)?;
    }
    Ok(())
}

/// How launches and the limits of the provider went. Labels that did not occur yet are zero, so that rates can be formed from the start.
fn encode_launches(
    metrics: &DriverMetrics,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let help = "Launch calls that were answered";
    let mut launches = family(encoder, "kip_launches", help, MetricType::Counter)?;
    for outcome in LaunchOutcome::ALL {
        let count = metrics.launches.get(&outcome).copied().unwrap_or(0);
        ConstCounter::new(count).encode(launches.encode_family(&[("outcome", outcome.as_str())])?)?;
    }

    let help = "Launches that waited for their turn and were not sent";
    let mut held_back = family(encoder, "kip_launches_held_back", help, MetricType::Counter)?;
    for reason in HeldBack::ALL {
        let count = metrics.held_back.get(&reason).copied().unwrap_or(0);
        ConstCounter::new(count).encode(held_back.encode_family(&[("reason", reason.as_str())])?)?;
    }

    let help = "Calls the provider refused because there were too many";
    let mut throttled = family(encoder, "kip_provider_throttled", help, MetricType::Counter)?;
    for class in ["launch", "read", "terminate"] {
        let count = metrics.throttled.get(class).copied().unwrap_or(0);
        ConstCounter::new(count).encode(throttled.encode_family(&[("class", class)])?)?;
    }

    let help = "Calls a second let through to the provider, for classes it has throttled lately";
    let mut rates = family(encoder, "kip_governor_rate", help, MetricType::Gauge)?;
    for (class, rate) in &metrics.governor_rates {
        ConstGauge::new(*rate).encode(rates.encode_family(&[("class", *class)])?)?;
    }
    Ok(())
}

fn encode_durations(durations: &Durations, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(durations.counts).collect();
    encoder.encode_histogram::<NoLabelSet>(durations.sum, durations.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Fixed(DriverMetrics);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            encode(&self.0, &mut encoder)
        }
    }

    fn text() -> String {
        let mut metrics = DriverMetrics::default();
        metrics.launches.insert(LaunchOutcome::NoCapacity, 3);
        metrics.wasted_launches = 3;
        metrics.launch_to_running.counts[0] = 60;
        metrics.governor_rates.insert("launch", 2.5);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(metrics)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn wasted_launches_can_be_read_in_total_and_per_success() {
        let text = text();
        for line in [
            "kip_launches_total{outcome=\"no_capacity\"} 3",
            "kip_launches_total{outcome=\"launched\"} 0",
            "kip_launches_wasted_total 3",
            "kip_launches_wasted_per_success 0.05",
            "kip_governor_rate{class=\"launch\"} 2.5",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_explained_in_the_operations_page() {
        let page = include_str!("../../docs/operations.md");
        for line in text().lines() {
            let Some(rest) = line.strip_prefix("# TYPE ") else {
                continue;
            };
            let (name, kind) = rest.split_once(' ').unwrap();
            let name = if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            };
            assert!(
                page.contains(&format!("`{name}")),
                "docs/operations.md does not tell what {name} means"
            );
        }
    }
}

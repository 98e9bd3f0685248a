//! How fresh the list of what a cloud sells is, as metrics. Names and meanings are listed in `docs/operations.md`.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::exposition::family;

/// A part of the list.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Its name, as a label.
    pub(crate) name: &'static str,
    /// Seconds since it was true.
    pub(crate) age: u64,
    /// How often it could not be had, since the start.
    pub(crate) failures: u64,
}

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Freshness(Arc<dyn Fn(Timestamp) -> Vec<Part> + Send + Sync>);

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Freshness(..)")
    }
}

impl Freshness {
    /// Asks by this.
    #[cfg_attr(not(any(test, feature = "aws")), expect(dead_code, reason = "no cloud tells"))]
    pub(crate) fn new(ask: impl Fn(Timestamp) -> Vec<Part> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Writes the metrics of now.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let parts = (self.0)(Timestamp::now());
        let help = "Seconds since what is known of types and prices was true";
        let mut ages = family(encoder, "kip_catalogue_age_seconds", help, MetricType::Gauge)?;
        for part in &parts {
            let age = i64::try_from(part.age).unwrap_or(i64::MAX);
            ConstGauge::new(age).encode(ages.encode_family(&[("part", part.name)])?)?;
        }
        let help = "How often types or prices could not be had";
        let name = "kip_catalogue_refresh_failures";
        let mut failures = family(encoder, name, help, MetricType::Counter)?;
        for part in &parts {
            ConstCounter::new(part.failures).encode(failures.encode_family(&[("part", part.name)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Fixed(Freshness);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            self.0.encode(&mut encoder)
        }
    }

    /// Prices that nobody could refresh for a week are found by their age.
    #[test]
    fn the_age_of_each_part_can_be_read_and_is_explained() {
        let freshness = Freshness::new(|_| {
            vec![Part {
                name: "spot_prices",
                age: 601,
                failures: 2,
            }]
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(freshness)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let page = include_str!("../../docs/operations.md");
        for line in [
            "kip_catalogue_age_seconds{part=\"spot_prices\"} 601",
            "kip_catalogue_refresh_failures_total{part=\"spot_prices\"} 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
            let name = line.split('{').next().unwrap();
            assert!(
                page.contains(&format!("`{name}")),
                "docs/operations.md does not tell what {name} means"
            );
        }
    }
}

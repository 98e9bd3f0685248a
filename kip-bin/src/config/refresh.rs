//! `cloud.aws.refresh`: how often types and prices are asked for.

use std::time::Duration;

use serde::Serialize;

use super::document::Section;
use super::show;

/// More often than this the calls are of no use, and are missed elsewhere.
const LEAST: Duration = Duration::from_secs(60);

/// `cloud.aws.refresh`. Zero is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refresh {
    /// Instance types, and which zones have them. Default 6h.
    #[serde(serialize_with = "show::duration")]
    pub(super) types: Duration,
    /// On-demand prices. Default 12h.
    #[serde(serialize_with = "show::duration")]
    pub(super) on_demand_prices: Duration,
    /// Spot prices. Default 10m.
    #[serde(serialize_with = "show::duration")]
    pub(super) spot_prices: Duration,
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            types: Duration::from_secs(6 * 3600),
            on_demand_prices: Duration::from_secs(12 * 3600),
            spot_prices: Duration::from_secs(600),
        }
    }
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Refresh {
    let default = Refresh::default();
    let period = |key, default| {
        let period = section.duration(key).unwrap_or(default);
        if !period.is_zero() && period < LEAST {
            section.problem(key, "must be at least 1m, or 0s for never");
        }
        period
    };
    let refresh = Refresh {
        types: period("types", default.types),
        on_demand_prices: period("onDemandPrices", default.on_demand_prices),
        spot_prices: period("spotPrices", default.spot_prices),
    };
    section.finish();
    refresh
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use kip_aws::catalogue::Refresh;

    use crate::config::{Cloud, parse};

    fn settings(aws: &str) -> Result<kip_aws::AwsConfig, String> {
        let text = format!("{{cloud: {{aws: {aws}}}, cells: {{bootImageSpec: {{imageIDs: ami-1}}}}}}");
        let loaded = parse(&text, "provider.yaml").map_err(|problems| format!("{problems:?}"))?;
        match &loaded.config.cloud {
            Cloud::Aws(aws) => Ok(aws.settings(&loaded.config.cells)),
            other => panic!("{other:?}"),
        }
    }

    /// Two places have the defaults: one would be told, the other used.
    #[test]
    fn what_is_printed_as_the_default_is_the_default() {
        assert_eq!(
            settings("{region: us-east-1}").unwrap().refresh,
            Refresh::default()
        );
    }

    #[test]
    fn how_often_prices_are_asked_for_is_the_operator_s() {
        let settings = settings(
            "{region: us-east-1, pricingEndpointURL: 'https://p.example', refresh: {types: 0s, spotPrices: 5m}}",
        )
        .unwrap();
        assert_eq!(
            settings.pricing_endpoint_url.as_deref(),
            Some("https://p.example")
        );
        assert!(settings.refresh.types.is_zero());
        assert_eq!(settings.refresh.spot.as_secs(), 300);
        assert_eq!(settings.refresh.on_demand, Refresh::default().on_demand);
    }

    #[test]
    fn a_period_that_would_storm_ec2_is_refused_where_it_is_written() {
        for (aws, says) in [
            (
                "{refresh: {spotPrices: 5s}}",
                "cloud.aws.refresh.spotPrices\", message: \"must be at least 1m",
            ),
            ("{refresh: {spot: 5m}}", "cloud.aws.refresh.spot"),
            ("{pricingEndpointURL: x}", "cloud.aws.pricingEndpointURL"),
        ] {
            let problems = settings(aws).unwrap_err();
            assert!(problems.contains(says), "{problems}");
        }
    }
}

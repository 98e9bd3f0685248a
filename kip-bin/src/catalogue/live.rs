//! What EC2 says now, asked once, for `kip catalogue --live` and `kip size --live`.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use kip_aws::catalogue::{Catalogue, Facts, Live, LivePart, LiveSource, merge, offerings};
use kip_aws::{AwsCloud, AwsConfig};
use kip_core::provider::{CloudProvider as _, OfferingQuery};

use super::Known;
use crate::config::{Aws, Cloud, Config};
use crate::wire;

/// How it went for one part.
#[derive(Debug)]
pub(super) struct Asked {
    /// Which part.
    pub(super) part: LivePart,
    /// How many types, offerings or prices EC2 told and how that differs from what was known, or why it did not tell.
    pub(super) outcome: Result<String, String>,
}

/// What is known of a region after EC2 was asked for each part once, and how that went.
///
/// # Errors
/// When no region is named, or there are no usable credentials.
pub(super) async fn ask(config: &AwsConfig) -> anyhow::Result<(Facts, Vec<Asked>)> {
    // Boxed: the futures of the SDK are large, and awaited once.
    let source = Box::pin(LiveSource::connect(config)).await?;
    let mut facts = Facts::seeded_or_new(source.region())?;
    let as_of = Timestamp::now();
    let parts = LivePart::ALL.map(|part| {
        let source = source.clone();
        Box::pin(async move { (part, source.fetch(part).await) })
    });
    let mut asked = Vec::new();
    for (part, fetched) in join_all(parts).await {
        let outcome = match fetched {
            Ok(fetched) => {
                let told = told(&facts, &fetched.live, fetched.rejected);
                match merge(&facts, fetched.live, as_of) {
                    Ok(merged) => {
                        facts = merged;
                        Ok(told)
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        asked.push(Asked { part, outcome });
    }
    Ok((facts, asked))
}

/// How much of an answer is news.
fn told(facts: &Facts, live: &Live, rejected: usize) -> String {
    let mut text = match live {
        Live::Kinds(kinds) => {
            let known = kinds
                .iter()
                .filter(|kind| facts.kinds.contains_key(&kind.name))
                .count();
            let gone = facts.kinds.len() - known;
            format!(
                "{} types, {} of them new; {gone} gone",
                kinds.len(),
                kinds.len() - known
            )
        }
        Live::Zones(zones) => {
            let told: usize = zones.values().map(std::collections::BTreeSet::len).sum();
            let known: usize = zones
                .iter()
                .filter_map(|(zone, types)| Some(facts.zones.get(zone)?.intersection(types).count()))
                .sum();
            let before: usize = facts.zones.values().map(std::collections::BTreeSet::len).sum();
            format!(
                "{told} types in {} zones, {} of them new; {} gone",
                zones.len(),
                told - known,
                before - known
            )
        }
        Live::OnDemandPrices(prices) => {
            let changed = prices
                .iter()
                .filter(|(name, price)| facts.on_demand.get(*name).is_some_and(|known| known != *price))
                .count();
            let new = prices
                .keys()
                .filter(|name| !facts.on_demand.contains_key(*name))
                .count();
            format!("{} prices, {new} of them new, {changed} changed", prices.len())
        }
        Live::SpotPrices(prices) => format!("{} prices, where there were only estimates", prices.len()),
        // A part this program does not know yet.
        _ => "told".to_owned(),
    };
    if rejected > 0 {
        text.push_str(&format!("; {rejected} make no sense and are left out"));
    }
    text
}

/// The settings to ask a region with: those of the configuration where it is one of EC2, else the environment's.
pub(super) fn settings(region: Option<&str>, config: Option<&Config>) -> AwsConfig {
    let mut settings = match config.map(|config| (&config.cloud, &config.cells)) {
        Some((Cloud::Aws(aws), cells)) => aws.settings(cells),
        _ => AwsConfig::default(),
    };
    if let Some(region) = region {
        settings.region = Some(region.to_owned());
    }
    settings
}

/// What a region sells.
pub(super) fn region(region: &str, config: &Config) -> anyhow::Result<Known> {
    let settings = settings(Some(region), Some(config));
    let (facts, asked) = wire::block_on(async { Box::pin(ask(&settings)).await })?;
    let mut notes = notes(&facts, &asked);
    notes.push(format!("all zones of {region} and all architectures are assumed"));
    Ok(Known {
        offerings: offerings(&facts),
        notes,
    })
}

/// What the configured cloud could launch: in the zones of its subnets, for the architectures of its images.
pub(super) fn configured(aws: &Aws, config: &Config) -> anyhow::Result<Known> {
    let settings = aws.settings(&config.cells);
    wire::block_on(async {
        let (facts, asked) = Box::pin(ask(&settings)).await?;
        let notes = notes(&facts, &asked);
        let catalogue = Arc::new(Catalogue::new(facts));
        let opening = AwsCloud::builder(settings).catalogue(catalogue).open();
        let cloud = Box::pin(opening).await?;
        Ok(Known {
            offerings: cloud.offerings(&OfferingQuery::default()).await?,
            notes,
        })
    })
}

/// Whose prices these are.
pub(super) fn notes(facts: &Facts, asked: &[Asked]) -> Vec<String> {
    let mut fresh = Vec::new();
    let mut notes = Vec::new();
    for Asked { part, outcome } in asked {
        match outcome {
            Ok(_) => fresh.push(part.to_string()),
            Err(why) => {
                let as_of = facts.stamp(*part).as_of.strftime("%F");
                notes.push(format!(
                    "{part} are not of now but of {as_of}, as compiled in: {why}"
                ));
            }
        }
    }
    if !fresh.is_empty() {
        let whose = format!("as EC2 says now about {}: {}", facts.region, fresh.join(", "));
        notes.insert(0, whose);
    }
    notes
}

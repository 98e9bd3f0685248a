//! `kip catalogue` of EC2: what is compiled in, and what EC2 says now.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context as _;
use kip_aws::catalogue::{Facts, InstanceKind, LivePart, PriceSource, Seed, offerings, spot_estimate};
use kip_core::sizing::type_matches;
use serde_json::json;

use super::{Known, live};
use crate::args::{CatalogueArgs, SizeOutput};
use crate::config::{self, Aws};
use crate::{output, wire};

pub(super) fn compiled_in(region: &str) -> anyhow::Result<Known> {
    let facts = Facts::seeded(region).context("--region")?;
    Ok(Known {
        offerings: offerings(&facts),
        notes: vec![note(&facts, Seed::get()?)],
    })
}

/// What is known of the region of the configured cloud without asking anybody.
pub(super) fn configured(aws: &Aws) -> anyhow::Result<Known> {
    let region = aws
        .region()
        .context("cloud.aws.region: is needed to know what is sold; write one such as us-east-1")?;
    let mut known = compiled_in(region)?;
    known.notes.push(format!(
        "all zones of {region} and all architectures are assumed: --live asks EC2, with credentials, for subnets, images and prices of now"
    ));
    Ok(known)
}

fn note(facts: &Facts, seed: &Seed) -> String {
    let whose = match &facts.price_source {
        PriceSource::OtherRegion(other) => format!("prices of {other}, which are not this region's own,"),
        _ => "list prices".to_owned(),
    };
    format!(
        "compiled in: EC2's types of {} and {whose} of {}; spot prices are estimates",
        seed.types_date, seed.prices_date
    )
}

pub(super) fn run(args: &CatalogueArgs) -> anyhow::Result<ExitCode> {
    let seed = Seed::get()?;
    let (facts, asked) = if args.live {
        let config = match &args.provider_config {
            Some(path) => Some(config::load(path)?.config),
            None => None,
        };
        let settings = live::settings(args.region.as_deref(), config.as_ref());
        let (facts, asked) = wire::block_on(async { Box::pin(live::ask(&settings)).await })?;
        (Some(facts), asked)
    } else {
        let seeded = args.region.as_deref().map(Facts::seeded).transpose();
        (seeded.context("--region")?, Vec::new())
    };
    let notes = match &facts {
        Some(facts) if args.live => live::notes(facts, &asked),
        Some(facts) => vec![note(facts, seed)],
        None => Vec::new(),
    };
    if let (Some(pattern), Some(facts)) = (&args.types, &facts) {
        return list(args, facts, pattern, &notes);
    }
    let priced = seed.kinds.iter().filter(|one| one.price.is_some()).count();
    let mut rows = vec![
        ("cloud", "aws".to_owned()),
        ("types of", format!("{} ({})", seed.types_date, seed.types_source)),
        (
            "prices of",
            format!("{} ({})", seed.prices_date, seed.price_region),
        ),
        ("format", seed.format.to_string()),
        ("bytes", Seed::packed_bytes().to_string()),
        ("regions", seed.regions.len().to_string()),
        ("instance types", seed.kinds.len().to_string()),
        ("with a price", priced.to_string()),
    ];
    if let Some(facts) = &facts {
        let zones: Vec<&str> = facts.zones.keys().map(kip_core::ids::Zone::as_str).collect();
        rows.push(("region", facts.region.clone()));
        rows.push(("zones", zones.join(", ")));
        rows.push(("instance types there", facts.kinds.len().to_string()));
        rows.push(("with a price there", facts.priced().to_string()));
        rows.push(("offerings there", offerings(facts).len().to_string()));
    }
    for one in &asked {
        let name = match one.part {
            LivePart::Kinds => "types now",
            LivePart::Zones => "zones now",
            LivePart::OnDemandPrices => "prices now",
            LivePart::SpotPrices => "spot prices now",
            _ => continue,
        };
        let (Ok(told) | Err(told)) = &one.outcome;
        rows.push((name, told.clone()));
    }
    match args.output {
        SizeOutput::Table => {
            let rows: Vec<Vec<String>> = rows
                .into_iter()
                .map(|(name, value)| vec![name.to_owned(), value])
                .collect();
            output::print(&output::table(&["WHAT", "VALUE"], &rows))?;
        }
        SizeOutput::Json => {
            let object: serde_json::Map<_, _> = rows
                .into_iter()
                .map(|(name, value)| (camel(name), json!(value)))
                .collect();
            output::line(&serde_json::to_string_pretty(&object)?)?;
        }
    }
    notes.iter().for_each(|note| output::note(note));
    Ok(if asked.iter().all(|one| one.outcome.is_ok()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn list(args: &CatalogueArgs, facts: &Facts, pattern: &str, notes: &[String]) -> anyhow::Result<ExitCode> {
    let kinds: Vec<&InstanceKind> = facts
        .kinds
        .values()
        .filter(|kind| type_matches(pattern, kind.name.as_str()))
        .collect();
    if kinds.is_empty() {
        let families: BTreeSet<&str> = facts.kinds.values().map(InstanceKind::family).collect();
        let families = families.into_iter().collect::<Vec<_>>().join(", ");
        output::note(&format!(
            "--types: no type of {} matches {pattern}; families are {families}",
            facts.region
        ));
        return Ok(ExitCode::FAILURE);
    }
    let price = |kind: &InstanceKind| facts.on_demand.get(&kind.name).copied();
    let spot = |kind: &InstanceKind| match &facts.spot {
        Some(prices) => facts
            .zones
            .keys()
            .filter_map(|zone| prices.get(&(kind.name.clone(), zone.clone())).copied())
            .min(),
        None => price(kind).map(spot_estimate),
    };
    let gpu = |kind: &InstanceKind| {
        kind.gpu
            .as_ref()
            .map(|gpu| format!("{} x {}", gpu.devices, gpu.model))
    };
    match args.output {
        SizeOutput::Table => {
            let rows: Vec<Vec<String>> = kinds
                .iter()
                .map(|kind| {
                    let shown = |price: Option<kip_core::model::Price>| {
                        price.map_or_else(|| "unknown".to_owned(), |price| price.to_string())
                    };
                    vec![
                        kind.name.to_string(),
                        kind.architecture.to_string(),
                        kind.vcpus.to_string(),
                        kind.memory.to_string(),
                        gpu(kind).unwrap_or_else(|| "-".to_owned()),
                        shown(price(kind)),
                        shown(spot(kind)),
                    ]
                })
                .collect();
            let head = [
                "TYPE",
                "ARCH",
                "VCPU",
                "MEMORY",
                "GPU",
                "ON-DEMAND",
                match facts.spot {
                    Some(_) => "SPOT (CHEAPEST ZONE)",
                    None => "SPOT (ESTIMATE)",
                },
            ];
            output::print(&output::table(&head, &rows))?;
        }
        SizeOutput::Json => {
            let items: Vec<_> = kinds
                .iter()
                .map(|kind| {
                    json!({
                        "type": kind.name.as_str(),
                        "architecture": kind.architecture.to_string(),
                        "vcpus": kind.vcpus,
                        "memoryBytes": kind.memory.0,
                        "gpu": gpu(kind),
                        "burstable": kind.burstable,
                        "bareMetal": kind.bare_metal,
                        "onDemandMicrosPerHour": price(kind).map(|price| price.0),
                    })
                })
                .collect();
            output::line(&serde_json::to_string_pretty(&json!({ "items": items }))?)?;
        }
    }
    notes.iter().for_each(|note| output::note(note));
    Ok(ExitCode::SUCCESS)
}

/// `instance types` as a key of JSON: `instanceTypes`.
fn camel(words: &str) -> String {
    let mut words = words.split(' ');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        key.push_str(&first.to_ascii_uppercase());
        key.push_str(rest);
    }
    key
}

//! `kip catalogue`: what is compiled in about a cloud.

use std::process::ExitCode;

use kip_core::model::Offering;
use kip_core::sizing::SizingPolicy;

use crate::args::{CatalogueArgs, CloudName};

/// What a region of a cloud sells, without asking the cloud.
#[derive(Debug)]
pub(crate) struct CompiledIn {
    /// What it sells.
    pub(crate) offerings: Vec<Offering>,
    /// Of which day it is, and what of it is an estimate.
    pub(crate) note: String,
}

/// Runs the command. The exit code is 1 when a pattern matches no type.
///
/// # Errors
/// When nothing about the cloud is compiled in, or the region is not known.
pub(crate) fn run(args: &CatalogueArgs) -> anyhow::Result<ExitCode> {
    match args.cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => aws::run(args),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!(NO_AWS),
    }
}

/// What is compiled in about a region.
///
/// # Errors
/// When nothing about the cloud is compiled in, or the region is not known.
pub(crate) fn compiled_in(cloud: CloudName, region: &str) -> anyhow::Result<CompiledIn> {
    match cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => aws::compiled_in(region),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!("{NO_AWS} (asked for region {region})"),
    }
}

/// How the old Kip chose in a cloud.
///
/// # Errors
/// When nothing about the cloud is compiled in.
pub(crate) fn classic_policy(cloud: CloudName) -> anyhow::Result<SizingPolicy> {
    match cloud {
        #[cfg(feature = "aws")]
        CloudName::Aws => Ok(kip_aws::catalogue::classic_policy()),
        #[cfg(not(feature = "aws"))]
        CloudName::Aws => anyhow::bail!(NO_AWS),
    }
}

#[cfg(not(feature = "aws"))]
const NO_AWS: &str = "--cloud: this build has no aws support; build it with --features aws";

#[cfg(feature = "aws")]
mod aws {
    use std::collections::BTreeSet;
    use std::process::ExitCode;

    use anyhow::Context as _;
    use kip_aws::catalogue::{Facts, InstanceKind, PriceSource, Seed, offerings, spot_estimate};
    use kip_core::sizing::type_matches;
    use serde_json::json;

    use super::CompiledIn;
    use crate::args::{CatalogueArgs, SizeOutput};
    use crate::output;

    pub(super) fn compiled_in(region: &str) -> anyhow::Result<CompiledIn> {
        let facts = Facts::seeded(region).context("--region")?;
        Ok(CompiledIn {
            offerings: offerings(&facts),
            note: note(&facts, Seed::get()?),
        })
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
        let facts = args
            .region
            .as_deref()
            .map(|region| Facts::seeded(region).context("--region"))
            .transpose()?;
        if let (Some(pattern), Some(facts)) = (&args.types, &facts) {
            return list(args, facts, pattern);
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
        if let Some(facts) = &facts {
            output::note(&note(facts, seed));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn list(args: &CatalogueArgs, facts: &Facts, pattern: &str) -> anyhow::Result<ExitCode> {
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
                            shown(price(kind).map(spot_estimate)),
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
                    "SPOT (ESTIMATE)",
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
        output::note(&note(facts, Seed::get()?));
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
}

//! `kip size`: which offering each pod would get, what it costs, and why the others were not taken.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kip_core::kubelet::{PodsConfig, demand, usual_architectures, warnings};
use kip_core::model::{Bytes, Offering, PodDemand, Price};
use kip_core::sizing::{Avoid, CheapestFit, CliffAdvice, InstanceSizer as _, Rejected};
use serde_json::{Value, json};

use crate::args::{SizeArgs, SizeOutput};
use crate::config::{self, Config, Local};
use crate::{asks, catalogue, manifest, output};

/// What was found out about one pod.
#[derive(Debug)]
struct Answer {
    name: String,
    demand: Option<PodDemand>,
    outcome: Result<Offer, String>,
    rejected: Vec<Rejected>,
    /// What of the pod has no effect.
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Offer {
    offering: Offering,
    price: Price,
    /// What the instance has and why it costs what it does.
    why: String,
    advice: Option<CliffAdvice>,
    /// The advice that was taken.
    smaller: Option<CliffAdvice>,
}

/// Runs the command. The exit code is 1 when a pod gets nothing.
///
/// # Errors
/// When a manifest or the configuration cannot be read, or the price list is not to be had.
pub(crate) fn run(args: &SizeArgs) -> anyhow::Result<ExitCode> {
    let config = match &args.provider_config {
        Some(path) => config::load(path)?.config,
        None => Config::local(Local::default()),
    };
    let mut pods = Vec::new();
    for object in manifest::read(&args.manifests)? {
        pods.extend(manifest::pod_of(&object)?);
    }
    anyhow::ensure!(
        !pods.is_empty(),
        "there is no pod in these manifests, nor anything that makes one"
    );
    let default_type = config.cells.default_instance_type.as_deref();
    let mut policy = config.sizing.policy(default_type);
    let known = match (args.cloud, &args.region) {
        (Some(cloud), Some(region)) => {
            if args.classic {
                policy = catalogue::classic_policy(cloud)?;
                policy.default_instance_type = default_type.map(str::to_owned);
            }
            if args.live {
                catalogue::live(cloud, region, &config)?
            } else {
                catalogue::compiled_in(cloud, region)?
            }
        }
        _ => catalogue::configured(&config, args.live).context("cannot get the price list")?,
    };
    known.notes.iter().for_each(|note| output::note(note));
    let offerings = known.offerings;
    let mut basis = PodsConfig::default();
    basis.architectures = usual_architectures(offerings.iter().map(|offering| offering.architecture));
    let mut sizer = CheapestFit::new(policy);
    sizer.refresh(&offerings);
    basis.basis = config.sizing.basis.into();
    let answers: Vec<Answer> = pods
        .into_iter()
        .map(|(name, pod)| answer(&sizer, name, &pod, &basis))
        .collect();
    match args.output {
        SizeOutput::Table => output::print(&table(&answers, args.rejected))?,
        SizeOutput::Json => output::line(&serde_json::to_string_pretty(&report(&answers))?)?,
    }
    let all_fit = answers.iter().all(|answer| answer.outcome.is_ok());
    Ok(if all_fit {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn answer(sizer: &CheapestFit, name: String, pod: &Pod, basis: &PodsConfig) -> Answer {
    let warnings = warnings(pod);
    let demand = match demand(pod, basis) {
        Ok(demand) => demand,
        Err(refusal) => {
            return Answer {
                name,
                demand: None,
                outcome: Err(refusal.message),
                rejected: Vec::new(),
                warnings,
            };
        }
    };
    let (avoid, now) = (Avoid::none(), Timestamp::UNIX_EPOCH);
    let outcome = sizer
        .size(&demand, &avoid, now)
        .map(|choice| {
            let price = match &choice.smaller {
                Some(smaller) => smaller.price,
                None => sizer.effective_price(&choice.offering, &demand),
            };
            Offer {
                price,
                why: why(sizer, &choice.offering, price),
                advice: sizer.advice(&demand, &avoid, now),
                smaller: choice.smaller.map(|smaller| *smaller),
                offering: choice.offering,
            }
        })
        .map_err(|no_fit| no_fit.message);
    Answer {
        name,
        rejected: sizer.explain(&demand, &avoid, now),
        demand: Some(demand),
        outcome,
        warnings,
    }
}

/// One sentence for people: what the instance has, what of it is the pod's, and what makes up the price.
fn why(sizer: &CheapestFit, offering: &Offering, price: Price) -> String {
    let usable = sizer
        .policy()
        .reserve_of(&offering.id.instance_type)
        .usable(offering.memory);
    let mut text = format!(
        "{} is the cheapest that fits: {} CPU and {} memory, of which {} are for the pod",
        offering.id,
        offering.cpu,
        offering.memory,
        Mebibytes(usable)
    );
    if let Some(model) = &offering.gpu_model {
        text.push_str(&format!(", with {model} GPUs"));
    }
    let extra = Price(price.0.saturating_sub(offering.price.0));
    match offering.baseline_cpu {
        Some(baseline) if extra > Price(0) => text.push_str(&format!(
            "; {} and {extra} for CPU above its baseline of {baseline}",
            offering.price
        )),
        Some(baseline) => text.push_str(&format!(
            "; {}, within its baseline of {baseline} CPU",
            offering.price
        )),
        None => text.push_str(&format!("; {}", offering.price)),
    }
    text
}

/// Memory in whole mebibytes, rounded down.
struct Mebibytes(Bytes);

impl std::fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}Mi", self.0.0 >> 20)
    }
}

fn table(answers: &[Answer], rejected: usize) -> String {
    let rows: Vec<Vec<String>> = answers
        .iter()
        .map(|answer| {
            let (cpu, memory) = match &answer.demand {
                Some(demand) => (demand.cpu.to_string(), demand.memory.to_string()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let (offering, price) = match &answer.outcome {
                Ok(offer) => (offer.offering.id.to_string(), offer.price.to_string()),
                Err(_) => ("none".to_owned(), "-".to_owned()),
            };
            vec![answer.name.clone(), cpu, memory, offering, price]
        })
        .collect();
    let mut text = output::table(&["POD", "CPU", "MEMORY", "OFFERING", "PRICE"], &rows);
    let total = answers
        .iter()
        .filter_map(|answer| answer.outcome.as_ref().ok())
        .map(|offer| offer.price.0)
        .sum();
    if answers.len() > 1 {
        text.push_str(&format!("\nall together {}\n", Price(total)));
    }
    for answer in answers {
        match &answer.outcome {
            Ok(offer) => {
                text.push_str(&format!("\n{}: {}\n", answer.name, offer.why));
                if let Some(smaller) = &offer.smaller {
                    text.push_str(&format!(
                        "{}: smaller than asked for, as the pod allows: {smaller}\n",
                        answer.name
                    ));
                }
                if let Some(advice) = &offer.advice {
                    text.push_str(&format!("{}: {advice}\n", answer.name));
                }
            }
            Err(why) => text.push_str(&format!("\n{}: {why}\n", answer.name)),
        }
        let asks = answer.demand.as_ref().map(asks::of).unwrap_or_default();
        if !asks.is_empty() {
            text.push_str(&format!(
                "{}: the pod asks for {}\n",
                answer.name,
                asks.join("; ")
            ));
        }
        for warning in &answer.warnings {
            text.push_str(&format!("{}: warning: {warning}\n", answer.name));
        }
        if rejected > 0 && !answer.rejected.is_empty() {
            text.push_str(&rejections(answer, rejected));
        }
    }
    text
}

fn rejections(answer: &Answer, most: usize) -> String {
    let mut groups = groups(&answer.rejected);
    // What fits, or misses by one thing, teaches more than what is cheap and far too small. Equals stay cheapest first.
    groups.sort_by_key(|(first, _)| first.reasons.len().max(1));
    let rows: Vec<Vec<String>> = groups
        .iter()
        .take(most)
        .map(|(first, zones)| {
            let reasons: Vec<String> = first.reasons.iter().map(ToString::to_string).collect();
            let reasons = if reasons.is_empty() {
                "fits, is not cheaper".to_owned()
            } else {
                reasons.join("; ")
            };
            let id = &first.offering.id;
            let name = match zones {
                1 => id.to_string(),
                _ => format!("{}/{zones} zones/{}", id.instance_type, id.capacity_type),
            };
            vec![name, first.offering.price.to_string(), reasons]
        })
        .collect();
    let mut text = format!("\nnot taken for {}, what came closest first:\n", answer.name);
    for line in output::table(&["OFFERING", "PRICE", "WHY"], &rows).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let more = groups.len().saturating_sub(most);
    if more > 0 {
        text.push_str(&format!("  and {more} more: see -o json or --rejected\n"));
    }
    text
}

/// The same type for the same price and reasons in several zones is one line; the number is that of the zones. Keeps the order.
fn groups(rejected: &[Rejected]) -> Vec<(&Rejected, usize)> {
    let mut groups: Vec<(&Rejected, usize)> = Vec::new();
    let mut places = BTreeMap::new();
    for one in rejected {
        let id = &one.offering.id;
        let reasons: Vec<String> = one.reasons.iter().map(ToString::to_string).collect();
        let key = (&id.instance_type, id.capacity_type, one.offering.price, reasons);
        let place = *places.entry(key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, zones)) => *zones += 1,
            None => groups.push((one, 1)),
        }
    }
    groups
}

fn report(answers: &[Answer]) -> Value {
    let items: Vec<Value> = answers
        .iter()
        .map(|answer| {
            let offer = answer.outcome.as_ref().ok();
            let rejected: Vec<Value> = answer
                .rejected
                .iter()
                .map(|rejected| {
                    json!({
                        "offering": rejected.offering.id.to_string(),
                        "pricePerHour": dollars(rejected.offering.price),
                        "reasons": rejected.reasons,
                    })
                })
                .collect();
            json!({
                "pod": answer.name,
                "demand": answer.demand.as_ref().map(|demand| json!({
                    "cpu": demand.cpu.to_string(),
                    "memory": demand.memory.to_string(),
                    "extended": demand.extended,
                    "asks": asks::of(demand),
                })),
                "offering": offer.map(|offer| offer.offering.id.to_string()),
                "pricePerHour": offer.map(|offer| dollars(offer.price)),
                "why": offer.map(|offer| &offer.why),
                "noFit": answer.outcome.as_ref().err(),
                "advice": offer.and_then(|offer| offer.advice.as_ref()).map(ToString::to_string),
                "smaller": offer.and_then(|offer| offer.smaller.as_ref()).map(ToString::to_string),
                "warnings": answer.warnings,
                "rejected": rejected,
            })
        })
        .collect();
    json!({ "items": items })
}

/// A price as a decimal number in text, which loses nothing.
fn dollars(price: Price) -> String {
    format!("{}.{:06}", price.0 / 1_000_000, price.0 % 1_000_000)
}

//! `kip size`: which offering each pod would get, what it costs, and why the others were not taken.

use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kip_core::kubelet::{PodsConfig, demand};
use kip_core::model::{Offering, PodDemand, Price};
use kip_core::sizing::{Avoid, CheapestFit, CliffAdvice, InstanceSizer as _, Rejected};
use serde_json::{Value, json};

use crate::args::{SizeArgs, SizeOutput};
use crate::config::{self, Config, Local};
use crate::{manifest, output, wire};

/// What was found out about one pod.
#[derive(Debug)]
struct Answer {
    name: String,
    demand: Option<PodDemand>,
    outcome: Result<Offer, String>,
    rejected: Vec<Rejected>,
}

#[derive(Debug)]
struct Offer {
    offering: Offering,
    price: Price,
    advice: Option<CliffAdvice>,
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
    let policy = config
        .sizing
        .policy(config.cells.default_instance_type.as_deref());
    let mut sizer = CheapestFit::new(policy);
    sizer.refresh(&wire::offerings(&config).context("cannot get the price list")?);
    let mut basis = PodsConfig::default();
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
    let demand = match demand(pod, basis) {
        Ok(demand) => demand,
        Err(refusal) => {
            return Answer {
                name,
                demand: None,
                outcome: Err(refusal.message),
                rejected: Vec::new(),
            };
        }
    };
    let (avoid, now) = (Avoid::none(), Timestamp::UNIX_EPOCH);
    let outcome = sizer
        .size(&demand, &avoid, now)
        .map(|choice| Offer {
            price: sizer.effective_price(&choice.offering, &demand),
            advice: sizer.cliff(&demand, &avoid, now),
            offering: choice.offering,
        })
        .map_err(|no_fit| no_fit.message);
    Answer {
        name,
        rejected: sizer.explain(&demand, &avoid, now),
        demand: Some(demand),
        outcome,
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
            Ok(Offer {
                advice: Some(advice), ..
            }) => text.push_str(&format!("\n{}: {advice}\n", answer.name)),
            Ok(_) => {}
            Err(why) => text.push_str(&format!("\n{}: {why}\n", answer.name)),
        }
        if rejected > 0 && !answer.rejected.is_empty() {
            text.push_str(&rejections(answer, rejected));
        }
    }
    text
}

fn rejections(answer: &Answer, most: usize) -> String {
    let rows: Vec<Vec<String>> = answer
        .rejected
        .iter()
        .take(most)
        .map(|rejected| {
            let reasons: Vec<String> = rejected.reasons.iter().map(ToString::to_string).collect();
            let reasons = if reasons.is_empty() {
                "fits, is not cheaper".to_owned()
            } else {
                reasons.join("; ")
            };
            vec![
                rejected.offering.id.to_string(),
                rejected.offering.price.to_string(),
                reasons,
            ]
        })
        .collect();
    let mut text = format!("\nnot taken for {}, cheapest first:\n", answer.name);
    for line in output::table(&["OFFERING", "PRICE", "WHY"], &rows).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let more = answer.rejected.len().saturating_sub(most);
    if more > 0 {
        text.push_str(&format!("  and {more} more: see -o json or --rejected\n"));
    }
    text
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
                })),
                "offering": offer.map(|offer| offer.offering.id.to_string()),
                "pricePerHour": offer.map(|offer| dollars(offer.price)),
                "noFit": answer.outcome.as_ref().err(),
                "advice": offer.and_then(|offer| offer.advice.as_ref()).map(ToString::to_string),
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

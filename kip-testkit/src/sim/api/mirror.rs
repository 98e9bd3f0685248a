//! Tells the judge what the API holds after each effect.

use std::collections::BTreeSet;

use kip_cluster::InProcess;
use kip_core::model::{CellRecord, PodPhase, PodReport, RuntimeReport};
use serde_json::Value;

use super::record::record;
use crate::sim::pods::uid;
use crate::sim::scenario::Op;
use crate::sim::store::subject;
use crate::sim::world::{At, State};

/// Takes in what a controller's request has changed.
pub(super) fn effect(state: &mut State, cluster: &InProcess, op: Op, name: &str, at: At) {
    match op {
        Op::Create | Op::Update | Op::Remove => cells(state, cluster, at),
        Op::Publish | Op::Release => {
            let is_known = state.pods.contains_key(&uid(name));
            let is_gone = cluster.object("", "pods", "default", name).is_none();
            if op == Op::Release && is_known && is_gone {
                state.judge_release(&uid(name), at);
            }
            pod(state, cluster, name, at);
        }
        _ => {}
    }
}

/// Takes in a pod as the API holds it.
pub(super) fn pod(state: &mut State, cluster: &InProcess, name: &str, at: At) {
    let uid = uid(name);
    let Some(object) = cluster.object("", "pods", "default", name) else {
        state.pods.remove(&uid);
        return;
    };
    let report = report(&object["status"]);
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or("");
    let (known, writes) = state.written.entry(uid.clone()).or_default();
    *writes += u32::from(at.life > 0 && known != version);
    version.clone_into(known);
    let is_news = match state.pods.get_mut(&uid) {
        None => return,
        Some(pod) => {
            let deleted = object["metadata"]["deletionTimestamp"].as_str();
            pod.deleted = deleted.and_then(|text| text.parse().ok());
            pod.report.as_ref() != Some(&report) && pod.ended_at.is_none()
        }
    };
    if state.pods.get(&uid).is_some_and(|pod| pod.ended_at.is_some())
        && !matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded)
    {
        let text = format!(
            "kip-{} reports {uid} as {:?}, which has ended",
            at.life, report.phase
        );
        state.violate("decision undone", at.ms, vec![uid.to_string()], text);
    }
    // Before anything was published there is nothing to judge.
    if !is_news || object["status"]["phase"].is_null() || at.life == 0 {
        return;
    }
    state.note(
        at.ms,
        &format!(
            "api: {uid} is {:?}/{} {:?}",
            report.phase, report.reason, report.message
        ),
    );
    state.judge_publish(&uid, &report, at);
    if let Some(pod) = state.pods.get_mut(&uid) {
        pod.has_run |= report.phase == PodPhase::Running;
        if matches!(report.phase, PodPhase::Failed | PodPhase::Succeeded) {
            pod.ended_at = Some(at.ms);
        }
        pod.report = Some(report);
    }
}

/// What was published of a pod, as far as its status shows it.
fn report(status: &Value) -> PodReport {
    let phase = match status["phase"].as_str() {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        _ => PodPhase::Pending,
    };
    let text = |field: &str| status[field].as_str().unwrap_or("").to_owned();
    let mut report = PodReport::new(phase, text("reason"), text("message"));
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let host_tells = conditions
        .iter()
        .any(|condition| condition["type"] == "PodReadyToStartContainers" && condition["status"] == "True");
    if host_tells {
        report.runtime = Some(RuntimeReport::default().into());
    }
    report
}

/// Takes in all cells as the API holds them. One that cannot be read, because somebody broke it, stays what it was.
fn cells(state: &mut State, cluster: &InProcess, at: At) {
    let objects = cluster.objects("kip.elotl.co", "cells");
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let names: BTreeSet<String> = objects.iter().map(|object| name(object)).collect();
    let held: Vec<CellRecord> = objects.iter().filter_map(|object| record(object)).collect();
    let gone: Vec<CellRecord> = state
        .records
        .values()
        .filter(|known| !names.contains(known.name.as_str()))
        .cloned()
        .collect();
    for record in gone {
        state.records.remove(&record.name);
        state.judge_record(Some(&record), None, at);
    }
    for record in held {
        let old = state.records.insert(record.name.clone(), record.clone());
        let is_same = old.as_ref().is_some_and(|old| {
            let mut old = old.clone();
            old.version.clone_from(&record.version);
            old == record
        });
        if !is_same {
            state.note(at.ms, &format!("api: cell {}", subject(&record)));
            state.judge_record(old.as_ref(), Some(&record), at);
        }
    }
}

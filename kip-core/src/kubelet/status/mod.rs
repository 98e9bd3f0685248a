//! Projects what is known about a pod onto its Kubernetes status, by the rules a kubelet follows.

mod conditions;
mod containers;
mod patch;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pods::is_terminal;
use crate::model::{PodPhase, PodReport, Unheard};

pub(crate) use patch::patch;

/// Whether all a report adds is that a running pod is being deleted, which everybody sees. One that waits goes on telling why.
fn known_deleted(pod: &Pod, report: &PodReport) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && report.phase == PodPhase::Running
        && report.reason == "Draining"
}

/// Whether Kip has written this status before.
fn is_told(known: &PodStatus) -> bool {
    known
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == conditions::SANDBOX)
}

/// The part of a pod's status that is Kip's to say. None when there is nothing to say: the API says already that the pod has ended, which
/// never changes again; or it runs, and this controller has not heard of its host yet.
///
/// `generation` is the generation of the pod's spec that was acted on. Conditions of other owners are not in the result, and are
/// kept by the way it is written.
pub(crate) fn project(pod: &Pod, report: &PodReport, generation: i64, now: Timestamp) -> Option<PodStatus> {
    if is_terminal(pod) {
        return None;
    }
    let known = pod.status.clone().unwrap_or_default();
    let now = super::node::seconds(now);
    let mut report = std::borrow::Cow::Borrowed(report);
    if report.phase == PodPhase::Pending && report.runtime.is_none() {
        let runs = known.phase.as_deref() == Some("Running");
        match report.unheard {
            // What the controller before this one said holds until there is news.
            Some(Unheard::NotYet) if runs || is_told(&known) => return None,
            Some(Unheard::Silent) if runs => report.to_mut().phase = PodPhase::Running,
            Some(_) | None => {}
        }
    }
    if known_deleted(pod, &report) {
        // The API's own word for it; the pod is as ready as its containers are.
        report.to_mut().reason.clear();
        report.to_mut().message.clear();
    }
    let report = report.as_ref();
    let (init_container_statuses, container_statuses) = containers::project(pod, &known, report);
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let (pod_ips, host_ips) = addresses(&known, report, host_network);

    let mut status = PodStatus {
        phase: Some(phase_name(report.phase).to_owned()),
        reason: Some(report.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(report.message.clone()).filter(|message| !message.is_empty()),
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: Some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: known.start_time.clone().or(Some(Time(now))),
        init_container_statuses: Some(init_container_statuses),
        container_statuses: Some(container_statuses),
        observed_generation: Some(generation).filter(|generation| *generation > 0),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::project(pod, &known, &status, report, now));
    Some(status)
}

/// A phase in Kubernetes' words.
pub(crate) fn phase_name(phase: PodPhase) -> &'static str {
    match phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    }
}

/// Addresses of the pod and of its host: as reported, else as known; addresses once told stay after the end.
fn addresses(known: &PodStatus, report: &PodReport, host_network: bool) -> (Vec<String>, Vec<String>) {
    let texts = |ips: &[IpAddr]| {
        one_per_family(ips)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let known_hosts = || {
        let ips = known.host_ips.iter().flatten().map(|host| host.ip.clone());
        ips.collect::<Vec<_>>()
    };
    let host_ips = report.host_ip.map_or_else(known_hosts, |ip| vec![ip.to_string()]);
    let reported = report
        .runtime
        .as_ref()
        .map_or(&[][..], |runtime| &runtime.pod_ips);
    let pod_ips = if host_network {
        host_ips.clone()
    } else if reported.is_empty() {
        known.pod_ips.iter().flatten().map(|pod| pod.ip.clone()).collect()
    } else {
        texts(reported)
    };
    (pod_ips, host_ips)
}

/// Kubernetes takes one address of each family.
fn one_per_family(ips: &[IpAddr]) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for ip in ips {
        if !kept.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            kept.push(*ip);
        }
    }
    kept
}

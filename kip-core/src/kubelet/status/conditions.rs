//! The pod conditions a kubelet owns, with its reasons.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::kubelet::demand::is_sidecar;
use crate::model::{PodPhase, PodReport};

/// The condition that shows how far the boot is; every status that Kip writes has it.
pub(super) const SANDBOX: &str = "PodReadyToStartContainers";

struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(kind: &'static str, holds: bool, reason: &str, message: String) -> Self {
        Self {
            kind,
            holds,
            reason: reason.to_owned(),
            message,
        }
    }
}

/// All conditions Kip writes. `status` has the container statuses already; `known` is what the API has.
pub(super) fn project(
    pod: &Pod,
    known: &PodStatus,
    status: &PodStatus,
    report: &PodReport,
    now: Timestamp,
) -> Vec<PodCondition> {
    let ended = match report.phase {
        PodPhase::Succeeded => Some("PodCompleted"),
        PodPhase::Failed => Some("PodFailed"),
        PodPhase::Pending | PodPhase::Running => None,
    };
    let containers_ready = containers_ready(pod, status, report, ended);
    let mut verdicts = vec![
        sandbox(known, report, ended),
        initialized(pod, status, report),
        ready(pod, known, &containers_ready),
        containers_ready,
    ];
    if let Some(message) = &report.disruption {
        verdicts.push(Verdict::new(
            "DisruptionTarget",
            true,
            "TerminationByKubelet",
            message.clone(),
        ));
    }
    verdicts
        .into_iter()
        .map(|verdict| condition(verdict, known, status.observed_generation, now))
        .collect()
}

fn condition(verdict: Verdict, known: &PodStatus, generation: Option<i64>, now: Timestamp) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = known
        .conditions
        .iter()
        .flatten()
        .find(|old| old.type_ == verdict.kind && old.status == status)
        .and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(verdict.reason).filter(|reason| !reason.is_empty()),
        message: Some(verdict.message).filter(|message| !message.is_empty()),
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: generation,
        ..PodCondition::default()
    }
}

/// The pod has its cell and its network: the natural place to show how far the boot is.
fn sandbox(known: &PodStatus, report: &PodReport, ended: Option<&str>) -> Verdict {
    let kind = SANDBOX;
    let there = match &report.runtime {
        Some(runtime) => runtime.sandbox_ready,
        // Not heard of the host: it has what it had.
        None if report.phase == PodPhase::Running => known
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == kind && condition.status == "True"),
        None => false,
    };
    if ended.is_some() {
        return Verdict::new(kind, false, "", String::new());
    }
    if there {
        return Verdict::new(kind, true, "", String::new());
    }
    Verdict::new(kind, false, &report.reason, report.message.clone())
}

fn initialized(pod: &Pod, status: &PodStatus, report: &PodReport) -> Verdict {
    let kind = "Initialized";
    let init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    if report.phase == PodPhase::Succeeded {
        return Verdict::new(kind, true, "PodCompleted", String::new());
    }
    let done = |name: &str, sidecar: bool| {
        find(status.init_container_statuses.as_deref(), name).is_some_and(|status| {
            let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            (sidecar && status.started == Some(true)) || ended.is_some_and(|ended| ended.exit_code == 0)
        })
    };
    let open: Vec<&str> = init
        .iter()
        .filter(|container| !done(&container.name, is_sidecar(container)))
        .map(|container| container.name.as_str())
        .collect();
    // Once a main container has run, initialisation is over for good.
    let begun = status.container_statuses.iter().flatten().any(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    if open.is_empty() || begun {
        return Verdict::new(kind, true, "", String::new());
    }
    Verdict::new(
        kind,
        false,
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", open.join(" ")),
    )
}

fn containers_ready(pod: &Pod, status: &PodStatus, report: &PodReport, ended: Option<&str>) -> Verdict {
    let kind = "ContainersReady";
    if let Some(reason) = ended {
        return Verdict::new(kind, false, reason, String::new());
    }
    let Some(spec) = &pod.spec else {
        return Verdict::new(kind, false, "UnknownContainerStatuses", String::new());
    };
    if report.phase == PodPhase::Running && !report.reason.is_empty() {
        // The machine runs the pod, but not as it should: its host is silent, or on its way out.
        return Verdict::new(kind, false, &report.reason, report.message.clone());
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let sidecars = sidecars.map(|c| (c, status.init_container_statuses.as_deref()));
    let mains = spec
        .containers
        .iter()
        .map(|c| (c, status.container_statuses.as_deref()));
    let unready: Vec<&str> = sidecars
        .chain(mains)
        .filter(|(container, statuses)| !find(*statuses, &container.name).is_some_and(|status| status.ready))
        .map(|(container, _)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::new(kind, true, "", String::new());
    }
    Verdict::new(
        kind,
        false,
        "ContainersNotReady",
        format!("containers with unready status: [{}]", unready.join(" ")),
    )
}

fn ready(pod: &Pod, known: &PodStatus, containers: &Verdict) -> Verdict {
    let kind = "Ready";
    if !containers.holds {
        return Verdict::new(kind, false, &containers.reason, containers.message.clone());
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref());
    let mut problems = Vec::new();
    for gate in gates.unwrap_or_default() {
        let name = &gate.condition_type;
        match known
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == *name)
        {
            None => problems.push(format!(
                "corresponding condition of pod readiness gate {name:?} does not exist."
            )),
            Some(condition) if condition.status != "True" => problems.push(format!(
                "the status of pod readiness gate {name:?} is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return Verdict::new(kind, true, "", String::new());
    }
    Verdict::new(kind, false, "ReadinessGatesNotReady", problems.join(", "))
}

fn find<'a>(statuses: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|status| status.name == name)
}

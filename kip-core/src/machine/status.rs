//! What Kubernetes is told: a projection of the state, never stored by itself.

use super::state::{
    After, Connecting, DrainCause, Draining, Link, Pod, PodState, Stage, Verdict, Waiting, Wanted,
};
use crate::model::{
    CellRecord, ContainerReport, ContainerState, PodPhase, PodReport, RuntimeReport, Unheard,
};

/// What Kubernetes is told about a pod in this state.
pub fn project(state: &PodState) -> PodReport {
    let pod = &state.pod;
    let mut report = match &state.stage {
        Stage::Pending(s) => match &s.waiting {
            Waiting::Source => PodReport::new(PodPhase::Pending, "Recovering", ""),
            Waiting::Placement => PodReport::new(PodPhase::Pending, "Placing", "Choosing an instance."),
            #[cfg(kip_mutants)]
            Waiting::NoFit(_) if crate::mutants::is(crate::mutants::Mutant::WaitInSilence) => {
                PodReport::new(PodPhase::Pending, "", "")
            }
            Waiting::NoFit(no_fit) => PodReport::new(PodPhase::Pending, "NoFit", no_fit.message.clone()),
            Waiting::Offerings(why) => PodReport::new(
                PodPhase::Pending,
                "NoOfferings",
                format!("It is not known yet what the cloud offers: {why}"),
            ),
        },
        Stage::Launching(_) if pod.must_end() => ended(pod),
        Stage::Launching(s) => {
            let message = match &s.problem {
                Some(problem) => format!("Launching {}. The last try failed: {problem}", s.record.offering),
                None => format!("Launching {}.", s.record.offering),
            };
            PodReport::new(PodPhase::Pending, "Launching", message)
        }
        Stage::Booting(s) => PodReport::new(
            PodPhase::Pending,
            "Booting",
            format!("Instance {} has no address yet.", s.cell.instance),
        ),
        Stage::Connecting(Connecting {
            link: Link::Up { .. },
            ..
        }) if pod.outgoing.is_some() => PodReport::new(
            PodPhase::Pending,
            "Replacing",
            "The new cell is up. It is told to run the pod as soon as the interrupted one has ended.",
        ),
        Stage::Connecting(s) => {
            let message = format!("Waiting for the agent on {} at {}.", s.cell.instance, s.address);
            PodReport::new(PodPhase::Pending, "Connecting", message)
        }
        Stage::Deploying(s) => {
            let message = match &s.problem {
                Some(problem) => format!("Handing the pod to its cell. The last try failed: {problem}"),
                None => "Handing the pod to its cell.".into(),
            };
            PodReport::new(PodPhase::Pending, "Deploying", message)
        }
        Stage::Running(s) => {
            let silent = match (&s.link, s.is_announced) {
                (Link::Down { problem, .. }, true) => Some(format!("The agent does not answer: {problem}")),
                (Link::Dialling { .. }, true) => Some("The agent does not answer.".into()),
                (Link::Up { .. }, _) | (_, false) => None,
            };
            match silent {
                Some(message) => PodReport::new(running_phase(pod), "AgentSilent", message),
                None if pod.report.is_none() => PodReport::new(
                    running_phase(pod),
                    "Connecting",
                    "Asking the agent how the pod is.",
                ),
                None => PodReport::new(running_phase(pod), "", ""),
            }
        }
        Stage::Draining(s) => {
            let message = match &s.cause {
                DrainCause::Deleted => "Stopping: the pod is being deleted.".into(),
                DrainCause::DeadlineExceeded => "Stopping: the pod was active for too long.".into(),
                DrainCause::Interrupted(reason) => {
                    format!("Stopping: the cloud takes the instance back: {reason}")
                }
            };
            PodReport::new(running_phase(pod), "Draining", message)
        }
        Stage::Terminating(s) => match &s.after {
            After::Retry(setback) if !pod.must_end() => {
                PodReport::new(PodPhase::Pending, "Restarting", setback.message.clone())
            }
            After::Retry(_) | After::Finish => ended(pod),
        },
        Stage::BackingOff(s) => PodReport::new(PodPhase::Pending, "BackingOff", s.cause.message.clone()),
        Stage::Finished(_) => ended(pod),
    };
    let is_lost = match &state.stage {
        Stage::Terminating(s) => matches!(s.after, After::Retry(_)) && !pod.must_end(),
        Stage::BackingOff(_) => true,
        Stage::Pending(_)
        | Stage::Launching(_)
        | Stage::Booting(_)
        | Stage::Connecting(_)
        | Stage::Deploying(_)
        | Stage::Running(_)
        | Stage::Draining(_)
        | Stage::Finished(_) => false,
    };
    // Of a lost cell nothing holds that its agent said: a Service would go on sending requests to containers that are no more.
    if !is_lost {
        report.runtime.clone_from(&pod.report);
    }
    report.unheard = unheard(state);
    report.marks = pod.marks;
    if report.phase == PodPhase::Failed || report.phase == PodPhase::Succeeded {
        report.disruption = pod
            .verdict
            .as_ref()
            .and_then(|verdict| verdict.disruption.clone());
    } else if let Some(outgoing) = &pod.outgoing {
        report.disruption = Some(outgoing.why.clone());
    } else if let Stage::Draining(Draining {
        cause: DrainCause::Interrupted(why),
        ..
    }) = &state.stage
    {
        report.disruption = Some(why.clone());
    }
    let is_live = !matches!(
        state.stage,
        Stage::Pending(_) | Stage::BackingOff(_) | Stage::Finished(_)
    );
    if let (Some(record), true) = (state.record(), is_live) {
        name_cell(&mut report, record);
    }
    report
}

/// Why nothing is heard of a host that may well run the pod, if that is so.
fn unheard(state: &PodState) -> Option<Unheard> {
    if state.pod.report.is_some() {
        return None;
    }
    match &state.stage {
        Stage::Pending(s) => (s.waiting == Waiting::Source).then_some(Unheard::NotYet),
        Stage::Running(s) if s.is_announced => Some(Unheard::Silent),
        Stage::Running(_) => Some(Unheard::NotYet),
        Stage::Draining(_) => Some(Unheard::Silent),
        Stage::Launching(_)
        | Stage::Booting(_)
        | Stage::Connecting(_)
        | Stage::Deploying(_)
        | Stage::Terminating(_)
        | Stage::BackingOff(_)
        | Stage::Finished(_) => None,
    }
}

fn name_cell(report: &mut PodReport, record: &CellRecord) {
    report.cell = Some(record.host());
    report.instance.clone_from(&record.instance);
    report.offering = Some(record.offering.clone());
    report.host_ip = record.addresses.management;
}

fn ended(pod: &Pod) -> PodReport {
    if let Some(Verdict {
        phase,
        reason,
        message,
        ..
    }) = &pod.verdict
    {
        return PodReport::new(*phase, reason.clone(), message.clone());
    }
    match &pod.report {
        Some(report) if report.finished => PodReport::new(final_phase(report), "", ""),
        Some(_) => PodReport::new(
            PodPhase::Failed,
            "Terminated",
            "The pod's containers did not end within the grace period and were ended with their instance.",
        ),
        None => match &pod.wanted {
            Wanted::Deleted { .. } | Wanted::Gone => PodReport::new(
                PodPhase::Failed,
                "Deleted",
                "The pod was deleted before it started.",
            ),
            Wanted::Unknown | Wanted::Run { .. } | Wanted::Refused { .. } => PodReport::new(
                PodPhase::Failed,
                "Terminated",
                "The pod's instance was terminated.",
            ),
        },
    }
}

/// The phase of a pod that runs on an agent: as a kubelet computes it, but never final while the agent has not said so.
fn running_phase(pod: &Pod) -> PodPhase {
    let Some(report) = &pod.report else {
        return PodPhase::Pending;
    };
    let is_initialized = report
        .init_containers
        .iter()
        .all(|container| match &container.state {
            ContainerState::Terminated(end) => end.exit_code == 0,
            // A sidecar: it runs on beside the others.
            ContainerState::Running { .. } => container.started,
            ContainerState::Waiting { .. } => false,
        });
    let never_started = |container: &ContainerReport| {
        matches!(container.state, ContainerState::Waiting { .. }) && container.last_state.is_none()
    };
    if report.finished
        || (is_initialized && !report.containers.is_empty() && !report.containers.iter().any(never_started))
    {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

/// The phase of a pod whose containers have all ended for good.
pub(crate) fn final_phase(report: &RuntimeReport) -> PodPhase {
    let ended_well = |container: &ContainerReport| match &container.state {
        ContainerState::Terminated(end) => end.exit_code == 0,
        ContainerState::Waiting { .. } | ContainerState::Running { .. } => false,
    };
    let init_failed = report
        .init_containers
        .iter()
        .any(|container| match &container.state {
            // A sidecar that was killed last does not make the pod fail; one that never got its main containers going shows there.
            ContainerState::Terminated(end) => end.exit_code != 0 && !container.started,
            ContainerState::Waiting { .. } | ContainerState::Running { .. } => false,
        });
    if !init_failed && report.containers.iter().all(ended_well) {
        PodPhase::Succeeded
    } else {
        PodPhase::Failed
    }
}

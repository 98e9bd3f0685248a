//! The status: what the kubelet would say about the same containers.

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::{
    Container, ContainerState, ContainerStatus, Pod, Running, Terminated, Waiting, container_state::State,
};

use super::decide::is_over;
use super::model::{Exit, Failure, ImageState, Kind, Memory, Observed, Phase, Run};
use super::restart;

/// For how long the error itself is shown before "backing off" replaces it.
const ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// When the status of a failed pull turns from the error to the wait.
pub(crate) fn error_shown_until(failure: &Failure) -> Timestamp {
    failure.at.saturating_add(ERROR_SHOWN).unwrap_or(failure.at)
}

/// What the statuses are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) seen: &'a Observed,
    pub(crate) mem: &'a Memory,
    /// Termination was asked for.
    pub(crate) stopping: bool,
    pub(crate) now: Timestamp,
}

/// Status of the init containers, in order.
pub(crate) fn init_statuses(view: View<'_>) -> Vec<ContainerStatus> {
    let kind = |container: &Container| {
        if container.sidecar {
            Kind::Sidecar
        } else {
            Kind::Init
        }
    };
    view.pod
        .init_containers
        .iter()
        .map(|container| status(view, kind(container), container))
        .collect()
}

/// Status of the main containers, in order.
pub(crate) fn main_statuses(view: View<'_>) -> Vec<ContainerStatus> {
    view.pod
        .containers
        .iter()
        .map(|container| status(view, Kind::Main, container))
        .collect()
}

fn status(view: View<'_>, kind: Kind, container: &Container) -> ContainerStatus {
    let newest = view.seen.newest(&container.name);
    let previous = view
        .seen
        .previous(&container.name)
        .and_then(|run| run.exit().map(|exit| terminated(run, exit)));
    let (state, last_state) = match newest {
        None => (waiting_for_first(view, container), None),
        Some(run) => match &run.phase {
            Phase::Created => (waiting_for_first(view, container), previous),
            Phase::Running { started_at } => (
                State::Running(Running {
                    started_at: Some(proto_time(*started_at)),
                }),
                previous,
            ),
            Phase::Unknown => (
                waiting(
                    "ContainerStatusUnknown",
                    "the container runtime does not know the container's state",
                ),
                previous,
            ),
            Phase::Exited(exit) => match will_restart(view, kind, container, run, exit) {
                Some(waiting) => (waiting, Some(terminated(run, exit))),
                None => (terminated(run, exit), previous),
            },
        },
    };
    let (started, ready) = health(view, kind, newest);
    ContainerStatus {
        name: container.name.clone(),
        image: newest.map_or_else(|| container.image.clone(), |run| shown_image(run, container)),
        image_id: newest.map(|run| run.image_ref.clone()).unwrap_or_default(),
        container_id: newest
            .filter(|run| run.phase != Phase::Created)
            .map(|run| container_id(&run.id))
            .unwrap_or_default(),
        restart_count: newest.map_or(0, |run| run.attempt),
        state: Some(ContainerState { state: Some(state) }),
        last_state: last_state.map(|state| ContainerState { state: Some(state) }),
        ready,
        started,
    }
}

/// A container that never ran: why not yet.
fn waiting_for_first(view: View<'_>, container: &Container) -> State {
    problem(view, container).unwrap_or_else(|| {
        let reason = if view.pod.init_containers.is_empty() {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        waiting(reason, "")
    })
}

/// A container that ended and is started again: what it waits for, nothing when it stays ended or starts right away.
fn will_restart(view: View<'_>, kind: Kind, container: &Container, run: &Run, exit: &Exit) -> Option<State> {
    let again = restart::restarts(&view.pod.restart_policy, kind, exit.code)
        || view.mem.replaced.contains(&container.name);
    if view.stopping || !again || is_over(view.pod, view.seen, view.mem) {
        return None;
    }
    if let Some(problem) = problem(view, container) {
        return Some(problem);
    }
    if exit.is_start_error() && run.attempt == 0 {
        return Some(waiting("RunContainerError", &exit.message));
    }
    let due = restart::due_at(run)?;
    let in_backoff = due > view.now;
    let pod = view.pod;
    in_backoff.then(|| {
        let wait = restart::wait_after(run).as_secs();
        let (minutes, seconds) = (wait / 60, wait % 60);
        let wait = if minutes > 0 {
            format!("{minutes}m{seconds}s")
        } else {
            format!("{seconds}s")
        };
        let message = format!(
            "back-off {wait} restarting failed container={} pod={}_{}({})",
            container.name, pod.name, pod.namespace, pod.uid
        );
        waiting("CrashLoopBackOff", &message)
    })
}

/// Why a container cannot be started now.
fn problem(view: View<'_>, container: &Container) -> Option<State> {
    if !container.config_error.is_empty() {
        return Some(waiting("CreateContainerConfigError", &container.config_error));
    }
    if let Some(ImageState::Failed(failure)) = view.mem.images.get(&container.name) {
        return Some(image_problem(failure, &container.image, view.now));
    }
    view.mem
        .failures
        .get(&container.name)
        .map(|failure| waiting(&failure.reason, &failure.message))
}

fn image_problem(failure: &Failure, image: &str, now: Timestamp) -> State {
    if failure.reason == "ErrImagePull" && now >= error_shown_until(failure) {
        let message = format!(
            "Back-off pulling image \"{image}\": ErrImagePull: {}",
            failure.message
        );
        return waiting("ImagePullBackOff", &message);
    }
    waiting(&failure.reason, &failure.message)
}

fn health(view: View<'_>, kind: Kind, newest: Option<&Run>) -> (bool, bool) {
    let Some(run) = newest else { return (false, false) };
    match &run.phase {
        Phase::Running { .. } => {
            let started = view.mem.started.contains(&run.id);
            (
                started,
                started && view.mem.ready.contains(&run.id) && kind != Kind::Init,
            )
        }
        Phase::Exited(exit) => (false, kind == Kind::Init && exit.code == 0),
        Phase::Created | Phase::Unknown => (false, false),
    }
}

fn shown_image(run: &Run, container: &Container) -> String {
    let is_id = run.image.is_empty() || run.image.starts_with("sha256:");
    if is_id {
        container.image.clone()
    } else {
        run.image.clone()
    }
}

fn waiting(reason: &str, message: &str) -> State {
    State::Waiting(Waiting {
        reason: reason.into(),
        message: message.into(),
    })
}

fn terminated(run: &Run, exit: &Exit) -> State {
    State::Terminated(Terminated {
        exit_code: exit.code,
        // CRI reports a signal as exit code 128+n only, and so does the kubelet.
        signal: 0,
        reason: exit.reason.clone(),
        message: exit.message.clone(),
        started_at: Some(proto_time(exit.started_at)),
        finished_at: Some(proto_time(exit.finished_at)),
        container_id: container_id(&run.id),
    })
}

fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// A moment as the wire has it.
pub(crate) fn proto_time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// A moment from the wire; nothing when it is out of range.
pub(crate) fn from_proto_time(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

#[cfg(test)]
mod tests;

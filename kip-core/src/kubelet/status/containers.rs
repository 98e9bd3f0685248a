//! Container statuses in the order of the spec: what the host says, else what the API knew, else why it waits.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::kubelet::demand::is_sidecar;
use crate::kubelet::node::seconds;
use crate::model::{ContainerReport, ContainerState, PodPhase, PodReport, Termination};

/// What a kubelet says of a container it can no longer find.
const UNKNOWN: &str = "ContainerStatusUnknown";
const UNKNOWN_MESSAGE: &str = "The container could not be located when the pod was terminated";

/// Statuses of init containers and containers.
pub(super) fn project(
    pod: &Pod,
    known: &PodStatus,
    report: &PodReport,
) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let Some(spec) = &pod.spec else {
        return (Vec::new(), Vec::new());
    };
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let runtime = report.runtime.as_deref();
    let waiting = Waiting {
        reason: match runtime {
            // Before there is a host, `kubectl get pods` shows what the pod waits for: NoFit, Launching, Booting, ...
            None if !report.reason.is_empty() => &report.reason,
            _ if init.is_empty() => "ContainerCreating",
            _ => "PodInitializing",
        },
        message: &report.message,
        phase: report.phase,
    };
    let of = |containers: &[Container], reported: &[ContainerReport], old: &Option<Vec<ContainerStatus>>| {
        containers
            .iter()
            .map(|container| {
                let reported = reported.iter().find(|status| status.name == container.name);
                let old = old.iter().flatten().find(|status| status.name == container.name);
                let restarts = policy == "Always" || is_sidecar(container);
                one(container, reported, old, &waiting, restarts, policy)
            })
            .collect()
    };
    let none = &[][..];
    (
        of(
            init,
            runtime.map_or(none, |runtime| &runtime.init_containers),
            &known.init_container_statuses,
        ),
        of(
            &spec.containers,
            runtime.map_or(none, |runtime| &runtime.containers),
            &known.container_statuses,
        ),
    )
}

struct Waiting<'a> {
    reason: &'a str,
    message: &'a str,
    phase: PodPhase,
}

impl Waiting<'_> {
    fn terminal(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    fn state(&self) -> ApiState {
        ApiState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(self.reason.to_owned()),
                message: Some(self.message.to_owned()).filter(|message| !message.is_empty()),
            }),
            ..ApiState::default()
        }
    }
}

fn one(
    container: &Container,
    reported: Option<&ContainerReport>,
    old: Option<&ContainerStatus>,
    waiting: &Waiting<'_>,
    restarts: bool,
    policy: &str,
) -> ContainerStatus {
    // The API refuses a container that comes back from the dead, and so does a user who set restartPolicy Never.
    if let Some(old) = old
        && let Some(ended) = old.state.as_ref().and_then(|state| state.terminated.as_ref())
        && !restarts
        && (policy == "Never" || ended.exit_code == 0)
        && !reported.is_some_and(|reported| matches!(reported.state, ContainerState::Terminated(_)))
    {
        return old.clone();
    }
    let mut status = match (reported, old) {
        (Some(reported), old) => from_report(container, reported, old, waiting),
        (None, Some(old)) if has_run(old) => {
            let mut status = old.clone();
            if waiting.phase == PodPhase::Pending && is_running(old) {
                // Its cell was lost, and the pod is to start again on another.
                status.last_state = Some(lost(old));
                status.state = Some(waiting.state());
                status.ready = false;
                status.started = Some(false);
            }
            status
        }
        (None, _) => ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting.state()),
            started: Some(false),
            ..ContainerStatus::default()
        },
    };
    if waiting.terminal() {
        let ended = status
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some());
        if !ended && (is_running(&status) || has_run(&status)) {
            status.state = Some(lost(&status));
        }
        status.ready = false;
        status.started = Some(false);
    }
    status
}

fn from_report(
    container: &Container,
    reported: &ContainerReport,
    old: Option<&ContainerStatus>,
    waiting: &Waiting<'_>,
) -> ContainerStatus {
    let (state, ready) = match &reported.state {
        ContainerState::Waiting { reason, message } => {
            let mut state = waiting.state();
            if !reason.is_empty() {
                state.waiting = Some(ContainerStateWaiting {
                    reason: Some(reason.clone()),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                });
            }
            (state, false)
        }
        ContainerState::Running { started_at } => {
            let running = ContainerStateRunning {
                started_at: Some(Time(seconds(*started_at))),
            };
            let state = ApiState {
                running: Some(running),
                ..ApiState::default()
            };
            (state, reported.ready)
        }
        // An init container that succeeded is ready, as kubelets say; others that ended are not.
        ContainerState::Terminated(ended) => (terminated(ended), reported.ready && ended.exit_code == 0),
    };
    let previous = reported.last_state.as_ref().map(terminated);
    ContainerStatus {
        name: container.name.clone(),
        image: text_or(&reported.image, container.image.as_deref()),
        image_id: reported.image_id.clone(),
        container_id: Some(reported.container_id.clone()).filter(|id| !id.is_empty()),
        restart_count: restart_count(reported, old),
        started: Some(reported.started && !matches!(reported.state, ContainerState::Waiting { .. })),
        ready,
        state: Some(state),
        last_state: previous.or_else(|| old.and_then(|old| old.last_state.clone())),
        ..ContainerStatus::default()
    }
}

/// Restarts as the API counts them: they never go down, although a new cell starts counting from nothing.
fn restart_count(reported: &ContainerReport, old: Option<&ContainerStatus>) -> i32 {
    let reported_count = i32::try_from(reported.restart_count).unwrap_or(i32::MAX);
    let Some(old) = old else { return reported_count };
    let known_id = old.container_id.as_deref().unwrap_or_default();
    let another =
        !known_id.is_empty() && !reported.container_id.is_empty() && known_id != reported.container_id;
    if another && reported_count <= old.restart_count {
        old.restart_count.saturating_add(1)
    } else {
        reported_count.max(old.restart_count)
    }
}

fn text_or(text: &str, other: Option<&str>) -> String {
    if text.is_empty() {
        other.unwrap_or_default().to_owned()
    } else {
        text.to_owned()
    }
}

fn terminated(ended: &Termination) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            signal: Some(ended.signal).filter(|signal| *signal != 0),
            reason: Some(ended.reason.clone()).filter(|reason| !reason.is_empty()),
            message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
            started_at: ended.started_at.map(|at| Time(seconds(at))),
            finished_at: ended.finished_at.map(|at| Time(seconds(at))),
            container_id: Some(ended.container_id.clone()).filter(|id| !id.is_empty()),
        }),
        ..ApiState::default()
    }
}

/// The end of a container nobody saw end.
fn lost(status: &ContainerStatus) -> ApiState {
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some(UNKNOWN.to_owned()),
            message: Some(UNKNOWN_MESSAGE.to_owned()),
            started_at: running.and_then(|running| running.started_at.clone()),
            container_id: status.container_id.clone(),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn has_run(status: &ContainerStatus) -> bool {
    status.container_id.as_deref().is_some_and(|id| !id.is_empty())
        || status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

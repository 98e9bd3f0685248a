//! Turns requests into what the agent's parts take, and failures into gRPC statuses.

use kip_cell_api::v1::{ContainerState, ReadLogsRequest, StatusSnapshot, container_state::State};
use tonic::Status;

use crate::cri::CallError;
use crate::logs::{LogStream, Options};
use crate::pod::project::from_proto_time;
use crate::reconcile::Refusal;

/// A refusal of the reconciler.
pub(super) fn refusal(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoPod => Status::not_found(text),
        Refusal::OtherPod { .. } | Refusal::OtherCell { .. } | Refusal::Stopped(_) => {
            Status::failed_precondition(text)
        }
        Refusal::Immutable(_) => Status::invalid_argument(text),
        Refusal::Store(_) => Status::internal(text),
    }
}

/// A failed call to the runtime.
pub(super) fn call(error: &CallError) -> Status {
    if error.is_not_found() {
        Status::not_found(error.to_string())
    } else if error.is_timeout() {
        Status::deadline_exceeded(error.to_string())
    } else if error.is_unreachable() {
        Status::unavailable(format!("the container runtime does not answer: {error}"))
    } else {
        Status::internal(error.to_string())
    }
}

/// What a log request asks for.
pub(super) fn log_options(request: &ReadLogsRequest) -> Result<Options, Status> {
    let stream = match request.stream.as_str() {
        "" | "All" => None,
        "Stdout" => Some(LogStream::Stdout),
        "Stderr" => Some(LogStream::Stderr),
        other => {
            return Err(Status::invalid_argument(format!(
                "stream: {other:?} is none of All, Stdout, Stderr"
            )));
        }
    };
    let since = request.since.as_ref().map(|since| {
        from_proto_time(since).ok_or_else(|| Status::invalid_argument("since: is not a moment"))
    });
    Ok(Options {
        follow: request.follow,
        timestamps: request.timestamps,
        tail_lines: request.tail_lines,
        limit_bytes: request.limit_bytes,
        since: since.transpose()?,
        stream,
    })
}

/// Id of the run whose log is meant: the one that runs or ran last, or with `previous` the one before as the status
/// shows it.
pub(super) fn logged_run(
    status: &StatusSnapshot,
    pod: &str,
    name: &str,
    previous: bool,
) -> Result<String, Status> {
    let container = status
        .containers
        .iter()
        .chain(&status.init_containers)
        .find(|container| container.name == name);
    let missing = || Status::not_found(format!("container {name:?} is not in pod {pod:?}"));
    let container = container.ok_or_else(missing)?;
    let state = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.state.clone());
    let ended = |of: &Option<ContainerState>| match state(of) {
        Some(State::Terminated(terminated)) => Some(terminated.container_id),
        Some(State::Running(_) | State::Waiting(_)) | None => None,
    };
    let id = if previous {
        ended(&container.last_state).ok_or_else(|| {
            Status::not_found(format!(
                "previous terminated container {name:?} in pod {pod:?} not found"
            ))
        })?
    } else {
        match state(&container.state) {
            Some(State::Running(_)) => container.container_id.clone(),
            Some(State::Terminated(terminated)) => terminated.container_id,
            Some(State::Waiting(waiting)) => ended(&container.last_state).ok_or_else(|| {
                let reason = waiting.reason;
                Status::failed_precondition(format!(
                    "container {name:?} in pod {pod:?} is waiting to start: {reason}"
                ))
            })?,
            None => {
                return Err(Status::failed_precondition(format!(
                    "container {name:?} in pod {pod:?} is not available"
                )));
            }
        }
    };
    Ok(id.rsplit("//").next().unwrap_or_default().to_owned())
}

/// Host and port, and path with query, of a URL the runtime gave.
pub(super) fn split_url(url: &str) -> Result<(String, String), Status> {
    let wrong =
        |why: &str| Status::internal(format!("the container runtime's streaming address {url:?} {why}"));
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(wrong(
            "is not plain HTTP; leave its streaming server without TLS, it listens on loopback",
        ));
    };
    let (address, path) = rest.split_once('/').ok_or_else(|| wrong("has no path"))?;
    Ok((address.to_owned(), format!("/{path}")))
}

#[cfg(test)]
mod tests {
    use kip_cell_api::v1::{ContainerStatus, Running, Terminated, Waiting};

    use super::*;

    fn with(state: State, last: Option<&str>) -> StatusSnapshot {
        let last = last.map(|id| ContainerState {
            state: Some(State::Terminated(Terminated {
                container_id: format!("containerd://{id}"),
                ..Default::default()
            })),
        });
        let container = ContainerStatus {
            name: "c".into(),
            container_id: "containerd://now".into(),
            state: Some(ContainerState { state: Some(state) }),
            last_state: last,
            ..Default::default()
        };
        StatusSnapshot {
            containers: vec![container],
            ..Default::default()
        }
    }

    /// `kubectl logs` and `kubectl logs --previous` on a crashing pod must show what its owner looks for.
    #[test]
    fn which_run() {
        let running = with(State::Running(Running::default()), Some("before"));
        let crashed = with(State::Waiting(Waiting::default()), Some("crash"));
        let fresh = with(
            State::Waiting(Waiting {
                reason: "ContainerCreating".into(),
                ..Default::default()
            }),
            None,
        );
        assert_eq!(logged_run(&running, "p", "c", false).expect("runs"), "now");
        assert_eq!(
            logged_run(&running, "p", "c", true).expect("ran before"),
            "before"
        );
        assert_eq!(
            logged_run(&crashed, "p", "c", false).expect("last crash"),
            "crash"
        );
        assert_eq!(logged_run(&crashed, "p", "c", true).expect("last crash"), "crash");
        let code = |result: Result<String, Status>| result.expect_err("refused").code();
        assert_eq!(
            code(logged_run(&fresh, "p", "c", false)),
            tonic::Code::FailedPrecondition
        );
        assert_eq!(code(logged_run(&fresh, "p", "c", true)), tonic::Code::NotFound);
        assert_eq!(
            code(logged_run(&fresh, "p", "other", false)),
            tonic::Code::NotFound
        );
    }

    #[test]
    fn streaming_url() {
        let (address, path) = split_url("http://127.0.0.1:4431/exec/AbC?x=1").expect("plain");
        assert_eq!(
            (address.as_str(), path.as_str()),
            ("127.0.0.1:4431", "/exec/AbC?x=1")
        );
        assert!(split_url("https://127.0.0.1:1/x").is_err());
    }
}

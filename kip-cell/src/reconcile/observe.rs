//! Rebuilds the pod's state from the runtime.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use kip_cell_api::v1::Pod;

use crate::cri::v1::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};
use crate::cri::{CallError, Runtime};
use crate::pod::model::{Exit, Observed, Phase, Run, Sandbox, find};
use crate::pod::spec::{LABEL_UID, NOTE_BACKOFF, NOTE_IMAGE, NOTE_SANDBOX};
use crate::volumes::Folders;

/// Longest termination message read from a file.
const MAX_MESSAGE: u64 = 4096;
/// Longest termination message taken from the log, in bytes and lines.
const MAX_FROM_LOG: (u64, usize) = (2048, 80);

/// Everything the runtime has of the pod.
pub(super) async fn list(runtime: &Runtime, pod: &Pod, folders: &Folders) -> Result<Observed, CallError> {
    let labels = [(LABEL_UID, pod.uid.as_str())];
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_sandboxes(&labels), runtime.list_containers(&labels))?;
    let sandboxes = try_join_all(
        sandboxes
            .iter()
            .map(|sandbox| found(runtime.sandbox_status(&sandbox.id))),
    );
    let containers = try_join_all(
        containers
            .iter()
            .map(|container| found(runtime.container_status(&container.id))),
    );
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    Ok(Observed {
        sandboxes: sandboxes
            .into_iter()
            .flatten()
            .map(sandbox)
            .map(|s| (s.id.clone(), s))
            .collect(),
        runs: containers
            .into_iter()
            .flatten()
            .map(|s| run(s, pod, folders))
            .map(|r| (r.id.clone(), r))
            .collect(),
    })
}

/// What was removed between listing and asking is no error.
async fn found<T>(answer: impl Future<Output = Result<T, CallError>>) -> Result<Option<T>, CallError> {
    match answer.await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A sandbox as the decisions see it.
pub(super) fn sandbox(status: PodSandboxStatus) -> Sandbox {
    let network = status.network.clone().unwrap_or_default();
    let first = Some(network.ip).filter(|ip| !ip.is_empty());
    Sandbox {
        ready: status.state() == PodSandboxState::SandboxReady,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        created_at: time(status.created_at),
        ips: first
            .into_iter()
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .collect(),
        id: status.id,
    }
}

/// A container as the decisions see it.
pub(super) fn run(status: ContainerStatus, pod: &Pod, folders: &Folders) -> Run {
    let metadata = status.metadata.clone().unwrap_or_default();
    let phase = match status.state() {
        ContainerState::ContainerCreated => Phase::Created,
        ContainerState::ContainerRunning => Phase::Running {
            started_at: time(status.started_at),
        },
        ContainerState::ContainerUnknown => Phase::Unknown,
        ContainerState::ContainerExited => Phase::Exited(Exit {
            code: status.exit_code,
            reason: reason(&status),
            message: message(&status, &metadata.name, metadata.attempt, pod, folders),
            started_at: time(status.started_at),
            finished_at: time(status.finished_at),
        }),
    };
    let seconds = status
        .annotations
        .get(NOTE_BACKOFF)
        .and_then(|seconds| seconds.parse().ok());
    Run {
        phase,
        name: metadata.name,
        attempt: metadata.attempt,
        sandbox_id: status.annotations.get(NOTE_SANDBOX).cloned().unwrap_or_default(),
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        wanted_image: status.annotations.get(NOTE_IMAGE).cloned().unwrap_or_default(),
        backoff: Duration::from_secs(seconds.unwrap_or(0)),
        log_path: status.log_path,
        id: status.id,
    }
}

fn reason(status: &ContainerStatus) -> String {
    match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed".into(),
        ("", _) => "Error".into(),
        (reason, _) => reason.into(),
    }
}

/// What the container said about its end: the file it wrote, else (if it asked for that and failed) its last lines.
fn message(status: &ContainerStatus, name: &str, attempt: u32, pod: &Pod, folders: &Folders) -> String {
    let mut said = read_end(&folders.termination_message(name, attempt), MAX_MESSAGE);
    let container = find(pod, name).map(|(_, container)| container);
    let from_log = container.is_some_and(|c| c.termination_message_policy == "FallbackToLogsOnError");
    if said.is_empty() && from_log && status.exit_code != 0 {
        said = crate::logs::last_lines(Path::new(&status.log_path), MAX_FROM_LOG.0, MAX_FROM_LOG.1);
    }
    match (status.message.is_empty(), said.is_empty()) {
        (true, _) => said,
        (false, true) => status.message.clone(),
        (false, false) => format!("{}: {said}", status.message),
    }
}

/// The last bytes of a file, empty when there is none: a container need not write a message.
fn read_end(path: &Path, most: u64) -> String {
    let Ok(mut file) = std::fs::File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length.saturating_sub(most))).is_ok() {
        // A message that cannot be read whole is shown as far as it could.
        drop(file.take(most).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

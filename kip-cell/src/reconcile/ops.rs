//! The work itself: each function carries out one action against the runtime and the disk and reports how it went.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::{Container, Handler, Pod};
use tokio::sync::{mpsc, watch};

use super::message::{Done, Message};
use super::observe;
use crate::credentials::CredentialProviders;
use crate::cri::Runtime;
use crate::cri::v1::AuthConfig;
use crate::pod::model::{Image, Phase, Run, Sandbox};
use crate::pod::{image, spec};
use crate::probes;
use crate::volumes::{Folders, VolumeError};

/// What every piece of work needs.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) runtime: Runtime,
    pub(super) cell: spec::Cell,
    pub(super) folders: Folders,
    pub(super) pod: std::sync::Arc<Pod>,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) providers: CredentialProviders,
}

impl Context {
    /// Tells the reconciler; if it is gone, so is the reason to tell.
    async fn tell(&self, message: Message) {
        if self.messages.send(message).await.is_err() {
            tracing::debug!("the reconciler ended before the work it started");
        }
    }

    fn sandbox_config(&self, attempt: u32) -> crate::cri::v1::PodSandboxConfig {
        spec::sandbox(
            &self.pod,
            &self.cell,
            attempt,
            &self.folders.logs().to_string_lossy(),
        )
    }
}

/// Puts the volumes in place.
pub(super) async fn prepare_volumes(context: Context) -> Done {
    let (folders, pod) = (context.folders.clone(), context.pod.clone());
    let result = blocking(move || folders.prepare(&pod)).await;
    Done::Volumes(match result {
        Ok(Ok(remarks)) => Ok(remarks),
        Ok(Err((volume, error))) => Err(format!(
            "MountVolume.SetUp failed for volume \"{volume}\" : {error}"
        )),
        Err(error) => Err(error),
    })
}

/// Makes the sandbox with its network.
pub(super) async fn run_sandbox(context: Context, attempt: u32) -> Done {
    Done::Sandbox(make_sandbox(&context, attempt).await)
}

async fn make_sandbox(context: &Context, attempt: u32) -> Result<Sandbox, String> {
    let logs = context.folders.logs().to_path_buf();
    blocking(move || {
        std::fs::create_dir_all(&logs).map_err(|error| format!("cannot create {}: {error}", logs.display()))
    })
    .await??;
    let created = context.runtime.run_sandbox(context.sandbox_config(attempt)).await;
    let id = created.map_err(|error| format!("Failed to create pod sandbox: {error}"))?;
    let status = context.runtime.sandbox_status(&id).await;
    let mut sandbox =
        observe::sandbox(status.map_err(|error| format!("Failed to read the pod sandbox: {error}"))?);
    if context.pod.host_network && sandbox.ips.is_empty() {
        sandbox.ips.extend(crate::host::primary_address());
    }
    Ok(sandbox)
}

/// Makes sure of a container's image, pulling it where the policy says so.
pub(super) async fn ensure_image(context: Context, container: Container) -> Done {
    let name = container.name.clone();
    Done::Image {
        result: fetch(&context, &container).await,
        container: name,
        image: container.image,
    }
}

async fn fetch(
    context: &Context,
    container: &Container,
) -> Result<(Image, Option<Duration>), (String, String)> {
    let wanted = &container.image;
    let because = |reason: &str, message: String| (reason.to_owned(), message);
    image::check(wanted).map_err(|message| because("InvalidImageName", message))?;
    let inspect = |error: crate::cri::CallError| {
        because(
            "ImageInspectError",
            format!("Failed to inspect image \"{wanted}\": {error}"),
        )
    };
    let mut pulled = None;
    let mut found = None;
    if container.pull_policy != "Always" {
        found = context.runtime.image_status(wanted).await.map_err(inspect)?;
    }
    if found.is_none() {
        if container.pull_policy == "Never" {
            let message = format!("Container image \"{wanted}\" is not present with pull policy of Never");
            return Err(because("ErrImageNeverPull", message));
        }
        context
            .tell(Message::Pulling {
                container: container.name.clone(),
                image: wanted.clone(),
            })
            .await;
        let began = tokio::time::Instant::now();
        let auth = match image::credentials(wanted, &context.pod.pull_secrets) {
            Some(auth) => Some(auth),
            None => login(context, container).await,
        };
        let result = context
            .runtime
            .pull_image(wanted, auth, context.sandbox_config(0))
            .await;
        let reference = result.map_err(|error| because("ErrImagePull", error.to_string()))?;
        pulled = Some(began.elapsed());
        found = context.runtime.image_status(&reference).await.map_err(inspect)?;
    }
    let missing = || {
        because(
            "ErrImagePull",
            format!("image \"{wanted}\" was pulled and is gone again"),
        )
    };
    let image = found.ok_or_else(missing)?;
    let uid = image.uid.map(|uid| uid.value);
    Ok((
        Image {
            name: wanted.clone(),
            id: image.id,
            uid,
            username: image.username,
        },
        pulled,
    ))
}

/// What the cell's own credential providers know about a container's image. Without a login the pull is tried all the same: the image may
/// be public.
async fn login(context: &Context, container: &Container) -> Option<AuthConfig> {
    let found = context.providers.find(&container.image).await;
    for problem in found.problems {
        let container = container.name.clone();
        context.tell(Message::NoCredentials { container, problem }).await;
    }
    found.auth
}

/// One start of a container.
#[derive(Debug, Clone)]
pub(super) struct StartOrder {
    pub(super) container: Container,
    pub(super) attempt: u32,
    pub(super) backoff: Duration,
    pub(super) sandbox: Sandbox,
    pub(super) image: Image,
}

/// Creates and starts a container, then runs its post-start hook.
pub(super) async fn start(context: Context, order: StartOrder) -> Done {
    let container = order.container.name.clone();
    let result = match create_and_start(&context, &order).await {
        Ok(run) => {
            let alive = matches!(run.phase, Phase::Running { .. });
            let id = run.id.clone();
            context.tell(Message::Seen(Box::new(run))).await;
            match order.container.post_start.as_ref().filter(|_| alive) {
                Some(hook) => Ok((id.clone(), post_start(&context, &order, hook, &id).await)),
                None => Ok((id, Ok(()))),
            }
        }
        Err(failure) => Err(failure),
    };
    Done::Started { container, result }
}

async fn create_and_start(context: &Context, order: &StartOrder) -> Result<Run, (String, String)> {
    let config_error = |message: String| ("CreateContainerConfigError".to_owned(), message);
    let (folders, pod, container) = (
        context.folders.clone(),
        context.pod.clone(),
        order.container.clone(),
    );
    let (attempt, ips) = (order.attempt, order.sandbox.ips.clone());
    let mounts = blocking(move || {
        folders.write_hosts(&pod, &ips)?;
        folders.mounts(&pod, &container, attempt)
    });
    let mounts = mounts
        .await
        .map_err(config_error)?
        .map_err(|error: VolumeError| {
            config_error(format!(
                "failed to prepare mounts for container \"{}\": {error}",
                order.container.name
            ))
        })?;
    let start = spec::Start {
        attempt: order.attempt,
        backoff: order.backoff,
        sandbox_id: &order.sandbox.id,
        image: &order.image,
        pod_ips: &order.sandbox.ips,
        mounts,
    };
    let config =
        spec::container(&context.pod, &order.container, &context.cell, start).map_err(config_error)?;
    let sandbox_config = context.sandbox_config(order.sandbox.attempt);
    let created = context
        .runtime
        .create_container(&order.sandbox.id, config, sandbox_config)
        .await;
    let id = created.map_err(|error| ("CreateContainerError".to_owned(), error.to_string()))?;
    context
        .tell(Message::Created {
            container: order.container.name.clone(),
        })
        .await;
    let started = context.runtime.start_container(&id).await;
    let status = context.runtime.container_status(&id).await;
    let status = status.map_err(|error| ("RunContainerError".to_owned(), error.to_string()))?;
    let run = observe::run(status, &context.pod, &context.folders);
    match (started, &run.phase) {
        // The runtime keeps the container as ended with reason StartError: that is its state from now on.
        (Err(_), Phase::Exited(_)) | (Ok(()), _) => Ok(run),
        (Err(error), _) => Err(("RunContainerError".to_owned(), error.to_string())),
    }
}

async fn post_start(context: &Context, order: &StartOrder, hook: &Handler, id: &str) -> Result<(), String> {
    let target = probes::Target {
        runtime: context.runtime.clone(),
        container_id: id.to_owned(),
        pod_ip: order.sandbox.ips.first().cloned().unwrap_or_default(),
    };
    probes::run_hook(&target, hook).await
}

/// Runs the pre-stop hook, then stops a container; the deadline may be moved nearer while it runs.
pub(super) async fn stop(
    context: Context,
    run: Run,
    pod_ip: String,
    pre_stop: Option<Handler>,
    mut deadline: watch::Receiver<Timestamp>,
) -> Done {
    if let Some(hook) = pre_stop.filter(|_| !remaining(*deadline.borrow()).is_zero()) {
        let target = probes::Target {
            runtime: context.runtime.clone(),
            container_id: run.id.clone(),
            pod_ip,
        };
        let mut hook = std::pin::pin!(probes::run_hook(&target, &hook));
        loop {
            let left = remaining(*deadline.borrow_and_update());
            tokio::select! {
                result = &mut hook => {
                    if let Err(error) = result {
                        context.tell(Message::HookFailed { container: run.name.clone(), error }).await;
                    }
                    break;
                }
                () = tokio::time::sleep(left) => {
                    let error = "the grace period ended before the hook did".to_owned();
                    context.tell(Message::HookFailed { container: run.name.clone(), error }).await;
                    break;
                }
                Ok(()) = deadline.changed() => {}
            }
        }
    }
    let result = loop {
        let left = remaining(*deadline.borrow_and_update());
        tokio::select! {
            result = context.runtime.stop_container(&run.id, left) => break result,
            // Asking again with less time makes the runtime kill earlier; the first request is dropped.
            Ok(()) = deadline.changed() => {}
        }
    };
    if let Err(error) = result {
        // Decided again after this, so not at once.
        tokio::time::sleep(super::RETRY_PAUSE).await;
        return Done::Stopped {
            id: run.id,
            result: Err(error.to_string()),
        };
    }
    let result = match context.runtime.container_status(&run.id).await {
        Ok(status) => Ok(Some(Box::new(observe::run(
            status,
            &context.pod,
            &context.folders,
        )))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    Done::Stopped { id: run.id, result }
}

/// How long the runtime may take to record an exit it has announced.
const EXIT_RECORDED_WITHIN: Duration = Duration::from_secs(10);

/// Asks after one container until its announced end shows: containerd announces an exit before CRI knows of it.
pub(super) async fn refresh(context: Context, id: String) {
    let deadline = tokio::time::Instant::now() + EXIT_RECORDED_WITHIN;
    let mut wait = Duration::from_millis(2);
    loop {
        match context.runtime.container_status(&id).await {
            Ok(status) => {
                let run = observe::run(status, &context.pod, &context.folders);
                if !run.is_alive() || tokio::time::Instant::now() >= deadline {
                    context.tell(Message::Seen(Box::new(run))).await;
                    return;
                }
            }
            Err(error) if error.is_not_found() => {
                context.tell(Message::Relist).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, container = id, "a container's state could not be read");
                context.tell(Message::Relist).await;
                return;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(200));
    }
}

/// Time left until a moment.
fn remaining(deadline: Timestamp) -> Duration {
    let left = deadline
        .duration_since(Timestamp::now())
        .max(SignedDuration::ZERO);
    Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// Runs blocking work beside the loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| format!("the agent failed inside: {error}"))
}

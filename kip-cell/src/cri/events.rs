//! Tells the reconciler at once when a container ends, from containerd's event stream.

use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc;

use super::containerd::events_client::EventsClient;
use super::containerd::{Envelope, SubscribeRequest, TaskExit, TaskOom};
use super::{CallError, Runtime};

/// containerd's namespace for everything made through CRI.
const NAMESPACE: &str = "k8s.io";
/// First and longest wait between attempts to reach a runtime that does not answer. Short even at its longest: on a cell
/// that boots, the runtime comes up beside the agent, and a pod waits for it.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// How long after the stream was requested the state is listed once more: the server does not say when its
/// subscription began, so an exit in between would else wait for the periodic listing.
const SETTLE: Duration = Duration::from_millis(500);

/// News from the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuntimeEvent {
    /// The runtime answers; its state should be listed anew.
    Up {
        /// For example `containerd`.
        name: String,
        /// For example `1.6.20`.
        version: String,
    },
    /// The runtime does not answer; the text says why.
    Down(String),
    /// Something may have been missed; its state should be listed anew.
    Missed,
    /// The main process of this container or sandbox ended, or was killed for memory.
    Changed(String),
}

/// Follows the runtime for ever, through its restarts. Ends when the receiver is dropped.
pub(crate) async fn watch(runtime: Runtime, events: mpsc::Sender<RuntimeEvent>) {
    let mut wait = RETRY.0;
    loop {
        match runtime.version().await {
            Ok(version) => {
                let up = RuntimeEvent::Up {
                    name: version.runtime_name,
                    version: version.runtime_version,
                };
                if events.send(up).await.is_err() {
                    return;
                }
                let began = tokio::time::Instant::now();
                let Some(reason) = follow(&runtime, &events).await else {
                    return;
                };
                tracing::warn!(reason, "runtime events are interrupted");
                if began.elapsed() > RETRY.1 {
                    wait = RETRY.0;
                }
            }
            Err(error) => {
                if events
                    .send(RuntimeEvent::Down(unreachable_text(&runtime, &error)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Forwards events until the stream breaks (with the reason) or nobody listens any more (nothing).
async fn follow(runtime: &Runtime, events: &mpsc::Sender<RuntimeEvent>) -> Option<String> {
    let filters = ["/tasks/exit", "/tasks/oom"]
        .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""))
        .to_vec();
    let mut client = EventsClient::new(runtime.channel());
    // The server sends its headers with the first event only, so this call answers late: it is polled beside a timer.
    let mut opening = std::pin::pin!(client.subscribe(SubscribeRequest { filters }));
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = tokio::time::sleep(SETTLE) => {
            events.send(RuntimeEvent::Missed).await.ok()?;
            opening.await
        }
    };
    let mut stream = match opened {
        Ok(response) => response.into_inner(),
        Err(status) => {
            return Some(format!(
                "the event stream of the container runtime could not be opened: {status}"
            ));
        }
    };
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => {
                if let Some(event) = read(&envelope) {
                    events.send(event).await.ok()?;
                }
            }
            Ok(None) => return Some("the container runtime closed its event stream".into()),
            Err(status) => {
                return Some(format!(
                    "the event stream of the container runtime broke: {}",
                    status.message()
                ));
            }
        }
    }
}

/// What an event says about a main process; nothing for execs and for what cannot be read.
fn read(envelope: &Envelope) -> Option<RuntimeEvent> {
    let payload = envelope.event.as_ref()?;
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(payload.value.as_slice()).ok()?;
            (exit.id == exit.container_id).then_some(RuntimeEvent::Changed(exit.container_id))
        }
        "/tasks/oom" => Some(RuntimeEvent::Changed(
            TaskOom::decode(payload.value.as_slice()).ok()?.container_id,
        )),
        _ => None,
    }
}

fn unreachable_text(runtime: &Runtime, error: &CallError) -> String {
    let socket = runtime.socket().display();
    if error.is_unreachable() {
        format!("the container runtime does not answer on {socket}: {error}; is it running?")
    } else {
        format!("the container runtime on {socket} failed its version check: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, event: &impl prost::Message) -> Envelope {
        let any = prost_types::Any {
            type_url: String::new(),
            value: event.encode_to_vec(),
        };
        Envelope {
            topic: topic.into(),
            event: Some(any),
            ..Default::default()
        }
    }

    /// An exec that ends must not look like the container ending.
    #[test]
    fn exec_exits_are_ignored() {
        let exit = |id: &str| TaskExit {
            container_id: "c".into(),
            id: id.into(),
            ..Default::default()
        };
        assert_eq!(
            read(&envelope("/tasks/exit", &exit("c"))),
            Some(RuntimeEvent::Changed("c".into()))
        );
        assert_eq!(read(&envelope("/tasks/exit", &exit("exec-1"))), None);
        assert_eq!(read(&envelope("/images/create", &exit("c"))), None);
    }
}

//! The loop that keeps the Node object: one task, fed by a watch of that one object and by a timer.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::object;
use crate::error::Result;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::errors::{api_error, is_conflict, is_missing};

/// Owner of the labels, annotations and status Kip keeps up to date.
const MANAGER: &str = "kip-node";
/// Owner of what is set once, when the Node is made.
const BIRTH_MANAGER: &str = "kip-node-create";
/// How long a failed write waits before it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// UID of the live Node, for the lease that must be owned by it. None until it is registered.
pub(crate) type NodeUid = watch::Receiver<Option<String>>;

/// Keeps the Node object.
#[derive(Debug)]
pub(crate) struct NodeKeeper {
    api: Api<Node>,
    config: Arc<KubeletConfig>,
    port: u16,
    uid: watch::Sender<Option<String>>,
}

impl NodeKeeper {
    /// A keeper of the Node whose endpoint listens on `port`.
    pub(crate) fn new(client: kube::Client, config: Arc<KubeletConfig>, port: u16) -> (Self, NodeUid) {
        let (uid, watcher) = watch::channel(None);
        let api = Api::all(client);
        (
            Self {
                api,
                config,
                port,
                uid,
            },
            watcher,
        )
    }

    /// Registers the Node and keeps it until `shutdown`. Failures are logged and tried again: a node that cannot be written drifts
    /// to NotReady by the control plane's own rules. Leaves the Node as it is at the end, so that a restart disturbs no pod.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let name = self.config.name.as_str();
        self.register_until_done().await;
        let mut events = watcher(
            self.api.clone(),
            watcher::Config::default().fields(&format!("metadata.name={name}")),
        )
        .default_backoff()
        .boxed();
        let mut listed = false;
        let mut written_at = tokio::time::Instant::now();
        loop {
            let due = written_at + self.config.node.status_interval;
            let write = tokio::select! {
                () = tokio::time::sleep_until(due) => true,
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Init)) => { listed = false; false }
                    Some(Ok(watcher::Event::InitApply(seen) | watcher::Event::Apply(seen))) => {
                        listed = true;
                        object::drifted(&self.config, self.port, &seen)
                            || object::unlabelled(&self.config, &seen)
                            || object::missing_taint(&self.config, &seen).is_some()
                    }
                    Some(Ok(watcher::Event::InitDone)) if listed => false,
                    Some(Ok(watcher::Event::InitDone | watcher::Event::Delete(_))) => {
                        tracing::warn!(node = name, "the Node object was deleted; making it again");
                        true
                    }
                    Some(Err(error)) => {
                        tracing::warn!(node = name, error = %error, "watching the Node object failed; trying again");
                        false
                    }
                    // The watcher never ends by itself.
                    None => return,
                },
            };
            if write {
                self.register_until_done().await;
                written_at = tokio::time::Instant::now();
            }
        }
    }

    async fn register_until_done(&self) {
        loop {
            match self.register().await {
                Ok(node) => {
                    let uid = node.metadata.uid;
                    self.uid.send_if_modified(|known| {
                        let changed = *known != uid;
                        known.clone_from(&uid);
                        changed
                    });
                    return;
                }
                Err(error) => {
                    tracing::warn!(node = self.config.name.as_str(), error = %error.chain(), "the Node object could not be written; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Makes the Node, or takes over the one that is there, and writes its status. Safe to repeat.
    async fn register(&self) -> Result<Node> {
        let name = self.config.name.as_str();
        let live = match self.api.get_opt(name).await.map_err(failed)? {
            Some(live) => self.adopt(live).await?,
            None => self.create().await?,
        };
        let status = object::status(&self.config, self.port, Some(&live), Timestamp::now());
        self.api
            .patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&status))
            .await
            .map_err(failed)
    }

    async fn create(&self) -> Result<Node> {
        let name = self.config.name.as_str();
        let born = PatchParams::apply(BIRTH_MANAGER).force();
        // Labels and taint in one write: a DaemonSet must never see the Node without them.
        self.api
            .patch(name, &born, &Patch::Apply(&object::birth(&self.config, true)))
            .await
            .map_err(failed)?;
        let node = self.label().await?;
        // Now that the labels have their lasting owner, the first one lets go of them.
        self.api
            .patch(name, &born, &Patch::Apply(&object::birth(&self.config, false)))
            .await
            .map_err(failed)?;
        tracing::info!(node = name, "made the Node object");
        Ok(node)
    }

    async fn adopt(&self, live: Node) -> Result<Node> {
        let mut node = live;
        if object::unlabelled(&self.config, &node) {
            node = self.label().await?;
        }
        if let Some(taints) = object::missing_taint(&self.config, &node) {
            let patch = serde_json::json!({
                "metadata": { "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            });
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            match self
                .api
                .patch(self.config.name.as_str(), &params, &Patch::Merge(&patch))
                .await
            {
                Ok(tainted) => node = tainted,
                // Somebody else was first, or the Node just vanished: the watch tells, and this runs again.
                Err(error) if is_conflict(&error) || is_missing(&error) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "the Node's taint could not be set; pods without a toleration may be placed on it");
                }
            }
        }
        Ok(node)
    }

    async fn label(&self) -> Result<Node> {
        self.api
            .patch(
                self.config.name.as_str(),
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(&object::metadata(&self.config)),
            )
            .await
            .map_err(failed)
    }
}

fn failed(error: kube::Error) -> crate::Error {
    api_error("write node", error)
}

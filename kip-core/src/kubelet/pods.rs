//! Watches the pods bound to this node and tells the driver what is wanted of each.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::WatchBackoff;
use super::config::{KubeletConfig, PodsConfig};
use super::demand;
use super::handle::PodDriver;
use super::registry::{Entry, PodRegistry, uid_of};
use super::source::KubePodSource;
use crate::driver::{Clock, PodIntent};
use crate::ids::PodUid;

/// How long a renewal that was asked for may take before it is asked for again.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

/// Feeds the driver from the watch.
#[derive(Debug)]
pub(crate) struct PodWatcher {
    api: Api<Pod>,
    config: Arc<KubeletConfig>,
    clock: Arc<dyn Clock>,
    registry: Arc<PodRegistry>,
    driver: Arc<dyn PodDriver>,
    source: Arc<KubePodSource>,
    /// Pods of which something referenced has changed.
    touched: mpsc::Receiver<PodUid>,
}

impl PodWatcher {
    /// A watcher that tells `driver` about the pods, and again about those whose UIDs arrive on `touched`.
    pub(crate) fn new(
        client: kube::Client,
        config: Arc<KubeletConfig>,
        clock: Arc<dyn Clock>,
        registry: Arc<PodRegistry>,
        driver: Arc<dyn PodDriver>,
        source: Arc<KubePodSource>,
        touched: mpsc::Receiver<PodUid>,
    ) -> Self {
        let api = match &config.pods.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Self {
            api,
            config,
            clock,
            registry,
            driver,
            source,
            touched,
        }
    }

    /// Watches until `shutdown`; `synced` is cancelled (that is: fires) once the first complete list was told to the driver.
    pub(crate) async fn run(mut self, synced: CancellationToken, shutdown: CancellationToken) {
        let selector = format!("spec.nodeName={}", self.config.name);
        let mut events = watcher(self.api.clone(), watcher::Config::default().fields(&selector))
            .backoff(WatchBackoff::new(self.config.pods.watch_jitter))
            .boxed();
        let mut listing: Option<BTreeSet<PodUid>> = None;
        loop {
            let renewal = self.registry.next_renewal();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Init)) => listing = Some(BTreeSet::new()),
                    Some(Ok(watcher::Event::InitApply(pod))) => {
                        if let (Some(seen), Some(uid)) = (&mut listing, uid_of(&pod)) {
                            seen.insert(uid);
                        }
                        self.seen(pod);
                    }
                    Some(Ok(watcher::Event::InitDone)) => {
                        // A deletion missed while the watch was broken shows as an absence from the list.
                        for uid in self.registry.missing_from(&listing.take().unwrap_or_default()) {
                            self.gone(&uid);
                        }
                        if !synced.is_cancelled() {
                            self.driver.synced();
                            synced.cancel();
                        }
                    }
                    Some(Ok(watcher::Event::Apply(pod))) => self.seen(pod),
                    Some(Ok(watcher::Event::Delete(pod))) => {
                        if let Some(uid) = uid_of(&pod) {
                            self.gone(&uid);
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = %crate::error::Chain::of(&error), "watching pods failed; trying again");
                    }
                    // The watcher never ends by itself.
                    None => return,
                },
                Some(uid) = self.touched.recv() => self.touch(&uid),
                () = self.registry.renewals_changed() => {}
                () = sleep_until(&*self.clock, renewal.as_ref().map(|(at, _)| *at)) => {
                    // The clock may have slept less than it was asked to.
                    if let Some((_, uid)) = renewal.filter(|(at, _)| *at <= self.clock.now()) {
                        let again = self.clock.now() + RENEWAL_RETRY;
                        self.registry.renewal_asked(&uid, again);
                        self.touch(&uid);
                    }
                }
            }
        }
    }

    fn seen(&self, pod: Pod) {
        let Some(uid) = uid_of(&pod) else { return };
        let Some(entry) = self.registry.see(pod) else {
            return;
        };
        let fingerprint = fingerprint(&entry.pod);
        if is_terminal(&entry.pod) && entry.told.is_some() && !self.source.has_ended(&uid) {
            // Evicted, say, or ended by the word of a controller that has taken over from this one.
            if self.registry.let_go(&uid) {
                self.driver.intent(uid.clone(), PodIntent::Gone);
            }
        }
        if entry.told == Some(fingerprint) {
            self.source.heal(&uid);
            return;
        }
        let changed = entry.built.is_some_and(|built| built.fingerprint != fingerprint);
        if let Some(intent) = intent(&entry, &self.config.pods, changed) {
            if matches!(intent, PodIntent::Run { .. }) && !entry.started_before {
                self.source.warn(&entry.pod, demand::warnings(&entry.pod));
            }
            self.driver.intent(uid.clone(), intent);
            self.registry.told(&uid, fingerprint);
        }
    }

    fn gone(&self, uid: &PodUid) {
        let known = self.registry.forget(uid);
        self.source.forget(uid);
        if known.is_some_and(|entry| entry.told.is_some()) {
            self.driver.intent(uid.clone(), PodIntent::Gone);
        }
    }

    fn touch(&self, uid: &PodUid) {
        let Some(entry) = self.registry.get(uid) else {
            return;
        };
        if entry.told.is_some()
            && let Some(intent @ PodIntent::Run { .. }) = intent(&entry, &self.config.pods, true)
        {
            self.driver.intent(uid.clone(), intent);
        }
    }
}

async fn sleep_until(clock: &dyn Clock, at: Option<Timestamp>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    let wait = Duration::try_from(at.duration_since(clock.now())).unwrap_or_default();
    clock.sleep(wait).await;
}

/// What is wanted of a pod, or None when nothing is: it has ended under this process's eyes. One that had ended before this process saw
/// it needs no instance any more, should it still have one.
fn intent(entry: &Entry, config: &PodsConfig, refresh: bool) -> Option<PodIntent> {
    let pod = &entry.pod;
    if pod.metadata.deletion_timestamp.is_some() {
        // As a kubelet does: the grace period counts from when the node hears of it. The timestamp is by the API server's clock.
        let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        return Some(PodIntent::Delete { grace });
    }
    if is_terminal(pod) {
        return entry.told.is_none().then_some(PodIntent::Gone);
    }
    Some(match demand::demand(pod, config) {
        Ok(demand) => {
            let spec = pod.spec.as_ref();
            PodIntent::Run {
                demand: Box::new(demand),
                refresh,
                active_deadline_seconds: spec
                    .and_then(|spec| spec.active_deadline_seconds)
                    .and_then(|seconds| u64::try_from(seconds).ok()),
                restartable: spec.and_then(|spec| spec.restart_policy.as_deref()) != Some("Never"),
                started_before: entry.started_before,
            }
        }
        Err(refusal) => PodIntent::Refuse {
            demand: Box::new(demand::nothing(pod)),
            reason: refusal.reason.to_owned(),
            message: refusal.message,
        },
    })
}

/// Whether the API says that the pod has ended.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Changes when something changed that Kip acts on: spec, labels, annotations, deletion. Not with the status.
pub(crate) fn fingerprint(pod: &Pod) -> u64 {
    let metadata = &pod.metadata;
    let mut hasher = DefaultHasher::new();
    metadata.labels.hash(&mut hasher);
    metadata.annotations.hash(&mut hasher);
    metadata
        .deletion_timestamp
        .as_ref()
        .map(|time| time.0)
        .hash(&mut hasher);
    // Pods are plain data with string keys, which always serialise.
    serde_json::to_string(&pod.spec)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(value: Value) -> Entry {
        Entry {
            pod: Arc::new(serde_json::from_value(value).expect("a pod")),
            started_before: false,
            told: None,
            let_go: false,
            built: None,
        }
    }

    fn pod(extra: Value) -> Value {
        let mut pod = json!({
            "metadata": { "uid": "u", "namespace": "default", "name": "p" },
            "spec": { "containers": [ { "name": "c", "image": "i" } ] },
        });
        for (key, value) in extra.as_object().expect("an object") {
            for (field, value) in value.as_object().expect("an object") {
                pod[key][field] = value.clone();
            }
        }
        pod
    }

    fn decide(value: Value) -> Option<PodIntent> {
        intent(&entry(value), &PodsConfig::default(), false)
    }

    #[test]
    fn a_finished_pod_is_not_run_again_after_a_restart_and_its_instance_is_not_paid_for_until_a_sweep() {
        for phase in ["Succeeded", "Failed"] {
            let ended = pod(json!({ "status": { "phase": phase } }));
            assert_eq!(decide(ended.clone()), Some(PodIntent::Gone));
            let told = Entry {
                told: Some(1),
                ..entry(ended)
            };
            assert_eq!(intent(&told, &PodsConfig::default(), false), None);
        }
    }

    #[test]
    fn a_deleted_pod_has_its_whole_grace_period_whatever_the_clocks_say() {
        let deleted = json!({ "metadata": {
            "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30 } });
        let grace = Duration::from_secs(30);
        assert_eq!(decide(pod(deleted)), Some(PodIntent::Delete { grace }));
    }

    #[test]
    fn an_invalid_annotation_is_refused_by_name_and_not_silently_ignored() {
        let bad = json!({ "metadata": { "annotations": { "pod.elotl.co/volume-size": "lots" } } });
        let Some(PodIntent::Refuse { message, .. }) = decide(pod(bad)) else {
            panic!("must be refused")
        };
        assert!(message.contains("pod.elotl.co/volume-size"), "{message}");
    }

    #[test]
    fn a_status_change_is_no_news_and_a_label_change_is() {
        let base = entry(pod(json!({})));
        let status = entry(pod(json!({ "status": { "phase": "Running" } })));
        let label = entry(pod(json!({ "metadata": { "labels": { "a": "b" } } })));
        let deadline = entry(pod(json!({ "spec": { "activeDeadlineSeconds": 5 } })));
        assert_eq!(fingerprint(&base.pod), fingerprint(&status.pod));
        assert_ne!(fingerprint(&base.pod), fingerprint(&label.pod));
        assert_ne!(fingerprint(&base.pod), fingerprint(&deadline.pod));
    }
}

//! Answers one request, once its client has been let in.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::access::{Gate, Identity};
use super::directory::PodDirectory;
use super::permission::permission;
use super::relay::{is_upgrade, relay};
use super::reply::{self, Body, Refusal};
use super::route::{Route, Target, route};
use super::stats::{Sampler, resource_metrics, summary};
use super::{kept, logs, streams};
use crate::ids::{NodeName, PodUid};
use crate::model::ContainerState;
use crate::runtime::{CellEndpoint, PodRuntime};

/// The text format Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kip's own metrics as text.
pub(super) type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

pub(super) struct Handler {
    pub(super) node: NodeName,
    pub(super) started: Timestamp,
    pub(super) gate: Gate,
    pub(super) directory: Arc<dyn PodDirectory>,
    pub(super) runtime: Arc<dyn PodRuntime>,
    pub(super) sampler: Sampler,
    pub(super) metrics: Option<Metrics>,
}

impl Handler {
    /// Answers a request. Never fails: every problem is an answer.
    pub(super) async fn answer(
        &self,
        certificate: Option<&Identity>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        self.try_answer(certificate, request)
            .await
            .unwrap_or_else(Refusal::into_response)
    }

    async fn try_answer(
        &self,
        certificate: Option<&Identity>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let route = route(request.method(), request.uri().path());
        // A liveness probe has no credentials, and learns nothing here.
        if route != Route::Healthz {
            self.gate
                .admit(
                    certificate,
                    request.headers(),
                    &permission(request.method(), &route),
                )
                .await?;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        match &route {
            Route::Healthz => Ok(reply::text(StatusCode::OK, "text/plain; charset=utf-8", "ok")),
            Route::Pods => Ok(self.pod_list(|_| true)),
            Route::RunningPods => Ok(self.pod_list(|uid| self.directory.endpoint(uid).is_some())),
            Route::Configz => Ok(reply::json(
                &json!({ "kubeletconfig": { "kind": "KubeletConfiguration" } }),
            )),
            Route::Metrics => Ok(reply::text(
                StatusCode::OK,
                METRICS,
                self.metrics.as_ref().map_or_else(String::new, |text| text()),
            )),
            // A scraper is better served with nothing than with an error it would alert on.
            Route::MetricsCadvisor => Ok(reply::text(StatusCode::OK, METRICS, "")),
            Route::MetricsResource => {
                let samples = self.sampler.samples(&*self.directory, &*self.runtime).await;
                Ok(reply::text(
                    StatusCode::OK,
                    METRICS,
                    resource_metrics(&samples, Timestamp::now()),
                ))
            }
            Route::StatsSummary => {
                let samples = self.sampler.samples(&*self.directory, &*self.runtime).await;
                Ok(reply::json(&summary(
                    &self.node,
                    self.started,
                    &samples,
                    Timestamp::now(),
                )))
            }
            Route::Logs(target) => self.logs(target, &query).await,
            Route::Exec(target) | Route::Attach(target) | Route::PortForward(target) => {
                self.session(target, &route, &query, request).await
            }
            Route::NotImplemented(what) => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, *what)),
            Route::WrongMethod(allow) => Err(Refusal {
                allow: Some(allow),
                ..Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("this path takes only {allow}"),
                )
            }),
            Route::Unknown => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
        }
    }

    fn pod_list(&self, wanted: impl Fn(&PodUid) -> bool) -> Response<Body> {
        let pods = self.directory.pods();
        let items: Vec<&Pod> = pods
            .iter()
            .map(Arc::as_ref)
            .filter(|pod| wanted(&uid(pod)))
            .collect();
        reply::json(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    async fn logs(&self, target: &Target, query: &str) -> Result<Response<Body>, Refusal> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let pod = self.pod(target)?;
        let request = logs::log_request(&target.container, query, Timestamp::now())?;
        known_container(&pod, target)?;
        let uid = uid(&pod);
        if let Some(kept) = self
            .directory
            .kept_logs(&uid, &target.container)
            .filter(|_| !request.previous)
        {
            return Ok(reply::text(StatusCode::OK, TEXT, kept::select(&kept, &request)));
        }
        let endpoint = self.cell(&pod, target)?;
        let chunks = self.runtime.logs(&endpoint, &uid, request).await?;
        Ok(reply::stream(
            TEXT,
            chunks.map(|chunk| chunk.map(Bytes::from).map_err(std::io::Error::other)),
        ))
    }

    async fn session(
        &self,
        target: &Target,
        route: &Route,
        query: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let pod = self.pod(target)?;
        let kind = streams::stream_kind(route, query)?;
        if !matches!(route, Route::PortForward(_)) {
            known_container(&pod, target)?;
        }
        if !is_upgrade(request.headers()) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "Upgrade request required"));
        }
        let uid = uid(&pod);
        let endpoint = self.cell(&pod, target)?;
        let upgrade = self.runtime.open(&endpoint, &uid, kind).await?;
        relay(request, upgrade).await
    }

    fn pod(&self, target: &Target) -> Result<Arc<Pod>, Refusal> {
        self.directory
            .find(&target.namespace, &target.pod)
            .filter(|pod| {
                target
                    .uid
                    .as_deref()
                    .is_none_or(|wanted| pod.metadata.uid.as_deref() == Some(wanted))
            })
            .ok_or_else(|| {
                let text = format!(
                    "pod {}/{} is not on node {}",
                    target.namespace, target.pod, self.node
                );
                Refusal::new(StatusCode::NOT_FOUND, text)
            })
    }

    /// Where the pod's cell is, or in the kubelet's words why there is nothing to talk to yet.
    fn cell(&self, pod: &Pod, target: &Target) -> Result<CellEndpoint, Refusal> {
        let uid = uid(pod);
        if let Some(endpoint) = self.directory.endpoint(&uid) {
            return Ok(endpoint);
        }
        let report = self.directory.report(&uid);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"))
            || report
                .as_ref()
                .and_then(|report| report.runtime.as_ref())
                .is_some_and(|runtime| {
                    runtime
                        .containers
                        .iter()
                        .any(|container| matches!(container.state, ContainerState::Terminated(_)))
                });
        let subject = if target.container.is_empty() {
            format!("pod \"{}\"", target.pod)
        } else {
            format!("container \"{}\" in pod \"{}\"", target.container, target.pod)
        };
        let text = if ended {
            format!("{subject} has ended and its cell is gone")
        } else {
            let why = report
                .map(|report| report.message)
                .filter(|message| !message.is_empty());
            let why = why.map_or_else(String::new, |message| format!(" ({message})"));
            format!("{subject} is waiting to start: ContainerCreating{why}")
        };
        Err(Refusal::new(StatusCode::BAD_REQUEST, text))
    }
}

fn uid(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.clone().unwrap_or_default())
}

fn known_container(pod: &Pod, target: &Target) -> Result<(), Refusal> {
    let spec = pod.spec.as_ref();
    let regular = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| &container.name);
    let init = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .map(|container| &container.name);
    if regular.chain(init).any(|name| *name == target.container) {
        return Ok(());
    }
    let text = format!(
        "container \"{}\" is not in pod \"{}\"",
        target.container, target.pod
    );
    Err(Refusal::new(StatusCode::NOT_FOUND, text))
}

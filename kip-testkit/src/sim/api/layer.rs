//! One controller's connection to the API, as a service under its client.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use kip_cluster::{InProcess, ResponseBody};
use kip_core::{Error, ErrorKind, Result};
use serde_json::json;
use tower_service::Service;

use super::target::Target;
use super::{mirror, watches};
use crate::sim::port::Port;
use crate::sim::scenario::Op;
use crate::sim::world::{At, State};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<ResponseBody>;

/// What the errors of a call begin with that the API itself refused.
const REFUSED: &str = "the API answered";

/// One controller's connection to the API.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    port: Arc<Port>,
    cluster: InProcess,
    watches: Arc<AtomicU32>,
}

impl Connection {
    pub(super) fn new(port: Arc<Port>, cluster: InProcess, watches: Arc<AtomicU32>) -> Self {
        Self {
            port,
            cluster,
            watches,
        }
    }

    async fn answer(self, request: Request<kube::client::Body>) -> std::result::Result<Reply, BoxError> {
        let target = Target::of(request.method(), request.uri());
        let mut cluster = self.cluster.clone();
        let Some(op) = target.op() else {
            self.port.link().await;
            return cluster.call(request).await.map_err(|never| match never {});
        };
        // What the API refuses is an error in the trace, and an answer to the client.
        let refusal: Arc<Mutex<Option<Reply>>> = Arc::default();
        let (kept, subject) = (Arc::clone(&refusal), target.subject());
        let effect = move |state: &mut State, at: At| -> Result<Reply> {
            let reply = cluster.call(request).now_or_never();
            let Some(Ok(reply)) = reply else {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "api",
                    "it waits for a version to come",
                ));
            };
            if reply.status().is_success() {
                mirror::effect(state, &cluster, op, &target.name, at);
                return Ok(reply);
            }
            let status = reply.status();
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
            Err(Error::new(kind(status), "api", format!("{REFUSED} {status}")))
        };
        let result = self.port.world.call(&self.port, op, subject, effect).await;
        match result {
            Ok(reply) if op == Op::WatchPods => {
                let nth = self.watches.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(reply.map(|body| watches::follow(body, self.port, nth)))
            }
            Ok(reply) => Ok(reply),
            Err(error) if error.message().starts_with(REFUSED) => {
                let reply = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
                reply.ok_or_else(|| error.into())
            }
            Err(error) => failed(&error),
        }
    }
}

impl Service<Request<kube::client::Body>> for Connection {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

fn kind(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        404 | 410 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        403 => ErrorKind::PermissionDenied,
        429 => ErrorKind::RateLimited,
        400..=499 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Unavailable,
    }
}

/// What a client sees of a fault: an answer of an API server in trouble, or none.
fn failed(error: &Error) -> std::result::Result<Reply, BoxError> {
    let (code, reason) = match error.kind() {
        ErrorKind::RateLimited => (429, "TooManyRequests"),
        ErrorKind::Conflict => (409, "Conflict"),
        ErrorKind::PermissionDenied | ErrorKind::QuotaExceeded => (403, "Forbidden"),
        ErrorKind::Timeout => (504, "Timeout"),
        ErrorKind::NotFound => (410, "Expired"),
        ErrorKind::Unexpected => (500, "InternalError"),
        // The connection breaks.
        _ => return Err(error.to_string().into()),
    };
    let mut status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": error.message(), "reason": reason, "code": code });
    if code == 429 {
        status["details"] = json!({ "retryAfterSeconds": 2 });
    }
    let reply = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::RETRY_AFTER, "2")
        .body(
            Full::from(status.to_string())
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
    Ok(reply?)
}

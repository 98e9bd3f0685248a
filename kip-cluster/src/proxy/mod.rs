//! Relay logs, exec, attach, port-forward and node proxies to the kubelet of the pod's node.
//!
//! Upgraded connections (SPDY, WebSocket) are relayed as raw bytes, as kube-apiserver does for SPDY. What kube-apiserver
//! also does and this does not is translating a WebSocket client to a SPDY kubelet: a WebSocket in the newest protocol
//! is refused unless the node declares that it takes them, whereupon `kubectl` falls back to SPDY.

mod dial;
mod target;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::api::{Body, BoxError, Query, Reply, Target, full};
use crate::app::App;
use crate::status::{ApiError, ApiResult};
use target::Backend;

pub(crate) use dial::{Dialer, KubeletTrust};

/// How much of a kubelet's error text is read.
const ERROR_TEXT: usize = 64 * 1024;

/// Answers a request by what the kubelet answers.
pub(crate) async fn relay(
    app: &Arc<App>,
    target: &Target,
    query: &Query,
    request: Request<Body>,
) -> ApiResult<Reply> {
    let backend = target::find(app, target, query, request.uri().query().unwrap_or(""))?;
    let upgrade = request.headers().contains_key(header::UPGRADE);
    if needs_refusal(&backend, request.headers()) {
        return Err(ApiError::bad_request(
            "the node does not declare that it takes WebSockets in this protocol; use SPDY",
        ));
    }
    let dialing =
        |error: BoxError| ApiError::new(500, "InternalError", format!("error dialing backend: {error}"));
    let Some(transport) = &app.transport else {
        return Err(dialing("a cluster without sockets dials no kubelet".into()));
    };
    let connection = transport
        .dialer
        .dial(&backend.host, backend.port)
        .await
        .map_err(dialing)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
        .await
        .map_err(|error| dialing(error.into()))?;
    let stopping = app.stopping.clone();
    tokio::spawn(async move {
        // Ends with the exchange, or with the server.
        tokio::select! {
            biased;
            result = connection.with_upgrades() => if let Err(error) = result {
                tracing::debug!(%error, "connection to the kubelet ended");
            },
            () = stopping.cancelled() => {}
        }
    });
    let mut request = request;
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    let outgoing = rewrite(request, &backend, upgrade)?;
    let mut response = sender
        .send_request(outgoing)
        .await
        .map_err(|error| dialing(error.into()))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client_side) = client_side else {
            return Err(ApiError::internal(
                "the kubelet upgraded a connection nobody asked to upgrade",
            ));
        };
        let kubelet_side = hyper::upgrade::on(&mut response);
        tokio::spawn(copy(Arc::clone(app), client_side, kubelet_side));
        let mut reply = Response::new(full(""));
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.headers_mut() = response.headers().clone();
        return Ok(reply);
    }
    if target.subresource == "log" && !response.status().is_success() {
        return Err(log_error(response).await);
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let body: Body = body.map_err(|error| -> BoxError { error.into() }).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = parts.status;
    *reply.headers_mut() = parts.headers;
    Ok(reply)
}

/// Whether the request is a WebSocket in a protocol that only nodes that declare it understand.
fn needs_refusal(backend: &Backend, headers: &HeaderMap) -> bool {
    let upgrade = headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let newest = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .map(str::trim)
                .any(|name| name == "v5.channel.k8s.io" || name == "SPDY/3.1+portforward.k8s.io")
        });
    upgrade.eq_ignore_ascii_case("websocket") && newest && !backend.takes_websockets
}

/// The request as the kubelet gets it: its path, none of the client's credentials.
fn rewrite(request: Request<Body>, backend: &Backend, upgrade: bool) -> ApiResult<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = backend
        .path
        .parse::<Uri>()
        .map_err(|error| ApiError::bad_request(format!("bad path for the kubelet: {error}")))?;
    parts.version = http::Version::HTTP_11;
    for name in [
        header::AUTHORIZATION,
        header::HOST,
        header::TE,
        header::PROXY_AUTHORIZATION,
    ] {
        parts.headers.remove(name);
    }
    if upgrade {
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        parts.headers.remove(header::CONNECTION);
    }
    if parts.method == Method::GET {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let host = format!("{}:{}", backend.host, backend.port);
    let host =
        HeaderValue::from_str(&host).map_err(|_| ApiError::internal("the node's address is no host name"))?;
    parts.headers.insert(header::HOST, host);
    Ok(Request::from_parts(parts, body))
}

/// Copies bytes both ways until both sides are done.
async fn copy(app: Arc<App>, client: hyper::upgrade::OnUpgrade, kubelet: hyper::upgrade::OnUpgrade) {
    let (client, kubelet) = match tokio::try_join!(client, kubelet) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade failed");
            return;
        }
    };
    let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
    tokio::select! {
        biased;
        result = tokio::io::copy_bidirectional(&mut client, &mut kubelet) => if let Err(error) = result {
            tracing::debug!(%error, "relay ended");
        },
        () = app.stopping.cancelled() => {}
    }
}

/// A kubelet's refusal to give logs, as a Status.
async fn log_error(response: Response<Incoming>) -> ApiError {
    let code = response.status().as_u16();
    let text = match Limited::new(response.into_body(), ERROR_TEXT).collect().await {
        Ok(text) => String::from_utf8_lossy(&text.to_bytes()).trim().to_owned(),
        Err(error) => format!("the kubelet answered {code} and no text: {error}"),
    };
    match code {
        400 => ApiError::bad_request(text),
        404 => ApiError::new(404, "NotFound", text),
        503 => ApiError::unavailable(text),
        500 => ApiError::internal(text),
        _ => ApiError::new(code, "", text),
    }
}

//! Joins a client's upgraded connection to the cell's streaming server, byte for byte.

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::duplex::DuplexIo;
use super::reply::{Body, Refusal, empty};
use crate::runtime::Upgrade;

/// Largest refusal of a streaming server that is passed on, in bytes.
const REFUSAL_LIMIT: usize = 16 * 1024;

/// Sends the client's request to the cell, and once both sides have switched protocols relays bytes until both have ended.
///
/// The session lives in a task of its own, which ends when either connection breaks: dropping the tunnel ends the command on the cell.
pub(super) async fn relay(
    mut request: Request<Incoming>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Refusal> {
    if !is_upgrade(request.headers()) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "this needs an upgraded connection: send Connection: Upgrade and Upgrade",
        ));
    }
    let io = TokioIo::new(DuplexIo::new(upgrade.io));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|error| broken("could not be spoken to", &error))?;
    let connection = tokio::spawn(connection.with_upgrades());

    let mut outgoing = Request::builder()
        .method(request.method().clone())
        .uri(upgrade.path)
        .body(empty())
        .map_err(|_| {
            Refusal::new(
                StatusCode::BAD_GATEWAY,
                "the cell named a streaming path that is not one",
            )
        })?;
    *outgoing.headers_mut() = end_to_end(request.headers());
    let mut answer = sender
        .send_request(outgoing)
        .await
        .map_err(|error| broken("did not answer", &error))?;

    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let headers = end_to_end(answer.headers());
        let body = http_body_util::Limited::new(answer.into_body(), REFUSAL_LIMIT)
            .collect()
            .await;
        connection.abort();
        let body = body
            .map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, error.to_string()))?
            .to_bytes();
        let mut response = super::reply::text(status, "text/plain; charset=utf-8", body);
        response.headers_mut().extend(headers);
        // The length is that of the body as it is now.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        response.headers_mut().remove(header::CONNECTION);
        return Ok(response);
    }

    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    let client = hyper::upgrade::on(&mut request);
    let host = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        // Either upgrade fails only when its connection broke, and then there is nobody left to tell.
        if let (Ok(client), Ok(host)) = tokio::join!(client, host) {
            let (mut client, mut host) = (TokioIo::new(client), TokioIo::new(host));
            if let Err(error) = copy_bidirectional(&mut client, &mut host).await {
                tracing::debug!(%error, "a streaming session was cut off");
            }
        }
    });
    Ok(response)
}

/// Whether a request asks to switch protocols.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let asks = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    asks && headers.contains_key(header::UPGRADE)
}

/// The headers that belong to the session: all but the client's credentials and address.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const OURS: [HeaderName; 4] = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONTENT_LENGTH,
    ];
    let mut kept = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        if !OURS.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert(header::HOST, http::HeaderValue::from_static("localhost"));
    kept
}

fn broken(what: &str, error: &hyper::Error) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the cell's streaming server {what}: {error}"),
    )
}

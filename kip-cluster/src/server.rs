//! Accept connections: TLS, who the client certificate is, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::app::App;
use crate::auth::user_of_certificate;

/// How long a client may take to finish its TLS handshake and to send a request's head.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: the usual cause, no free file descriptor, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the app stops; returns when every connection is closed.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = app.stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (app, acceptor) = (Arc::clone(&app), acceptor.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(app, stream, acceptor).await {
                        tracing::debug!(%peer, error = &*error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN * 2, connections.wait()).await.is_err() {
        tracing::warn!("connections are still open, leaving them behind");
    }
}

async fn connection(app: Arc<App>, stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), api::BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(user_of_certificate);
    let stopping = app.stopping.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let (app, peer) = (Arc::clone(&app), peer.clone());
        async move { Ok::<_, Infallible>(api::handle(app, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        result = connection.as_mut() => return result,
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    match tokio::time::timeout(DRAIN, connection).await {
        Ok(result) => result,
        Err(_) => Ok(()),
    }
}

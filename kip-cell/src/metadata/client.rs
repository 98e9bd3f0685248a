//! The few HTTP requests a metadata service is asked with: plain HTTP, small answers, one connection a round.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// The most of an answer that is read, in bytes; EC2's are a few hundred.
const MAX_BODY: usize = 64 * 1024;

/// Whether this can be asked; the error says what is wrong with it.
pub(crate) fn check(endpoint: &str) -> Result<(), String> {
    authority(endpoint).map(drop)
}

/// Host, and address with port to connect to.
fn authority(endpoint: &str) -> Result<(String, String), String> {
    let wrong = || format!("{endpoint:?} is not a URL such as http://169.254.169.254");
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    let host = uri.authority().ok_or_else(wrong)?.as_str().to_owned();
    if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() || host.contains('@') {
        return Err(wrong());
    }
    let address = if uri.port().is_some() {
        host.clone()
    } else {
        format!("{host}:80")
    };
    Ok((host, address))
}

/// An open connection to the service.
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    host: String,
    driving: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Connection {
    /// Connects. Proxies of the environment are not used: the service is on the instance's own link.
    pub(super) async fn open(endpoint: &str) -> Result<Self, String> {
        let (host, address) = authority(endpoint)?;
        let failed = |error: &dyn std::fmt::Display| format!("cannot connect to {address}: {error}");
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|error| failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let driving = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the metadata service cut the connection");
            }
        });
        Ok(Self {
            sender,
            host,
            driving: driving.abort_handle(),
        })
    }

    /// One request without a body: status and text of the answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        header: (&'static str, &str),
    ) -> Result<(StatusCode, String), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{path}: {error}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(header.0, header.1)
            .body(Empty::new())
            .map_err(|error| failed(&error))?;
        self.sender.ready().await.map_err(|error| failed(&error))?;
        let answer = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| failed(&error))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}

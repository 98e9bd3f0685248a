//! Responses of the endpoint, and the one error its handlers return.

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use crate::error::{Error, ErrorKind};

/// The body of every response.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A complete answer that is not a success: a status and one plain sentence.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// The methods that are allowed, with 405.
    pub(super) allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            allow: None,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = text(self.status, "text/plain; charset=utf-8", self.text + "\n");
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Error> for Refusal {
    /// What a failed call to a cell means to the client. A cell that does not answer is 503, which the API server relays to kubectl.
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::InvalidRequest | ErrorKind::Conflict => StatusCode::BAD_REQUEST,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = match error.kind() {
            // Already a sentence for the user.
            ErrorKind::NotFound | ErrorKind::InvalidRequest | ErrorKind::Unsupported => {
                error.message().to_owned()
            }
            _ => error.chain().to_string(),
        };
        Self::new(status, text)
    }
}

pub(super) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    text(StatusCode::OK, "application/json", value.to_string())
}

/// A body that is sent as it comes. An error after the start breaks the connection off, so that it is not taken for the end.
pub(super) fn stream(
    content_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response<Body> {
    use futures::TryStreamExt as _;
    let mut response = Response::new(StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn empty() -> Body {
    Full::new(Bytes::new())
        .map_err(|never| match never {})
        .boxed_unsync()
}

//! Turns what the Kubernetes API answers into Kip's one error.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Retry};

/// The meaning of a client error, with the operation that met it.
pub(crate) fn api_error(operation: &'static str, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => {
            let kind = kind_of(status.code, &status.reason);
            let hint = status
                .details
                .as_ref()
                .map_or(0, |details| details.retry_after_seconds);
            let message = if status.message.is_empty() {
                format!("the Kubernetes API answered {} {}", status.code, status.reason)
            } else {
                status.message.clone()
            };
            let error = Error::new(kind, operation, message).with_context("status", status.code);
            if hint > 0
                && matches!(
                    kind,
                    ErrorKind::RateLimited | ErrorKind::Unavailable | ErrorKind::Timeout
                )
            {
                return error.with_retry(Retry::After(Some(Duration::from_secs(u64::from(hint)))));
            }
            error
        }
        kube::Error::Auth(source) => Error::new(
            ErrorKind::Unauthenticated,
            operation,
            "no credentials for the Kubernetes API",
        )
        .with_source(source),
        kube::Error::SerdeError(source) => Error::new(
            ErrorKind::Unexpected,
            operation,
            "the Kubernetes API's answer could not be read",
        )
        .with_source(source),
        kube::Error::BuildRequest(source) => Error::new(
            ErrorKind::InvalidRequest,
            operation,
            "the request could not be built",
        )
        .with_source(source),
        other => Error::new(
            ErrorKind::Unavailable,
            operation,
            "the Kubernetes API did not answer",
        )
        .with_source(other),
    }
}

fn kind_of(code: u16, reason: &str) -> ErrorKind {
    match (code, reason) {
        (_, "AlreadyExists") => ErrorKind::AlreadyExists,
        (404, _) | (410, _) => ErrorKind::NotFound,
        (409, _) => ErrorKind::Conflict,
        (401, _) => ErrorKind::Unauthenticated,
        (403, _) => ErrorKind::PermissionDenied,
        (429, _) => ErrorKind::RateLimited,
        (504, _) | (_, "Timeout") => ErrorKind::Timeout,
        (400..=499, _) => ErrorKind::InvalidRequest,
        (500..=599, _) => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// Whether the API said that the object does not exist.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API said that somebody else was first.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Sends a review or a token request: kinds the API answers at once and never stores.
pub(crate) async fn post<T>(
    client: &kube::Client,
    path: &str,
    body: &serde_json::Value,
) -> Result<T, kube::Error>
where
    T: serde::de::DeserializeOwned,
{
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_not_a_name_taken_or_the_driver_would_retry_the_wrong_thing() {
        assert_eq!(kind_of(409, "AlreadyExists"), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(409, "Conflict"), ErrorKind::Conflict);
        assert_eq!(kind_of(403, "Forbidden"), ErrorKind::PermissionDenied);
        assert_eq!(kind_of(429, "TooManyRequests"), ErrorKind::RateLimited);
        assert_eq!(kind_of(503, ""), ErrorKind::Unavailable);
        assert_eq!(kind_of(422, "Invalid"), ErrorKind::InvalidRequest);
    }
}

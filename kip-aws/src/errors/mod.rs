//! What EC2's errors mean: one function from error codes to kind and retry, and one from the SDK's errors to Kip's.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;
use kip_core::{Error, ErrorKind, Retry};

mod codes;

pub(crate) use codes::{advice, classify};

/// Kip's error for the SDK's.
pub(crate) fn of_sdk<E>(
    operation: &'static str,
    call: &'static str,
    error: SdkError<E, HttpResponse>,
) -> Error
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    if is_about_credentials(&error) {
        return Error::new(
            ErrorKind::Unauthenticated,
            operation,
            "found no usable AWS credentials",
        )
        .with_source(error);
    }
    let failed = |kind, message: &str| Error::new(kind, operation, message).with_context("call", call);
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let service = answer.err();
            let code = service.code().unwrap_or("no code");
            let (kind, retry) = meaning(code, service.message().unwrap_or_default(), status);
            let message = describe(code, service.message(), status);
            let error = failed(kind, &message).with_retry(retry);
            match service.meta().request_id() {
                Some(id) => error.with_context("request", id),
                None => error,
            }
        }
        SdkError::TimeoutError(_) => {
            failed(ErrorKind::Timeout, "EC2 did not answer in time").with_source(error)
        }
        SdkError::DispatchFailure(ref failure) if failure.is_timeout() => {
            failed(ErrorKind::Timeout, "EC2 did not answer in time").with_source(error)
        }
        SdkError::DispatchFailure(_) => {
            failed(ErrorKind::Unavailable, "EC2 cannot be reached").with_source(error)
        }
        SdkError::ResponseError(_) => {
            failed(ErrorKind::Unavailable, "EC2's answer cannot be read").with_source(error)
        }
        // It never left this process, so it had no effect.
        SdkError::ConstructionFailure(_) => {
            failed(ErrorKind::InvalidRequest, "the request cannot be made").with_source(error)
        }
        _ => failed(ErrorKind::Unexpected, "the call failed").with_source(error),
    }
}

/// What an answer means. EC2 refuses an instance profile that it does not know, which the operator named or made a moment ago, by the same
/// code as what can never be right; only its sentence names the parameter.
fn meaning(code: &str, message: &str, status: u16) -> (ErrorKind, Retry) {
    if code == "InvalidParameterValue" && message.contains(PROFILE) {
        return (ErrorKind::ConfigInvalid, Retry::Never);
    }
    classify(code, status)
}

/// EC2's words, and what helps.
fn describe(code: &str, message: Option<&str>, status: u16) -> String {
    let words = match message {
        Some(message) => format!("EC2 answers {code}: {}", message.trim_end_matches('.')),
        None => format!("EC2 answers {code} with HTTP status {status}"),
    };
    let profile = message.filter(|message| code == "InvalidParameterValue" && message.contains(PROFILE));
    let helps = profile
        .map(|_| "check `cells.defaultIAMPermissions` and the pod's annotation pod.elotl.co/instance-profile")
        .or_else(|| advice(code));
    match helps {
        Some(helps) => format!("{words}; {helps}"),
        None => words,
    }
}

/// How EC2 names the parameter of the instance profile in its sentences.
const PROFILE: &str = "iamInstanceProfile";

fn is_about_credentials<E, R>(error: &SdkError<E, R>) -> bool
where
    SdkError<E, R>: StdError + 'static,
{
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.is::<CredentialsError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests;

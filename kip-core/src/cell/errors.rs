//! What an agent's answer means: gRPC codes to error kinds, in one place.

use std::error::Error as StdError;

use tonic::{Code, Status};

use super::bounds::{self, cut};
use super::connect;
use crate::error::{Error, ErrorKind};
use crate::ids::CellName;

/// The meaning of a gRPC code from an agent.
///
/// `FAILED_PRECONDITION` depends on the call: for a deploy the cell holds another pod, for logs and sessions the container has
/// not started.
fn kind_of_code(code: Code, operation: &'static str) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition if operation == DEPLOY => ErrorKind::Conflict,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorKind::InvalidRequest,
        Code::Aborted => ErrorKind::Conflict,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::RateLimited,
        Code::Unavailable | Code::Cancelled => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Unexpected,
    }
}

/// The operation whose failed precondition is a conflict.
pub(super) const DEPLOY: &str = "deploy pod";

/// An agent's error, or the connection's, as ours.
pub(super) fn from_status(status: Status, operation: &'static str, cell: &CellName) -> Error {
    // Without a status from the agent tonic invents one around the transport's error.
    let kind = match status.source() {
        Some(source)
            if matches!(
                status.code(),
                Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled
            ) =>
        {
            connect::kind_of(source)
        }
        _ => kind_of_code(status.code(), operation),
    };
    let message = if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        cut(status.message().to_owned(), bounds::MESSAGE)
    };
    let error = Error::new(kind, operation, message).with_context("cell", cell);
    if status.source().is_some() {
        error.with_source(status)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong row makes the machine retry what cannot work, or give up what would.
    #[test]
    fn each_code_has_its_kind() {
        for (code, kind) in [
            (Code::NotFound, ErrorKind::NotFound),
            (Code::AlreadyExists, ErrorKind::AlreadyExists),
            (Code::InvalidArgument, ErrorKind::InvalidRequest),
            (Code::OutOfRange, ErrorKind::InvalidRequest),
            (Code::FailedPrecondition, ErrorKind::InvalidRequest),
            (Code::Aborted, ErrorKind::Conflict),
            (Code::Unauthenticated, ErrorKind::Unauthenticated),
            (Code::PermissionDenied, ErrorKind::PermissionDenied),
            (Code::ResourceExhausted, ErrorKind::RateLimited),
            (Code::Unavailable, ErrorKind::Unavailable),
            (Code::Cancelled, ErrorKind::Unavailable),
            (Code::DeadlineExceeded, ErrorKind::Timeout),
            (Code::Unimplemented, ErrorKind::Unsupported),
            (Code::Unknown, ErrorKind::Unexpected),
            (Code::Internal, ErrorKind::Unexpected),
            (Code::DataLoss, ErrorKind::Unexpected),
        ] {
            let error = from_status(Status::new(code, "text"), "read logs", &CellName::new("c"));
            assert_eq!(error.kind(), kind, "{code:?}");
            assert_eq!(error.message(), "text");
        }
    }

    #[test]
    fn a_cell_with_another_pod_is_a_conflict_so_the_machine_replaces_the_cell_instead_of_failing_the_pod() {
        let status = Status::failed_precondition("holds pod a");
        let error = from_status(status, DEPLOY, &CellName::new("c"));
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    /// It becomes the pod's status, its events and its Cell.
    #[test]
    fn an_agents_refusal_is_cut() {
        let status = Status::invalid_argument("€".repeat(100_000));
        let error = from_status(status, DEPLOY, &CellName::new("c"));
        assert!(error.to_string().len() < 2 * bounds::MESSAGE);
    }
}

//! What EC2's errors mean: one function from error codes to kind and retry, and one from the SDK's errors to Kip's.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;
use kip_core::{Error, ErrorKind, Retry};

/// What an error code of EC2 means, and what a retry is worth.
///
/// Source of the codes: "Error codes for the Amazon EC2 API", Amazon EC2 API Reference. A code that is not in the table is judged by
/// its form, then by the HTTP status; what is left is [`ErrorKind::Unexpected`], after which callers look before they act.
pub(crate) fn classify(code: &str, status: u16) -> (ErrorKind, Retry) {
    let kind = known(code).unwrap_or_else(|| guess(code, status));
    let retry = match code {
        // The zone does not have this type, or not in this form; another offering may work.
        "Unsupported" | "UnsupportedInstanceAttribute" => Retry::Elsewhere,
        _ => kind.default_retry(),
    };
    (kind, retry)
}

fn known(code: &str) -> Option<ErrorKind> {
    let kind = match code {
        "InsufficientInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientCapacityOnHost"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientAddressCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "InsufficientVolumeCapacity"
        | "ReservationCapacityExceeded"
        | "UnfulfillableCapacity"
        | "SpotMaxPriceTooLow" => ErrorKind::InsufficientCapacity,
        "InstanceLimitExceeded"
        | "VcpuLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "HostLimitExceeded"
        | "VolumeLimitExceeded"
        | "MaxIOPSLimitExceeded"
        | "NetworkInterfaceLimitExceeded"
        | "PrivateIpAddressLimitExceeded"
        | "ResourceLimitExceeded"
        | "PendingVerification" => ErrorKind::QuotaExceeded,
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "EC2ThrottledException"
        | "TooManyRequestsException"
        | "PriorRequestNotComplete"
        | "BandwidthLimitExceeded"
        | "SlowDown" => ErrorKind::RateLimited,
        "IdempotentParameterMismatch" | "IdempotentInstanceTerminated" => ErrorKind::AlreadyExists,
        // What EC2 would never give as an id cannot exist.
        "InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed" => ErrorKind::NotFound,
        "IncorrectInstanceState" | "IncorrectState" | "ConcurrentTagAccess" => ErrorKind::Conflict,
        "UnauthorizedOperation"
        | "AccessDenied"
        | "AccessDeniedException"
        | "Blocked"
        | "OptInRequired"
        | "OperationNotPermitted" => ErrorKind::PermissionDenied,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidSecurity.RequestHasExpired"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "NotSignedUp" => ErrorKind::Unauthenticated,
        "InvalidAMIID.NotFound"
        | "InvalidAMIID.Malformed"
        | "InvalidAMIID.Unavailable"
        | "InvalidAMIAttributeItemValue"
        | "InvalidSubnetID.NotFound"
        | "InvalidSubnetID.Malformed"
        | "InvalidSubnet"
        | "InvalidVpcID.NotFound"
        | "InvalidVpcID.Malformed"
        | "InvalidGroup.NotFound"
        | "InvalidGroupId.Malformed"
        | "InvalidSecurityGroupID.NotFound"
        | "InvalidSecurityGroupId.Malformed"
        | "InvalidZone.NotFound"
        | "SecurityGroupsPerInstanceLimitExceeded"
        | "DefaultVpcDoesNotExist"
        | "VPCIdNotSpecified"
        | "VPCResourceNotSpecified" => ErrorKind::ConfigInvalid,
        "InvalidParameter"
        | "InvalidParameterValue"
        | "InvalidParameterCombination"
        | "InvalidParameterDependency"
        | "InvalidInput"
        | "InvalidInstanceType"
        | "InvalidUserData.Malformed"
        | "InvalidBlockDeviceMapping"
        | "InvalidTagKey.Malformed"
        | "TagLimitExceeded"
        | "MissingParameter"
        | "UnknownParameter"
        | "MalformedQueryString"
        | "ValidationError" => ErrorKind::InvalidRequest,
        "Unsupported"
        | "UnsupportedInstanceAttribute"
        | "UnsupportedOperation"
        | "InvalidAction"
        | "UnknownOperation"
        | "NotImplemented" => ErrorKind::Unsupported,
        "RequestTimeout" => ErrorKind::Timeout,
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "Unavailable" => ErrorKind::Unavailable,
        _ => return None,
    };
    Some(kind)
}

fn guess(code: &str, status: u16) -> ErrorKind {
    if code.starts_with("Insufficient") {
        ErrorKind::InsufficientCapacity
    } else if code.ends_with("LimitExceeded") {
        ErrorKind::QuotaExceeded
    } else if code.ends_with(".NotFound") {
        // Something that a request names beside the instance, and all of that comes from the configuration.
        ErrorKind::ConfigInvalid
    } else if status >= 500 {
        ErrorKind::Unavailable
    } else if code.starts_with("Invalid") {
        ErrorKind::InvalidRequest
    } else {
        ErrorKind::Unexpected
    }
}

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
            let (kind, retry) = classify(code, status);
            let message = match service.message() {
                Some(message) => format!("EC2 answers {code}: {message}"),
                None => format!("EC2 answers {code} with HTTP status {status}"),
            };
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
mod tests {
    use super::*;

    /// Each row decides what happens to a pod: whether it is placed elsewhere, waits, fails, or costs a second instance.
    #[test]
    fn every_code_means_what_the_machine_needs_to_know() {
        use ErrorKind::*;
        let after = Retry::After(None);
        for (code, kind, retry) in [
            (
                "InsufficientInstanceCapacity",
                InsufficientCapacity,
                Retry::Elsewhere,
            ),
            ("InsufficientHostCapacity", InsufficientCapacity, Retry::Elsewhere),
            (
                "InsufficientFreeAddressesInSubnet",
                InsufficientCapacity,
                Retry::Elsewhere,
            ),
            ("InsufficientSomethingNew", InsufficientCapacity, Retry::Elsewhere),
            ("SpotMaxPriceTooLow", InsufficientCapacity, Retry::Elsewhere),
            ("Unsupported", Unsupported, Retry::Elsewhere),
            ("InstanceLimitExceeded", QuotaExceeded, after),
            ("VcpuLimitExceeded", QuotaExceeded, after),
            ("MaxSpotInstanceCountExceeded", QuotaExceeded, after),
            ("SomethingNewLimitExceeded", QuotaExceeded, after),
            ("RequestLimitExceeded", RateLimited, after),
            ("Throttling", RateLimited, after),
            ("EC2ThrottledException", RateLimited, after),
            ("IdempotentParameterMismatch", AlreadyExists, Retry::Never),
            ("IdempotentInstanceTerminated", AlreadyExists, Retry::Never),
            ("InvalidInstanceID.NotFound", NotFound, Retry::Never),
            ("InvalidInstanceID.Malformed", NotFound, Retry::Never),
            ("IncorrectInstanceState", Conflict, after),
            ("UnauthorizedOperation", PermissionDenied, Retry::Never),
            ("OptInRequired", PermissionDenied, Retry::Never),
            ("AuthFailure", Unauthenticated, Retry::Never),
            ("ExpiredToken", Unauthenticated, Retry::Never),
            ("RequestExpired", Unauthenticated, Retry::Never),
            ("InvalidAMIID.NotFound", ConfigInvalid, Retry::Never),
            ("InvalidSubnetID.NotFound", ConfigInvalid, Retry::Never),
            ("InvalidGroup.NotFound", ConfigInvalid, Retry::Never),
            ("InvalidPlacementGroup.NotFound", ConfigInvalid, Retry::Never),
            ("InvalidParameterValue", InvalidRequest, Retry::Never),
            ("InvalidSomethingNew", InvalidRequest, Retry::Never),
            ("UnsupportedOperation", Unsupported, Retry::Never),
            ("InternalError", Unavailable, after),
            ("ServiceUnavailable", Unavailable, after),
            ("RequestTimeout", Timeout, after),
        ] {
            assert_eq!(classify(code, 400), (kind, retry), "{code}");
        }
        assert_eq!(classify("NeverHeardOf", 400), (Unexpected, Retry::Never));
        assert_eq!(classify("NeverHeardOf", 503), (Unavailable, after));
    }

    /// No capacity comes with HTTP status 500: taken for an outage it would be repeated for minutes in the same place.
    #[test]
    fn the_code_counts_before_the_status() {
        assert_eq!(classify("InsufficientInstanceCapacity", 500).1, Retry::Elsewhere);
        assert_eq!(classify("RequestLimitExceeded", 503).0, ErrorKind::RateLimited);
    }
}

use ErrorKind::*;

use super::*;

/// Each row decides what happens to a pod: whether it is placed elsewhere, waits, fails, or costs a second instance.
#[test]
fn every_code_means_what_the_machine_needs_to_know() {
    let (after, never, elsewhere) = (Retry::After(None), Retry::Never, Retry::Elsewhere);
    for (code, status, kind, retry) in [
        // Placed elsewhere at once.
        (
            "InsufficientInstanceCapacity",
            500,
            InsufficientCapacity,
            elsewhere,
        ),
        ("InsufficientHostCapacity", 500, InsufficientCapacity, elsewhere),
        (
            "InsufficientFreeAddressesInSubnet",
            400,
            InsufficientCapacity,
            Retry::OtherZone,
        ),
        (
            "InsufficientAddressCapacity",
            500,
            InsufficientCapacity,
            elsewhere,
        ),
        ("InsufficientVolumeCapacity", 500, InsufficientCapacity, elsewhere),
        ("InsufficientSomethingNew", 500, InsufficientCapacity, elsewhere),
        ("SpotMaxPriceTooLow", 400, InsufficientCapacity, elsewhere),
        ("Unsupported", 400, ErrorKind::Unsupported, elsewhere),
        ("UnsupportedTenancy", 400, ErrorKind::Unsupported, elsewhere),
        (
            "EncryptedVolumesNotSupported",
            400,
            ErrorKind::Unsupported,
            elsewhere,
        ),
        (
            "InstanceCreditSpecification.NotSupported",
            400,
            ErrorKind::Unsupported,
            elsewhere,
        ),
        (
            "VolumeTypeNotAvailableInZone",
            400,
            ErrorKind::Unsupported,
            elsewhere,
        ),
        (
            "PrivateIpAddressLimitExceeded",
            400,
            ErrorKind::Unsupported,
            elsewhere,
        ),
        (
            "InvalidInterface.IpAddressLimitExceeded",
            400,
            ErrorKind::Unsupported,
            elsewhere,
        ),
        // Waits for room under a limit of the account.
        ("InstanceLimitExceeded", 400, QuotaExceeded, after),
        ("VcpuLimitExceeded", 400, QuotaExceeded, after),
        ("MaxSpotInstanceCountExceeded", 400, QuotaExceeded, after),
        ("VolumeLimitExceeded", 400, QuotaExceeded, after),
        ("MaxIOPSLimitExceeded", 400, QuotaExceeded, after),
        ("NetworkInterfaceLimitExceeded", 400, QuotaExceeded, after),
        ("PendingVerification", 400, QuotaExceeded, after),
        ("SomethingNewLimitExceeded", 400, QuotaExceeded, after),
        // Waits its turn.
        ("RequestLimitExceeded", 503, RateLimited, after),
        ("Throttling", 400, RateLimited, after),
        ("EC2ThrottledException", 400, RateLimited, after),
        // The token, or the instance.
        ("IdempotentParameterMismatch", 400, AlreadyExists, never),
        ("IdempotentInstanceTerminated", 400, AlreadyExists, never),
        ("InvalidInstanceID.NotFound", 400, NotFound, never),
        ("InvalidInstanceID.Malformed", 400, NotFound, never),
        ("IncorrectInstanceState", 400, Conflict, after),
        // Waits for the operator.
        ("UnauthorizedOperation", 403, PermissionDenied, never),
        ("OperationNotPermitted", 400, PermissionDenied, never),
        ("OptInRequired", 401, PermissionDenied, never),
        ("Blocked", 403, PermissionDenied, never),
        (
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            403,
            PermissionDenied,
            never,
        ),
        ("AuthFailure", 401, Unauthenticated, never),
        ("ExpiredToken", 400, Unauthenticated, never),
        ("RequestExpired", 400, Unauthenticated, never),
        ("InvalidClientTokenId", 403, Unauthenticated, never),
        ("SignatureDoesNotMatch", 403, Unauthenticated, never),
        ("InvalidRegion", 400, ConfigInvalid, never),
        ("InvalidAMIID.NotFound", 400, ConfigInvalid, never),
        ("InvalidAMIID.Unavailable", 400, ConfigInvalid, never),
        ("InvalidSubnetID.NotFound", 400, ConfigInvalid, never),
        ("InvalidGroup.NotFound", 400, ConfigInvalid, never),
        ("InvalidPlacementGroup.NotFound", 400, ConfigInvalid, never),
        (
            "SecurityGroupsPerInstanceLimitExceeded",
            400,
            ConfigInvalid,
            never,
        ),
        (
            "SecurityGroupsPerInterfaceLimitExceeded",
            400,
            ConfigInvalid,
            never,
        ),
        (
            "InvalidIamInstanceProfileArn.Malformed",
            400,
            ConfigInvalid,
            never,
        ),
        ("InvalidKMSKey.InvalidState", 400, ConfigInvalid, never),
        ("InvalidKMSKey.SomethingNew", 400, ConfigInvalid, never),
        ("CustomerKeyHasBeenRevoked", 400, ConfigInvalid, never),
        ("InvalidBlockDeviceMapping", 400, ConfigInvalid, never),
        // Fails: it can never be right.
        ("InvalidParameterValue", 400, InvalidRequest, never),
        ("InvalidParameterCombination", 400, InvalidRequest, never),
        ("InvalidUserData.Malformed", 400, InvalidRequest, never),
        ("TagLimitExceeded", 400, InvalidRequest, never),
        ("InvalidTagKey.Malformed", 400, InvalidRequest, never),
        ("UnknownParameter", 400, InvalidRequest, never),
        ("InvalidSomethingNew", 400, InvalidRequest, never),
        ("UnsupportedOperation", 400, ErrorKind::Unsupported, never),
        // It may have happened: the same token again.
        ("InternalError", 500, Unavailable, after),
        ("ServiceUnavailable", 503, Unavailable, after),
        ("RequestTimeout", 400, Timeout, after),
        ("NeverHeardOf", 400, Unexpected, never),
        ("NeverHeardOf", 503, Unavailable, after),
    ] {
        assert_eq!(classify(code, status), (kind, retry), "{code} {status}");
    }
}

/// No capacity comes with HTTP status 500: taken for an outage it would be repeated for minutes in the same place.
#[test]
fn the_code_counts_before_the_status() {
    assert_eq!(classify("InsufficientInstanceCapacity", 500).1, Retry::Elsewhere);
    assert_eq!(classify("RequestLimitExceeded", 503).0, RateLimited);
}

/// EC2's sentence alone sends the operator to a search engine.
#[test]
fn what_the_operator_must_mend_says_where() {
    for (code, says) in [
        ("UnauthorizedOperation", "IAM policy"),
        ("OperationNotPermitted", "DisableApiTermination"),
        ("OptInRequired", "cells.bootImageSpec"),
        ("Blocked", "AWS Support"),
        (
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            "create-service-linked-role",
        ),
        ("PendingVerification", "verifies"),
        ("AuthFailure", "clock"),
        ("ExpiredToken", "expired"),
        ("InvalidAMIID.NotFound", "cells.bootImageSpec"),
        ("InvalidAMIID.Unavailable", "cells.bootImageSpec"),
        ("InvalidSubnetID.NotFound", "cloud.aws.subnetIDs"),
        ("InvalidGroup.NotFound", "cells.extraSecurityGroups"),
        (
            "SecurityGroupsPerInterfaceLimitExceeded",
            "cells.extraSecurityGroups",
        ),
        (
            "InvalidIamInstanceProfileArn.Malformed",
            "cells.defaultIAMPermissions",
        ),
        ("InvalidKMSKey.InvalidState", "key"),
        ("VcpuLimitExceeded", "Service Quotas"),
        ("MaxSpotInstanceCountExceeded", "Service Quotas"),
        ("VolumeLimitExceeded", "Service Quotas"),
        ("NetworkInterfaceLimitExceeded", "Service Quotas"),
        ("InvalidUserData.Malformed", "cells.cloudInitFile"),
        ("Unsupported", "zone"),
    ] {
        let message = describe(code, Some("words of EC2."), 400);
        assert!(
            message.starts_with(&format!("EC2 answers {code}: words of EC2; ")) && message.contains(says),
            "{message}"
        );
    }
    assert_eq!(
        describe("InternalError", None, 500),
        "EC2 answers InternalError with HTTP status 500"
    );
}

/// A wrong default profile would fail every pod, and each would be made anew and fail again.
#[test]
fn an_unknown_instance_profile_is_for_the_operator_to_mend() {
    let message =
        "Value (cell) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";
    let code = "InvalidParameterValue";
    assert_eq!(meaning(code, message, 400), (ConfigInvalid, Retry::Never));
    assert!(describe(code, Some(message), 400).contains("cells.defaultIAMPermissions"));
    assert_eq!(
        meaning(code, "Invalid value '0' for MinCount", 400).0,
        InvalidRequest
    );
}

//! What EC2's error codes mean, and what an operator can do about each.

use kip_core::{ErrorKind, Retry};

/// The account has never had a spot instance, so it lacks a role that EC2 needs, and Kip may not make it. Source: "Service-linked role for
/// EC2 Spot Instances", Amazon EC2 User Guide.
const SPOT_ROLE: &str = "AuthFailure.ServiceLinkedRoleCreationNotPermitted";

/// What an error code of EC2 means, and what a retry is worth.
///
/// Source of the codes: "Error codes for the Amazon EC2 API", Amazon EC2 Developer Guide. A code that is not in the table is judged by
/// its form, then by the HTTP status; what is left is [`ErrorKind::Unexpected`], after which callers look before they act.
pub(crate) fn classify(code: &str, status: u16) -> (ErrorKind, Retry) {
    let kind = known(code).unwrap_or_else(|| guess(code, status));
    let retry = match code {
        // This type, or this zone, cannot do what is asked; another offering may.
        "Unsupported"
        | "UnsupportedInstanceAttribute"
        | "UnsupportedTenancy"
        | "EncryptedVolumesNotSupported"
        | "InstanceCreditSpecification.NotSupported"
        | "VolumeTypeNotAvailableInZone"
        | "PrivateIpAddressLimitExceeded"
        | "InvalidInterface.IpAddressLimitExceeded" => Retry::Elsewhere,
        // Every type of the zone needs addresses.
        "InsufficientFreeAddressesInSubnet" => Retry::OtherZone,
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
        | "LimitPriceExceeded"
        | "SpotMaxPriceTooLow" => ErrorKind::InsufficientCapacity,
        "InstanceLimitExceeded"
        | "VcpuLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "HostLimitExceeded"
        | "VolumeLimitExceeded"
        | "VolumeIOPSLimit"
        | "MaxIOPSLimitExceeded"
        | "NetworkInterfaceLimitExceeded"
        | "ResourceLimitExceeded"
        | "ResourceCountExceeded"
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
        | "OperationNotPermitted"
        | SPOT_ROLE => ErrorKind::PermissionDenied,
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
        // What the operator named, or an image brings with it.
        "InvalidAMIID.NotFound"
        | "InvalidAMIID.Malformed"
        | "InvalidAMIID.Unavailable"
        | "InvalidAMIAttributeItemValue"
        | "InvalidBlockDeviceMapping"
        | "InvalidSubnetID.NotFound"
        | "InvalidSubnetID.Malformed"
        | "InvalidSubnet"
        | "InvalidVpcID.NotFound"
        | "InvalidVpcID.Malformed"
        | "InvalidGroup.NotFound"
        | "InvalidGroupId.Malformed"
        | "InvalidSecurityGroupID.NotFound"
        | "InvalidSecurityGroupId.Malformed"
        | "SecurityGroupsPerInstanceLimitExceeded"
        | "SecurityGroupsPerInterfaceLimitExceeded"
        | "InvalidIamInstanceProfileArn.Malformed"
        | "InvalidKMSKey.InvalidState"
        | "CustomerKeyHasBeenRevoked"
        | "InvalidZone.NotFound"
        | "InvalidAvailabilityZone"
        | "InvalidRegion"
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
        | "InvalidTagKey.Malformed"
        | "TagLimitExceeded"
        | "UnknownVolumeType"
        | "MissingParameter"
        | "UnknownParameter"
        | "MalformedQueryString"
        | "ValidationError" => ErrorKind::InvalidRequest,
        "Unsupported"
        | "UnsupportedInstanceAttribute"
        | "UnsupportedTenancy"
        | "UnsupportedOperation"
        | "EncryptedVolumesNotSupported"
        | "InstanceCreditSpecification.NotSupported"
        | "VolumeTypeNotAvailableInZone"
        | "PrivateIpAddressLimitExceeded"
        | "InvalidInterface.IpAddressLimitExceeded"
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
    } else if code.ends_with(".NotFound") || code.starts_with("InvalidKMSKey") {
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

/// What helps, where EC2's own sentence does not say it. It ends the message of the error, and so the pod's event.
pub(crate) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OperationNotPermitted" => {
            "the instance has termination protection (DisableApiTermination) and is paid for until it is taken off: \
             `aws ec2 modify-instance-attribute --no-disable-api-termination --instance-id ID`; Kip goes on trying"
        }
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            "allow the call in the IAM policy of Kip's credentials; `aws sts decode-authorization-message` explains the encoded part"
        }
        SPOT_ROLE => {
            "once for the account: `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`"
        }
        "Blocked" => "AWS has blocked the account: ask AWS Support",
        "OptInRequired" => {
            "subscribe to the image in AWS Marketplace, or name another in `cells.bootImageSpec`"
        }
        "PendingVerification" => {
            "AWS verifies the account for this region first, which takes up to some hours"
        }
        "AuthFailure" => {
            "check the credentials, the clock of this machine, and that the region is enabled for the account"
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "InvalidSecurity.RequestHasExpired" => {
            "the credentials have expired, or the clock of this machine is wrong"
        }
        "InvalidAMIID.NotFound" | "InvalidAMIID.Malformed" | "InvalidAMIID.Unavailable" => {
            "check `cells.bootImageSpec`: an image is of one region, and must be available to this account"
        }
        "InvalidSubnetID.NotFound" | "InvalidSubnetID.Malformed" | "InvalidSubnet" => {
            "check `cloud.aws.subnetIDs`"
        }
        "InvalidGroup.NotFound"
        | "InvalidGroupId.Malformed"
        | "InvalidSecurityGroupID.NotFound"
        | "InvalidSecurityGroupId.Malformed" => {
            "check `cells.extraSecurityGroups` and the pod's annotation pod.elotl.co/security-groups: a group is of one VPC"
        }
        "SecurityGroupsPerInstanceLimitExceeded" | "SecurityGroupsPerInterfaceLimitExceeded" => {
            "name fewer in `cells.extraSecurityGroups` and pod.elotl.co/security-groups, or raise the quota L-2AFB9258 (5, at most 16)"
        }
        "InvalidIamInstanceProfileArn.Malformed" => {
            "check `cells.defaultIAMPermissions` and the pod's annotation pod.elotl.co/instance-profile"
        }
        "InvalidKMSKey.InvalidState" | "CustomerKeyHasBeenRevoked" => {
            "the key that encrypts the volumes must be enabled, and Kip's role must be allowed to use it (kms:CreateGrant, kms:Decrypt, \
             kms:GenerateDataKeyWithoutPlaintext)"
        }
        "InvalidBlockDeviceMapping" => "check the volumes of the boot image",
        "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
            "raise the quota of running instances of this family in Service Quotas, or end something"
        }
        "MaxSpotInstanceCountExceeded" => {
            "raise the quota of spot requests in Service Quotas, or end something"
        }
        "VolumeLimitExceeded" | "VolumeIOPSLimit" | "MaxIOPSLimitExceeded" => {
            "raise the quota of EBS storage in Service Quotas, or delete volumes"
        }
        "NetworkInterfaceLimitExceeded" => {
            "raise the quota of network interfaces in Service Quotas, or delete some"
        }
        "InvalidUserData.Malformed" => "check `cells.cloudInitFile`",
        "InsufficientFreeAddressesInSubnet" => "add a subnet to `cloud.aws.subnetIDs`, or end something",
        "Unsupported" => "the zone does not sell this type, or not in this form",
        _ => return None,
    })
}

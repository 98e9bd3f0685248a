//! What EC2's answers mean for a check.

use kip_core::error::{Error, ErrorKind};

use super::{Check, Verdict};
use crate::api::DryRun;
use crate::permissions;

/// How sure an answer about a permission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The call named what it would name in earnest.
    Real,
    /// What the permission is about is there, but the call had to name something else that is not.
    Half,
    /// The call had to name something that is not there: a policy that looks at tags may refuse it for that alone.
    Imagined,
}

/// What the answer to a call that only asked says about its permission.
pub(super) fn of_dry_run(action: &'static str, answer: &DryRun, subject: Subject) -> Check {
    let (code, error) = match answer {
        DryRun::Allowed => return Check::new(action, Verdict::Ok, "allowed"),
        DryRun::Done => {
            let found = "the endpoint does not know DryRun: it did what was only asked about, if it could";
            return Check::new(action, Verdict::Failed, found).with_remedy("check `cloud.aws.endpointURL`");
        }
        DryRun::Refused { code, error } => (code.as_deref(), error),
    };
    if error.kind() == ErrorKind::PermissionDenied {
        return match subject {
            Subject::Real | Subject::Half => denied(action, error),
            Subject::Imagined => Check::new(
                action,
                Verdict::Unknown,
                "denied for something that is not there; a policy that looks at tags does that, and one that forbids the call too",
            )
            .with_remedy(format!("see that `{action}` is in the policy (docs/iam-policy.json)")),
        };
    }
    // What is named is not there, and that was seen before or after the permission.
    if subject != Subject::Real && code.is_some_and(|code| code.starts_with("Invalid")) {
        return Check::new(
            action,
            Verdict::Unknown,
            "not refused; certain only when there is something of Kip's",
        );
    }
    failed(action, error)
}

/// What a call that was made says about its permission, when it failed.
pub(super) fn of_error(action: &'static str, error: &Error) -> Check {
    match error.kind() {
        ErrorKind::PermissionDenied => denied(action, error),
        _ => failed(action, error),
    }
}

/// A denied call: the action that is missing is the one in EC2's words, which may be another than the call's own.
fn denied(action: &'static str, error: &Error) -> Check {
    let text = error.chain().to_string();
    let missing = missing_action(&text).unwrap_or(action);
    let lost = permissions::call(missing).and_then(|call| call.lost);
    // A call that is needed fails for whatever it needs.
    let is_optional = permissions::call(action).is_some_and(|call| call.lost.is_some());
    let verdict = if is_optional {
        Verdict::Warning
    } else {
        Verdict::Failed
    };
    let remedy = match lost {
        Some(lost) => format!("allow `{missing}` (docs/iam-policy.json); without it: {lost}"),
        None => format!("allow `{missing}` (docs/iam-policy.json)"),
    };
    Check::new(action, verdict, format!("`{missing}` is not allowed")).with_remedy(remedy)
}

/// Anything else: EC2's words, and what kind of trouble that is.
fn failed(action: &'static str, error: &Error) -> Check {
    let verdict = match error.kind() {
        // The account or the zone is full at the moment, which is no fault of the set-up.
        ErrorKind::InsufficientCapacity | ErrorKind::QuotaExceeded | ErrorKind::RateLimited => {
            Verdict::Warning
        }
        _ => Verdict::Failed,
    };
    Check::new(action, verdict, error.chain().to_string()).with_remedy(remedy(error.kind()))
}

/// What to do about a kind of error.
pub(super) fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => {
            "give Kip valid credentials: keys that are not expired, a clock that is right"
        }
        ErrorKind::PermissionDenied => "allow the call (docs/iam-policy.json)",
        ErrorKind::ConfigInvalid | ErrorKind::InvalidRequest | ErrorKind::Unsupported => {
            "change what EC2 names in the configuration"
        }
        ErrorKind::InsufficientCapacity => "nothing; pods are placed elsewhere or wait",
        ErrorKind::Conflict => "free addresses, or add a subnet",
        ErrorKind::QuotaExceeded => "raise the account's quota",
        ErrorKind::RateLimited => "try again; something calls EC2 very often",
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            "see that this machine reaches EC2: a NAT gateway or a VPC endpoint, and `cloud.aws.endpointURL`"
        }
        _ => "see EC2's words",
    }
}

/// The action in words such as `... is not authorized to perform: ec2:CreateTags on resource: ...`.
fn missing_action(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("to perform: ")?;
    let action = rest.split_whitespace().next()?.trim_end_matches(['.', ',']);
    action.contains(':').then_some(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, kind: ErrorKind, message: &str) -> DryRun {
        DryRun::Refused {
            code: Some(code.to_owned()),
            error: Error::new(kind, "preflight", message.to_owned()),
        }
    }

    /// An operator fixes what the line names: the wrong name costs an afternoon.
    #[test]
    fn each_answer_means_one_thing_and_names_the_permission_that_is_missing() {
        let denied = |action: &str| {
            let message = format!(
                "EC2 answers UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not \
                 authorized to perform: {action} on resource: arn:aws:ec2:us-east-1:1:instance/* because no identity-based policy allows \
                 the {action} action"
            );
            refused("UnauthorizedOperation", ErrorKind::PermissionDenied, &message)
        };
        let old = "EC2 answers UnauthorizedOperation: You are not authorized to perform this operation.";
        let cases: [(&str, DryRun, Subject, Verdict, &str); 14] = [
            (
                "ec2:RunInstances",
                DryRun::Allowed,
                Subject::Real,
                Verdict::Ok,
                "allowed",
            ),
            (
                "ec2:RunInstances",
                DryRun::Done,
                Subject::Real,
                Verdict::Failed,
                "does not know DryRun",
            ),
            (
                "ec2:RunInstances",
                denied("ec2:RunInstances"),
                Subject::Real,
                Verdict::Failed,
                "`ec2:RunInstances` is not allowed",
            ),
            (
                "ec2:RunInstances",
                denied("ec2:CreateTags"),
                Subject::Real,
                Verdict::Failed,
                "`ec2:CreateTags` is not allowed",
            ),
            (
                "ec2:CreateRoute",
                denied("ec2:CreateRoute"),
                Subject::Half,
                Verdict::Warning,
                "`ec2:CreateRoute` is not allowed",
            ),
            (
                "ec2:CreateRoute",
                refused("InvalidInstanceID.NotFound", ErrorKind::NotFound, "x"),
                Subject::Half,
                Verdict::Unknown,
                "not refused",
            ),
            // A profile is configured, so no launch works.
            (
                "ec2:RunInstances",
                denied("iam:PassRole"),
                Subject::Real,
                Verdict::Failed,
                "`iam:PassRole` is not allowed",
            ),
            (
                "ec2:CreateSecurityGroup",
                refused("UnauthorizedOperation", ErrorKind::PermissionDenied, old),
                Subject::Real,
                Verdict::Warning,
                "`ec2:CreateSecurityGroup` is not allowed",
            ),
            (
                "ec2:TerminateInstances",
                denied("ec2:TerminateInstances"),
                Subject::Imagined,
                Verdict::Unknown,
                "looks at tags",
            ),
            (
                "ec2:TerminateInstances",
                refused("InvalidInstanceID.NotFound", ErrorKind::NotFound, "x"),
                Subject::Imagined,
                Verdict::Unknown,
                "not refused",
            ),
            (
                "ec2:RunInstances",
                refused("InvalidAMIID.NotFound", ErrorKind::ConfigInvalid, "no ami-9"),
                Subject::Real,
                Verdict::Failed,
                "no ami-9",
            ),
            (
                "ec2:RunInstances",
                refused(
                    "InsufficientInstanceCapacity",
                    ErrorKind::InsufficientCapacity,
                    "full",
                ),
                Subject::Real,
                Verdict::Warning,
                "full",
            ),
            (
                "ec2:RunInstances",
                refused("VcpuLimitExceeded", ErrorKind::QuotaExceeded, "vCPU"),
                Subject::Real,
                Verdict::Warning,
                "vCPU",
            ),
            (
                "ec2:TerminateInstances",
                refused("AuthFailure", ErrorKind::Unauthenticated, "keys"),
                Subject::Imagined,
                Verdict::Failed,
                "keys",
            ),
        ];
        for (action, answer, subject, verdict, found) in cases {
            let check = of_dry_run(action, &answer, subject);
            assert_eq!(check.verdict, verdict, "{action} {answer:?}: {check:?}");
            assert!(check.found.contains(found), "{found}: {check:?}");
            assert_eq!(
                check.remedy.is_none(),
                verdict == Verdict::Ok || check.found.starts_with("not refused"),
                "{check:?}"
            );
        }
    }
}

//! What the fake's caller may do, and calls that only ask whether they may be made.

use std::collections::BTreeSet;

use super::state::{Answer, State};
use super::wire::Params;

/// Why a call is not allowed, when its action is among the denied ones. A launch with tags needs CreateTags too, and one with a profile
/// PassRole.
pub(super) fn refusal(denied: &BTreeSet<String>, action: &str, params: &Params) -> Option<(String, String)> {
    let mut needed = vec![("ec2", action)];
    if !params.items("TagSpecification").is_empty() {
        needed.push(("ec2", "CreateTags"));
    }
    if !params.items("IamInstanceProfile").is_empty()
        || params.0.keys().any(|key| key.starts_with("IamInstanceProfile."))
    {
        needed.push(("iam", "PassRole"));
    }
    let (service, action) = needed.into_iter().find(|(_, action)| denied.contains(*action))?;
    let message = format!(
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/kip/test is not authorized to \
         perform: {service}:{action} on resource: arn:aws:ec2:us-east-1:123456789012:*/* because no identity-based policy allows the \
         {service}:{action} action. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q"
    );
    Some(("UnauthorizedOperation".to_owned(), message))
}

/// Answers a call that was allowed and must change nothing. What it names is looked at, as the real one does.
pub(super) fn answer(state: &State, action: &str, params: &Params) -> Answer {
    let unknown = params
        .list("InstanceId")
        .into_iter()
        .chain(params.get("InstanceId").map(str::to_owned))
        .find(|id| !state.instances.contains_key(id));
    if let Some(id) = unknown {
        let message = format!("The instance ID '{id}' does not exist");
        return Err(("InvalidInstanceID.NotFound".to_owned(), message));
    }
    if action == "DeleteNetworkInterface" {
        let message = "The networkInterface ID does not exist";
        return Err((
            "InvalidNetworkInterfaceID.NotFound".to_owned(),
            message.to_owned(),
        ));
    }
    let image = params.get("ImageId").filter(|id| !state.images.contains_key(*id));
    if let Some(id) = image {
        let message = format!("The image id '[{id}]' does not exist");
        return Err(("InvalidAMIID.NotFound".to_owned(), message));
    }
    let message = "Request would have succeeded, but DryRun flag is set.";
    Err(("DryRunOperation".to_owned(), message.to_owned()))
}

//! The security group that Kip keeps for the instances of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_ec2::types::SecurityGroup;
use kip_core::error::{Error, ErrorKind, Result};

use super::ingress::{self, Rule};
use super::{Cidr, Owner, Vpc};
use crate::api::{self, Api};
use crate::builder::START;

/// How often the group is looked at and mended before another hand is blamed.
const ROUNDS: usize = 8;
/// How long to wait for EC2 to know a group it has just made.
const PAUSE: Duration = Duration::from_secs(1);

/// The group that should be there.
#[derive(Clone, Debug)]
pub(crate) struct OwnGroup {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Where it is.
    pub(crate) vpc: Vpc,
    /// Who else may reach the instances.
    pub(crate) extra: Vec<Cidr>,
    /// Where the controller is.
    pub(crate) controller: Option<IpAddr>,
    /// The user's tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// The group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its id.
    pub(crate) id: String,
    rules: BTreeSet<Rule>,
}

impl OwnGroup {
    fn desired(&self) -> BTreeSet<Rule> {
        ingress::desired(&self.vpc.ranges, &self.extra, self.controller)
    }

    /// How many rules a group lacks, and how many it has too many.
    pub(crate) fn changes(&self, found: &Found) -> (usize, usize) {
        let (allow, forbid) = ingress::changes(&self.desired(), &found.rules);
        (allow.len(), forbid.len())
    }
}

/// Looks for the group.
///
/// # Errors
/// `ConfigInvalid` when there is one of its name that is another's; what the call answers.
pub(crate) async fn find(api: &Api, wanted: &OwnGroup) -> Result<Option<Found>> {
    let name = wanted.owner.group_name();
    let filters = vec![
        api::exactly("group-name", &name),
        api::exactly("vpc-id", &wanted.vpc.id),
    ];
    let found = api.describe_security_groups(filters).await?;
    let Some(group) = found.first() else {
        return Ok(None);
    };
    if !wanted.owner.owns(group.tags()) {
        let message = format!(
            "the security group `{name}` has not the tags of Kip: remove it, or name another by `cloud.aws.securityGroup`"
        );
        return Err(Error::new(ErrorKind::ConfigInvalid, START, message));
    }
    Ok(as_found(group))
}

fn as_found(group: &SecurityGroup) -> Option<Found> {
    Some(Found {
        id: group.group_id()?.to_owned(),
        rules: ingress::rules(group.ip_permissions()),
    })
}

/// Makes the group, or makes the one that is there as it should be, and answers its id. Safe to repeat, and for two controllers at once:
/// the name is taken once, and whoever comes second looks again.
///
/// # Errors
/// As [`find`]; `PermissionDenied` with what to do instead; `Conflict` when another changes the group all the time.
pub(crate) async fn ensure(api: &Api, wanted: &OwnGroup) -> Result<String> {
    let desired = wanted.desired();
    let mut made: Option<Found> = None;
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let found = find(api, wanted).await.map_err(explained)?;
        let group = match found.or_else(|| made.clone()) {
            Some(group) => group,
            None => match create(api, wanted).await? {
                Some(group) => made.insert(group).clone(),
                None => continue,
            },
        };
        if mend(api, &group, &desired).await? {
            return Ok(group.id);
        }
    }
    let message = format!(
        "the security group `{}` does not become as it should: another changes it, or EC2 is behind; try again",
        wanted.owner.group_name()
    );
    Err(Error::new(ErrorKind::Conflict, START, message))
}

/// None when another was faster.
async fn create(api: &Api, wanted: &OwnGroup) -> Result<Option<Found>> {
    let name = wanted.owner.group_name();
    let label = format!("Kip {}", wanted.owner.node);
    let tags = wanted.owner.tags_of(label, &wanted.tags);
    match api.create_security_group(&name, &wanted.vpc.id, tags).await {
        Ok(id) => {
            tracing::info!(group = %id, name, vpc = %wanted.vpc.id, "security group made");
            Ok(Some(Found {
                id,
                rules: BTreeSet::new(),
            }))
        }
        Err(refusal) if refusal.code.as_deref() == Some("InvalidGroup.Duplicate") => Ok(None),
        Err(refusal) => Err(explained(refusal.error)),
    }
}

/// Changes the rules. Whether they were the right ones then; if not, the group is to be looked at again.
async fn mend(api: &Api, group: &Found, desired: &BTreeSet<Rule>) -> Result<bool> {
    let (allow, forbid) = ingress::changes(desired, &group.rules);
    // Allowed first: what is open stays open meanwhile.
    if !allow.is_empty() {
        let permissions = allow.iter().map(ingress::permission).collect();
        match api.authorize_ingress(&group.id, permissions).await {
            Ok(()) => tracing::info!(group = %group.id, rules = %list(&allow), "security group: allowed"),
            Err(refusal) if is_behind(refusal.code.as_deref()) => return Ok(false),
            Err(refusal) => return Err(explained(refusal.error)),
        }
    }
    if !forbid.is_empty() {
        let permissions = forbid.iter().map(ingress::permission).collect();
        match api.revoke_ingress(&group.id, permissions).await {
            Ok(()) => {
                tracing::warn!(group = %group.id, rules = %list(&forbid), "security group: allowed no longer");
            }
            Err(refusal) if is_behind(refusal.code.as_deref()) => return Ok(false),
            Err(refusal) => return Err(explained(refusal.error)),
        }
    }
    Ok(true)
}

/// Whether EC2 knows the group otherwise than it was seen: another was faster, or it is young.
fn is_behind(code: Option<&str>) -> bool {
    matches!(
        code,
        Some(
            "InvalidPermission.Duplicate"
                | "InvalidPermission.NotFound"
                | "InvalidGroup.NotFound"
                | "InvalidGroupId.NotFound"
        )
    )
}

/// An error with the ways out, when it is about a permission.
pub(super) fn explained(error: Error) -> Error {
    const INSTEAD: &str = "Kip may not keep a security group: allow it (docs/iam-policy.json), or name one by `cloud.aws.securityGroup: sg-...`, or \
                           write `cloud.aws.securityGroup: none` and give groups in `cells.extraSecurityGroups`";
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    Error::new(ErrorKind::PermissionDenied, START, INSTEAD).with_source(error)
}

fn list(rules: &[Rule]) -> String {
    rules.iter().map(Rule::to_string).collect::<Vec<_>>().join(", ")
}

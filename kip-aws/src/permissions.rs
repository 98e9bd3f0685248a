//! Which permissions Kip needs, from one table of the calls it makes: the policy in `docs/iam-policy.json` and the table in `docs/ec2.md` are
//! made from it, and a test holds it against the source.

use std::fmt::Write as _;

/// A call that Kip makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The action that allows it, such as `ec2:RunInstances`.
    pub(crate) action: &'static str,
    /// The SDK's function. Empty for an action that another call needs beside its own.
    pub(crate) function: &'static str,
    /// What is lost without it. None when Kip does not work then.
    pub(crate) lost: Option<&'static str>,
}

const fn needed(action: &'static str, function: &'static str) -> Call {
    Call {
        action,
        function,
        lost: None,
    }
}

const fn optional(action: &'static str, function: &'static str, lost: &'static str) -> Call {
    Call {
        action,
        function,
        lost: Some(lost),
    }
}

const GROUP: &str = "Kip keeps no security group: write `cloud.aws.securityGroup`";

const TYPES: &str = "instance types are those compiled in";
const QUEUE: &str = "no `cloud.aws.interruptionQueue`: agents alone notice interruptions";
const ROUTES: &str = "the annotation `pod.elotl.co/cloud-route` has no effect";

/// Every call, in the order of the documentation.
pub(crate) const CALLS: &[Call] = &[
    needed("ec2:RunInstances", "run_instances"),
    needed("ec2:CreateTags", ""),
    needed("ec2:TerminateInstances", "terminate_instances"),
    needed("ec2:DescribeInstances", "describe_instances"),
    needed("ec2:DescribeSubnets", "describe_subnets"),
    needed("ec2:DescribeImages", "describe_images"),
    optional(
        "ssm:GetParameters",
        "get_parameters",
        "boot images cannot be named by `ssmParameters`",
    ),
    optional(
        "iam:PassRole",
        "",
        "cells have no instance profile: leave `cells.defaultIAMPermissions` empty",
    ),
    optional(
        "ec2:DescribeVpcs",
        "describe_vpcs",
        "the VPC must be named by `cloud.aws.vpcID` or subnets, and Kip keeps no security group",
    ),
    optional("ec2:DescribeSecurityGroups", "describe_security_groups", GROUP),
    optional("ec2:CreateSecurityGroup", "create_security_group", GROUP),
    optional(
        "ec2:AuthorizeSecurityGroupIngress",
        "authorize_security_group_ingress",
        GROUP,
    ),
    optional(
        "ec2:RevokeSecurityGroupIngress",
        "revoke_security_group_ingress",
        "Kip's security group cannot be mended when somebody opened it",
    ),
    optional("ec2:DescribeRouteTables", "describe_route_tables", ROUTES),
    optional("ec2:ModifyInstanceAttribute", "modify_instance_attribute", ROUTES),
    optional("ec2:CreateRoute", "create_route", ROUTES),
    optional(
        "ec2:ReplaceRoute",
        "replace_route",
        "a range whose cell is replaced is not routed",
    ),
    optional(
        "ec2:DeleteRoute",
        "delete_route",
        "routes to cells that are gone stay",
    ),
    optional(
        "ec2:DescribeNetworkInterfaces",
        "describe_network_interfaces",
        "network interfaces that are left over stay",
    ),
    optional(
        "ec2:DeleteNetworkInterface",
        "delete_network_interface",
        "network interfaces that are left over stay",
    ),
    optional(
        "ec2:DescribeVolumes",
        "describe_volumes",
        "volumes that are left over are not told",
    ),
    optional("ec2:DescribeInstanceTypes", "describe_instance_types", TYPES),
    optional(
        "ec2:DescribeInstanceTypeOfferings",
        "describe_instance_type_offerings",
        TYPES,
    ),
    optional(
        "ec2:DescribeSpotPriceHistory",
        "describe_spot_price_history",
        "spot prices are estimates",
    ),
    optional(
        "sqs:GetQueueUrl",
        "get_queue_url",
        "the queue must be written as a URL",
    ),
    optional("sqs:ReceiveMessage", "receive_message", QUEUE),
    optional("sqs:DeleteMessage", "delete_message_batch", QUEUE),
    optional(
        "pricing:GetProducts",
        "get_products",
        "on-demand prices are those compiled in",
    ),
];

/// A statement of the policy.
struct Statement {
    sid: &'static str,
    actions: &'static [&'static str],
    resources: &'static [&'static str],
    /// Operator, key and values.
    condition: Option<(&'static str, &'static str, &'static [&'static str])>,
}

/// What is made must carry the tag of a cluster.
const TAGGED_AT_BIRTH: Option<(&str, &str, &[&str])> =
    Some(("Null", "aws:RequestTag/kip.elotl.co/cluster", &["false"]));
/// What is changed or ended must carry it.
const TAGGED: Option<(&str, &str, &[&str])> =
    Some(("Null", "aws:ResourceTag/kip.elotl.co/cluster", &["false"]));

/// Sources: "Actions, resources, and condition keys for Amazon EC2", Service Authorization Reference; "Granting permission to tag Amazon EC2
/// resources during creation", Amazon EC2 User Guide.
const STATEMENTS: &[Statement] = &[
    Statement {
        sid: "Look",
        actions: &[
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSpotPriceHistory",
            "ec2:DescribeSubnets",
            "ec2:DescribeVolumes",
            "ec2:DescribeVpcs",
            "pricing:GetProducts",
        ],
        resources: &["*"],
        condition: None,
    },
    Statement {
        sid: "LaunchTagged",
        actions: &["ec2:RunInstances"],
        resources: &[
            "arn:aws:ec2:*:*:instance/*",
            "arn:aws:ec2:*:*:network-interface/*",
            "arn:aws:ec2:*:*:volume/*",
        ],
        condition: TAGGED_AT_BIRTH,
    },
    Statement {
        sid: "LaunchFrom",
        actions: &["ec2:RunInstances"],
        resources: &[
            "arn:aws:ec2:*::image/*",
            "arn:aws:ec2:*::snapshot/*",
            "arn:aws:ec2:*:*:security-group/*",
            "arn:aws:ec2:*:*:spot-instances-request/*",
            "arn:aws:ec2:*:*:subnet/*",
        ],
        condition: None,
    },
    Statement {
        sid: "TagWhatIsMade",
        actions: &["ec2:CreateTags"],
        resources: &[
            "arn:aws:ec2:*:*:instance/*",
            "arn:aws:ec2:*:*:network-interface/*",
            "arn:aws:ec2:*:*:security-group/*",
            "arn:aws:ec2:*:*:spot-instances-request/*",
            "arn:aws:ec2:*:*:volume/*",
        ],
        condition: Some((
            "StringEquals",
            "ec2:CreateAction",
            &["CreateSecurityGroup", "RunInstances"],
        )),
    },
    Statement {
        sid: "ChangeAndEndOwn",
        actions: &[
            "ec2:DeleteNetworkInterface",
            "ec2:ModifyInstanceAttribute",
            "ec2:TerminateInstances",
        ],
        resources: &[
            "arn:aws:ec2:*:*:instance/*",
            "arn:aws:ec2:*:*:network-interface/*",
        ],
        condition: TAGGED,
    },
    // EC2 knows routes only by their tables, which are the user's.
    Statement {
        sid: "RouteToCells",
        actions: &["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:ReplaceRoute"],
        resources: &["arn:aws:ec2:*:*:route-table/*"],
        condition: None,
    },
    Statement {
        sid: "ReadImageParameters",
        actions: &["ssm:GetParameters"],
        resources: &[
            "arn:aws:ssm:*:*:parameter/kip/*",
            "arn:aws:ssm:*::parameter/aws/service/*",
        ],
        condition: None,
    },
    Statement {
        sid: "HearOfInterruptions",
        actions: &["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
        resources: &["arn:aws:sqs:*:*:kip*"],
        condition: None,
    },
    Statement {
        sid: "PassTheCellsRole",
        actions: &["iam:PassRole"],
        resources: &["arn:aws:iam::*:role/kip-cell"],
        condition: Some(("StringEquals", "iam:PassedToService", &["ec2.amazonaws.com"])),
    },
    Statement {
        sid: "MakeGroupTagged",
        actions: &["ec2:CreateSecurityGroup"],
        resources: &["arn:aws:ec2:*:*:security-group/*"],
        condition: TAGGED_AT_BIRTH,
    },
    Statement {
        sid: "MakeGroupIn",
        actions: &["ec2:CreateSecurityGroup"],
        resources: &["arn:aws:ec2:*:*:vpc/*"],
        condition: None,
    },
    Statement {
        sid: "KeepOwnGroup",
        actions: &[
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupIngress",
        ],
        resources: &["arn:aws:ec2:*:*:security-group/*"],
        condition: TAGGED,
    },
];

/// What a cell's own role needs: to pull images of ECR. Source: "IAM permissions for Amazon ECR", Amazon ECR User Guide.
const CELL_STATEMENTS: &[Statement] = &[
    Statement {
        sid: "LogIn",
        actions: &["ecr:GetAuthorizationToken"],
        resources: &["*"],
        condition: None,
    },
    Statement {
        sid: "Pull",
        actions: &["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        resources: &["arn:aws:ecr:*:*:repository/*"],
        condition: None,
    },
];

/// The least policy that lets a controller do everything it can, as JSON: what `docs/iam-policy.json` has.
///
/// The role of the cells is expected to be named `kip-cell`; the partition is `aws`. Both are to be changed where they differ.
pub fn iam_policy() -> String {
    policy(STATEMENTS)
}

/// The least policy of the cells' own role, which only images of ECR need, as JSON: what `docs/iam-policy-cell.json` has.
pub fn cell_iam_policy() -> String {
    policy(CELL_STATEMENTS)
}

fn policy(statements: &[Statement]) -> String {
    let list = |items: &[&str], indent: &str| {
        let lines: Vec<String> = items.iter().map(|item| format!("{indent}  \"{item}\"")).collect();
        format!("[\n{}\n{indent}]", lines.join(",\n"))
    };
    let mut texts = Vec::new();
    for statement in statements {
        let mut text = format!(
            "    {{\n      \"Sid\": \"{}\",\n      \"Effect\": \"Allow\",\n      \"Action\": {},\n      \"Resource\": {}",
            statement.sid,
            list(statement.actions, "      "),
            list(statement.resources, "      "),
        );
        if let Some((operator, key, values)) = statement.condition {
            let values = match values {
                [one] => format!("\"{one}\""),
                many => list(many, "          "),
            };
            text += &format!(
                ",\n      \"Condition\": {{\n        \"{operator}\": {{\n          \"{key}\": {values}\n        }}\n      }}"
            );
        }
        texts.push(text + "\n    }");
    }
    format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{}\n  ]\n}}\n",
        texts.join(",\n")
    )
}

/// The table of the documentation: each action, and what is lost without it.
pub fn permission_table() -> String {
    let mut text = String::from("| action | without it |\n|---|---|\n");
    for call in CALLS {
        let lost = call.lost.unwrap_or("Kip does not work");
        // Writing into a string cannot fail.
        let _ = writeln!(text, "| `{}` | {lost} |", call.action);
    }
    text
}

/// The row of an action.
pub(crate) fn call(action: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.action == action)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use kip_core::model::CapacityType;

    use super::*;
    use crate::config::AwsConfig;
    use crate::images::BootImage;
    use crate::testing::{offering, request};

    /// How the names of calls begin in the SDKs.
    const VERBS: &[&str] = &[
        "add",
        "allocate",
        "assign",
        "associate",
        "attach",
        "authorize",
        "cancel",
        "change",
        "create",
        "delete",
        "deregister",
        "describe",
        "detach",
        "disable",
        "disassociate",
        "enable",
        "get",
        "import",
        "list",
        "modify",
        "put",
        "receive",
        "register",
        "release",
        "remove",
        "replace",
        "request",
        "revoke",
        "run",
        "send",
        "start",
        "stop",
        "terminate",
        "unassign",
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }

    /// The calls in a text: what is called without arguments by the name of a call, on a client or sent before the statement ends, and what is
    /// built as the input of an operation.
    fn calls_in(text: &str) -> BTreeSet<String> {
        let mut calls = BTreeSet::new();
        for (at, _) in text.match_indices("()") {
            let (before, after) = text.split_at(at);
            let name: String = before
                .chars()
                .rev()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            let name: String = name.chars().rev().collect();
            let verb = name.split_once('_').map(|(verb, _)| verb);
            let receiver = before[..before.len() - name.len()].strip_suffix('.');
            let statement = after.split(';').next().unwrap_or_default();
            let is_sent = statement.contains(".send()");
            let is_on_client = receiver
                .is_some_and(|text| text.trim_end().ends_with(".0") || text.trim_end().ends_with("client"));
            if receiver.is_some()
                && verb.is_some_and(|verb| VERBS.contains(&verb))
                && (is_sent || is_on_client)
            {
                calls.insert(name);
            }
        }
        for (_, rest) in text
            .match_indices("::operation::")
            .map(|(at, found)| text.split_at(at + found.len()))
        {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            if rest[name.len()..].starts_with("::") && name.contains('_') {
                calls.insert(name);
            }
        }
        calls
    }

    #[test]
    fn a_call_is_seen_however_it_is_written() {
        let text = "use aws_sdk_ec2::operation::run_instances::builders::X;
            self.0\n .describe_vpcs()\n .set_x(1)\n .send()\n .await?; volume.create_time(); make().get_products().into_paginator().items().send();
            let call = self\n.0\n.receive_message().max(1); call.send();";
        let expected = [
            "describe_vpcs",
            "get_products",
            "receive_message",
            "run_instances",
        ]
        .map(str::to_owned);
        assert_eq!(calls_in(text), BTreeSet::from(expected));
    }

    /// A call without its permission fails at a user's site only; a permission without a call is one too many there.
    #[test]
    fn the_table_has_every_call_that_the_code_makes_and_no_other() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let mut made = BTreeSet::new();
        for file in files.iter().filter(|file| !file.ends_with("permissions.rs")) {
            made.extend(calls_in(&std::fs::read_to_string(file).unwrap()));
        }
        // Needs no permission. Source: GetCallerIdentity, AWS STS API Reference.
        made.remove("get_caller_identity");
        let known: BTreeSet<String> = CALLS
            .iter()
            .filter(|call| !call.function.is_empty())
            .map(|call| call.function.to_owned())
            .collect();
        let missing: Vec<_> = made.difference(&known).collect();
        let unused: Vec<_> = known.difference(&made).collect();
        assert!(missing.is_empty(), "add to CALLS and STATEMENTS: {missing:?}");
        assert!(unused.is_empty(), "nobody calls any more: {unused:?}");
    }

    #[test]
    fn every_call_of_the_table_is_allowed_by_the_policy_and_nothing_else_is() {
        let allowed: BTreeSet<&str> = STATEMENTS
            .iter()
            .flat_map(|statement| statement.actions)
            .copied()
            .collect();
        let needed: BTreeSet<&str> = CALLS.iter().map(|call| call.action).collect();
        assert_eq!(allowed, needed);
        for statement in STATEMENTS {
            let reads = statement.actions.iter().all(|action| {
                let name = action.split_once(':').map_or("", |(_, name)| name);
                name.starts_with("Describe") || name.starts_with("Get") || name.starts_with("List")
            });
            assert!(
                reads || !statement.resources.contains(&"*"),
                "{}: what changes something must name resources",
                statement.sid
            );
        }
        for call in CALLS.iter().filter(|call| !call.function.is_empty()) {
            let name = call.action.split_once(':').map_or("", |(_, name)| name);
            assert_eq!(
                call.function.trim_end_matches("_batch").replace('_', ""),
                name.to_lowercase(),
                "{call:?}"
            );
        }
    }

    /// EC2 refuses a whole launch for one thing that may not be tagged, as it would refuse every spot launch for its request.
    #[test]
    fn whatever_a_launch_makes_and_tags_may_be_made_and_tagged() {
        let mut request = request();
        request.offering = offering("c7g.large", CapacityType::Spot);
        let image = BootImage {
            id: "ami-1".into(),
            root_device: "/dev/xvda".into(),
            root_gib: 8,
            kept_volumes: Vec::new(),
        };
        let input = crate::launch::input(&request, &AwsConfig::default(), &image, "subnet-1")
            .unwrap()
            .build()
            .unwrap();
        let mut tagged: Vec<&str> = input
            .tag_specifications()
            .iter()
            .map(|tags| tags.resource_type().unwrap().as_str())
            .collect();
        assert!(tagged.contains(&"spot-instances-request"), "{tagged:?}");
        let allows = |action: &str, kind: &str| {
            let resource = format!("arn:aws:ec2:*:*:{kind}/*");
            STATEMENTS.iter().any(|statement| {
                statement.actions.contains(&action) && statement.resources.contains(&resource.as_str())
            })
        };
        for kind in &tagged {
            assert!(allows("ec2:RunInstances", kind), "{kind} cannot be made");
        }
        // What else is made with tags.
        tagged.push("security-group");
        assert!(allows("ec2:CreateSecurityGroup", "security-group"));
        for kind in tagged {
            assert!(allows("ec2:CreateTags", kind), "{kind} cannot be tagged");
        }
    }

    /// The documents are what users apply and read. Writes them when `KIP_UPDATE_DOCS` is set.
    #[test]
    fn the_documents_are_what_the_table_says() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let policy = docs.join("iam-policy.json");
        let cell = docs.join("iam-policy-cell.json");
        let page = docs.join("ec2.md");
        let text = std::fs::read_to_string(&page).unwrap();
        let (begin, end) = ("<!-- permissions:begin -->\n", "<!-- permissions:end -->");
        let (before, rest) = text.split_once(begin).expect("docs/ec2.md has the mark");
        let (_, after) = rest.split_once(end).expect("docs/ec2.md has the mark");
        let expected = format!("{before}{begin}{}{end}{after}", permission_table());
        if std::env::var_os("KIP_UPDATE_DOCS").is_some() {
            std::fs::write(&policy, iam_policy()).unwrap();
            std::fs::write(&cell, cell_iam_policy()).unwrap();
            std::fs::write(&page, &expected).unwrap();
        }
        let hint = "run KIP_UPDATE_DOCS=1 cargo test -p kip-aws permissions";
        assert_eq!(
            std::fs::read_to_string(&policy).unwrap_or_default(),
            iam_policy(),
            "{hint}"
        );
        assert_eq!(
            std::fs::read_to_string(&cell).unwrap_or_default(),
            cell_iam_policy(),
            "{hint}"
        );
        assert_eq!(std::fs::read_to_string(&page).unwrap(), expected, "{hint}");
    }
}

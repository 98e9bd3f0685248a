//! The table of Kubernetes' own resource types that are served.

use super::{ALL_VERBS, Resource, Source, Subresource};

const CREATE: &[&str] = &["create"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

const CORE: &str = "io.k8s.api.core.v1";
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const EVENT_FIELDS_NEW: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

struct Row {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    package: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

const fn row(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    package: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
) -> Row {
    Row {
        group,
        plural,
        kind,
        package,
        short,
        namespaced,
    }
}

const STORED: &[Row] = &[
    row("", "namespaces", "Namespace", CORE, &["ns"], false),
    row("", "pods", "Pod", CORE, &["po"], true),
    row("", "nodes", "Node", CORE, &["no"], false),
    row("", "events", "Event", CORE, &["ev"], true),
    row("", "configmaps", "ConfigMap", CORE, &["cm"], true),
    row("", "secrets", "Secret", CORE, &[], true),
    row("", "services", "Service", CORE, &["svc"], true),
    row("", "endpoints", "Endpoints", CORE, &["ep"], true),
    row("", "serviceaccounts", "ServiceAccount", CORE, &["sa"], true),
    row(
        "coordination.k8s.io",
        "leases",
        "Lease",
        "io.k8s.api.coordination.v1",
        &[],
        true,
    ),
    row(
        "events.k8s.io",
        "events",
        "Event",
        "io.k8s.api.events.v1",
        &["ev"],
        true,
    ),
    row(
        "node.k8s.io",
        "runtimeclasses",
        "RuntimeClass",
        "io.k8s.api.node.v1",
        &[],
        false,
    ),
    row(
        "scheduling.k8s.io",
        "priorityclasses",
        "PriorityClass",
        "io.k8s.api.scheduling.v1",
        &["pc"],
        false,
    ),
    row(
        "rbac.authorization.k8s.io",
        "clusterroles",
        "ClusterRole",
        "io.k8s.api.rbac.v1",
        &[],
        false,
    ),
    row(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "ClusterRoleBinding",
        "io.k8s.api.rbac.v1",
        &[],
        false,
    ),
    row(
        "rbac.authorization.k8s.io",
        "roles",
        "Role",
        "io.k8s.api.rbac.v1",
        &[],
        true,
    ),
    row(
        "rbac.authorization.k8s.io",
        "rolebindings",
        "RoleBinding",
        "io.k8s.api.rbac.v1",
        &[],
        true,
    ),
    row(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        &["crd", "crds"],
        false,
    ),
];

/// Questions that are answered and not stored.
const ASKED: &[Row] = &[
    row("", "bindings", "Binding", CORE, &[], true),
    row(
        "authentication.k8s.io",
        "tokenreviews",
        "TokenReview",
        "io.k8s.api.authentication.v1",
        &[],
        false,
    ),
    row(
        "authentication.k8s.io",
        "selfsubjectreviews",
        "SelfSubjectReview",
        "io.k8s.api.authentication.v1",
        &[],
        false,
    ),
    row(
        "authorization.k8s.io",
        "subjectaccessreviews",
        "SubjectAccessReview",
        "io.k8s.api.authorization.v1",
        &[],
        false,
    ),
    row(
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        "io.k8s.api.authorization.v1",
        &[],
        false,
    ),
    row(
        "authorization.k8s.io",
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        "io.k8s.api.authorization.v1",
        &[],
        true,
    ),
    row(
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        "io.k8s.api.authorization.v1",
        &[],
        false,
    ),
];

fn base(row: &Row, verbs: &'static [&'static str]) -> Resource {
    let custom_storage = row.group == "events.k8s.io";
    let singular = row.kind.to_lowercase();
    Resource {
        group: row.group.to_owned(),
        version: "v1".to_owned(),
        plural: row.plural.to_owned(),
        singular,
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        short_names: row.short.iter().map(|&name| name.to_owned()).collect(),
        categories: match row.plural {
            "pods" | "services" => vec!["all".to_owned()],
            "customresourcedefinitions" => vec!["api-extensions".to_owned()],
            _ => Vec::new(),
        },
        namespaced: row.namespaced,
        verbs,
        subresources: Vec::new(),
        selectable: selectable(row).iter().map(|&path| path.to_owned()).collect(),
        table: if custom_storage {
            "/events".to_owned()
        } else {
            format!("{}/{}", row.group, row.plural)
        },
        source: Source::Builtin(format!("{}.{}", row.package, row.kind)),
        has_status: matches!(
            row.plural,
            "pods" | "nodes" | "namespaces" | "services" | "customresourcedefinitions"
        ),
        counts_generation: matches!(row.plural, "pods" | "customresourcedefinitions"),
        returns_deleted: matches!(row.plural, "pods" | "namespaces" | "services" | "serviceaccounts"),
    }
}

fn selectable(row: &Row) -> &'static [&'static str] {
    match (row.group, row.plural) {
        ("", "pods") => POD_FIELDS,
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "events") => EVENT_FIELDS,
        ("events.k8s.io", "events") => EVENT_FIELDS_NEW,
        _ => &[],
    }
}

fn sub(name: &'static str, kind: &str, verbs: &'static [&'static str]) -> Subresource {
    Subresource {
        name,
        kind: kind.to_owned(),
        kind_version: None,
        verbs,
    }
}

fn subresources(row: &Row) -> Vec<Subresource> {
    match row.plural {
        "namespaces" => vec![
            sub("finalize", "Namespace", &["update"]),
            sub("status", "Namespace", GET_PATCH_UPDATE),
        ],
        "pods" => vec![
            sub("attach", "PodAttachOptions", CONNECT),
            sub("binding", "Binding", CREATE),
            sub("ephemeralcontainers", "Pod", GET_PATCH_UPDATE),
            Subresource {
                kind_version: Some(("policy", "v1")),
                ..sub("eviction", "Eviction", CREATE)
            },
            sub("exec", "PodExecOptions", CONNECT),
            sub("log", "Pod", &["get"]),
            sub("portforward", "PodPortForwardOptions", CONNECT),
            sub("status", "Pod", GET_PATCH_UPDATE),
        ],
        "nodes" => vec![
            sub("proxy", "NodeProxyOptions", PROXY),
            sub("status", "Node", GET_PATCH_UPDATE),
        ],
        "services" => vec![sub("status", "Service", GET_PATCH_UPDATE)],
        "serviceaccounts" => vec![Subresource {
            kind_version: Some(("authentication.k8s.io", "v1")),
            ..sub("token", "TokenRequest", CREATE)
        }],
        "customresourcedefinitions" => vec![sub("status", "CustomResourceDefinition", GET_PATCH_UPDATE)],
        _ => Vec::new(),
    }
}

/// Every built-in resource.
pub(super) fn resources() -> Vec<Resource> {
    let stored = STORED.iter().map(|row| {
        let verbs = if row.plural == "namespaces" {
            NAMESPACE_VERBS
        } else {
            ALL_VERBS
        };
        Resource {
            subresources: subresources(row),
            ..base(row, verbs)
        }
    });
    stored.chain(ASKED.iter().map(|row| base(row, CREATE))).collect()
}

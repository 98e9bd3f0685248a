//! Work out which kubelet a request goes to, and what it is called there.

use serde_json::Value;

use crate::api::{Query, Target, encode};
use crate::app::App;
use crate::object;
use crate::status::{ApiError, ApiResult};
use crate::store::{Key, Object};

/// A kubelet and the path to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    /// The node declares that it takes WebSockets in the newest protocol.
    pub(super) takes_websockets: bool,
}

/// The query parameters of logs that a kubelet understands.
const LOG_PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

/// The kubelet and path of a request for a pod's or node's streaming subresource.
pub(super) fn find(app: &App, target: &Target, query: &Query, raw_query: &str) -> ApiResult<Backend> {
    if target.resource == "nodes" {
        let path = if target.rest.is_empty() { "/" } else { &target.rest };
        let path = if raw_query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{raw_query}")
        };
        return endpoint(app, &target.name, path, "nodes");
    }
    let key = Key::new(target.namespace.as_str(), target.name.as_str());
    let pod = app
        .store
        .get("/pods", &key)
        .ok_or_else(|| ApiError::not_found("", "pods", &target.name))?;
    let node = object::str_at(&pod, &["spec", "nodeName"])
        .unwrap_or("")
        .to_owned();
    let path = path_of(&pod, target, query)?;
    if node.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            target.name
        )));
    }
    // kube-apiserver names the resource of the request here, not the node.
    endpoint(app, &node, path, "pods")
}

fn path_of(pod: &Object, target: &Target, query: &Query) -> ApiResult<String> {
    let (namespace, name) = (&target.namespace, &target.name);
    if target.subresource == "portforward" {
        let ports: Vec<String> = query
            .all("ports")
            .map(|port| format!("port={}", encode(port)))
            .collect();
        let separator = if ports.is_empty() { "" } else { "?" };
        return Ok(format!(
            "/portForward/{namespace}/{name}{separator}{}",
            ports.join("&")
        ));
    }
    let mut parameters = Vec::new();
    if target.subresource == "log" {
        check_log_options(target, query)?;
        for parameter in LOG_PARAMETERS {
            let value = query.get(parameter);
            if !value.is_empty() {
                parameters.push(format!("{parameter}={}", encode(value)));
            }
        }
    } else {
        let phase = object::str_at(pod, &["status", "phase"]).unwrap_or("");
        if matches!(phase, "Succeeded" | "Failed") {
            let verb = if target.subresource == "exec" {
                "exec into"
            } else {
                "attach to"
            };
            return Err(ApiError::bad_request(format!(
                "cannot {verb} a container in a completed pod; current phase is {phase}"
            )));
        }
        for (from, to) in [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
            ("tty", "tty"),
        ] {
            if query.flag(from) {
                parameters.push(format!("{to}=1"));
            }
        }
        if target.subresource == "exec" {
            parameters.extend(
                query
                    .all("command")
                    .map(|word| format!("command={}", encode(word))),
            );
        }
    }
    let container = container(pod, target, query.get("container"))?;
    let place = if target.subresource == "log" {
        "containerLogs"
    } else {
        target.subresource.as_str()
    };
    let separator = if parameters.is_empty() { "" } else { "?" };
    Ok(format!(
        "/{place}/{namespace}/{name}/{container}{separator}{}",
        parameters.join("&")
    ))
}

fn check_log_options(target: &Target, query: &Query) -> ApiResult<()> {
    use crate::status::Problem;
    let mut problems = Vec::new();
    for (name, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(number) = query.number::<i64>(name)?.filter(|number| *number < least) {
            problems.push(Problem::invalid(name, &number.into(), why));
        }
    }
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        problems.push(Problem::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("", "PodLogOptions", &target.name, problems))
    }
}

/// The container asked for, or the only one, or the one the pod's annotation names.
fn container(pod: &Value, target: &Target, asked: &str) -> ApiResult<String> {
    let names = |list: &str| -> Vec<&str> {
        object::list_at(pod, &["spec", list])
            .iter()
            .filter_map(|c| object::str_at(c, &["name"]))
            .collect()
    };
    let (main, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    if asked.is_empty() {
        if let [only] = main[..] {
            return Ok(only.to_owned());
        }
        let preferred = object::str_at(
            pod,
            &[
                "metadata",
                "annotations",
                "kubectl.kubernetes.io/default-container",
            ],
        );
        if let Some(name) = preferred.filter(|name| main.contains(name)) {
            return Ok(name.to_owned());
        }
        let mut why = format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            target.name,
            main.join(" ")
        );
        if !init.is_empty() {
            why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        return Err(ApiError::bad_request(why));
    }
    if [main, init, ephemeral].iter().any(|names| names.contains(&asked)) {
        return Ok(asked.to_owned());
    }
    Err(ApiError::bad_request(format!(
        "container {asked} is not valid for pod {}",
        target.name
    )))
}

/// Where a node's kubelet listens: its internal address, else its host name; the port it announces, else 10250.
fn endpoint(app: &App, node: &str, path: String, plural: &str) -> ApiResult<Backend> {
    let node = app
        .store
        .get("/nodes", &Key::new("", node))
        .ok_or_else(|| ApiError::not_found("", plural, node))?;
    let address = |kind: &str| {
        object::list_at(&node, &["status", "addresses"])
            .iter()
            .find(|address| object::str_at(address, &["type"]) == Some(kind))
            .and_then(|address| object::str_at(address, &["address"]))
    };
    let host = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"]
        .into_iter()
        .find_map(address)
        .ok_or_else(|| {
            ApiError::internal(format!(
                "no preferred addresses found; known addresses of node {}: []",
                object::name(&node)
            ))
        })?;
    let port = object::at(&node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(10250);
    let takes_websockets = object::list_at(&node, &["status", "declaredFeatures"])
        .iter()
        .any(|feature| feature == "ExtendWebSocketsToKubelet");
    Ok(Backend {
        host: host.to_owned(),
        port,
        path,
        takes_websockets,
    })
}

//! What users get wrong in pods.

use serde_json::Value;

use super::names;
use crate::object;
use crate::quantity::Quantity;
use crate::status::Problem;

/// The problems of a pod's spec.
pub(super) fn validate(pod: &Value, problems: &mut Vec<Problem>) {
    let spec = object::at(pod, &["spec"]).unwrap_or(&Value::Null);
    one_of(
        spec,
        "spec",
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        problems,
    );
    one_of(
        spec,
        "spec",
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        problems,
    );
    let volumes = object::list_at(spec, &["volumes"]);
    let mut seen: Vec<&str> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let field = format!("spec.volumes[{index}].name");
        names::label(&field, volume.get("name"), problems);
        unique(&field, volume.get("name"), &mut seen, problems);
    }
    if object::list_at(spec, &["containers"]).is_empty() {
        problems.push(Problem::required("spec.containers", ""));
    }
    let mut names_seen = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in object::list_at(spec, &[list]).iter().enumerate() {
            let path = format!("spec.{list}[{index}]");
            let field = format!("{path}.name");
            names::label(&field, container.get("name"), problems);
            unique(&field, container.get("name"), &mut names_seen, problems);
            self::container(&path, container, &seen, problems);
        }
    }
    let grace = object::at(spec, &["terminationGracePeriodSeconds"]);
    if let Some(seconds) = grace.filter(|seconds| seconds.as_i64().is_some_and(|seconds| seconds < 0)) {
        problems.push(Problem::invalid(
            "spec.terminationGracePeriodSeconds",
            seconds,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(seconds) = object::at(spec, &["activeDeadlineSeconds"])
        && seconds.as_i64().is_some_and(|seconds| seconds < 1)
    {
        problems.push(Problem::invalid(
            "spec.activeDeadlineSeconds",
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
}

fn container(path: &str, container: &Value, volumes: &[&str], problems: &mut Vec<Problem>) {
    if object::str_at(container, &["image"]).unwrap_or("").is_empty() {
        problems.push(Problem::required(format!("{path}.image"), ""));
    }
    one_of(
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        problems,
    );
    for (index, port) in object::list_at(container, &["ports"]).iter().enumerate() {
        let field = format!("{path}.ports[{index}]");
        names::port(
            &format!("{field}.containerPort"),
            port.get("containerPort"),
            problems,
        );
        one_of(port, &field, "protocol", &["SCTP", "TCP", "UDP"], problems);
    }
    for (index, variable) in object::list_at(container, &["env"]).iter().enumerate() {
        if object::str_at(variable, &["name"]).unwrap_or("").is_empty() {
            problems.push(Problem::required(format!("{path}.env[{index}].name"), ""));
        }
        let given = object::str_at(variable, &["value"]).is_some_and(|value| !value.is_empty());
        if given && variable.get("valueFrom").is_some() {
            let value = "".into();
            let why = "may not be specified when `value` is not empty";
            problems.push(Problem::invalid(
                format!("{path}.env[{index}].valueFrom"),
                &value,
                why,
            ));
        }
    }
    let mut paths: Vec<&str> = Vec::new();
    for (index, mount) in object::list_at(container, &["volumeMounts"]).iter().enumerate() {
        let field = format!("{path}.volumeMounts[{index}]");
        let name = mount.get("name").unwrap_or(&Value::Null);
        if !volumes.iter().any(|volume| name == volume) {
            problems.push(Problem::not_found(format!("{field}.name"), name));
        }
        match object::str_at(mount, &["mountPath"]) {
            None | Some("") => problems.push(Problem::required(format!("{field}.mountPath"), "")),
            Some(mount_path) if paths.contains(&mount_path) => {
                let why = "must be unique";
                problems.push(Problem::invalid(
                    format!("{field}.mountPath"),
                    &mount_path.into(),
                    why,
                ));
            }
            Some(mount_path) => paths.push(mount_path),
        }
    }
    resources(path, container, problems);
}

fn resources(path: &str, container: &Value, problems: &mut Vec<Problem>) {
    let amounts = |kind: &str| object::at(container, &["resources", kind]).and_then(Value::as_object);
    for kind in ["limits", "requests"] {
        for (name, amount) in amounts(kind).into_iter().flatten() {
            let field = format!("{path}.resources.{kind}.{name}");
            let Some(parsed) = amount.as_str().and_then(Quantity::parse) else {
                problems.push(Problem::invalid(field, amount, "must be a quantity"));
                continue;
            };
            if parsed.is_negative() {
                problems.push(Problem::invalid(
                    field,
                    amount,
                    "must be greater than or equal to 0",
                ));
            } else if name.contains('/') && !parsed.is_whole() {
                problems.push(Problem::invalid(field, amount, "must be an integer"));
            } else if !name.contains('/') && !is_standard(name) {
                let why = "must be a standard resource for containers";
                problems.push(Problem::invalid(
                    format!("{path}.resources.{kind}[{name}]"),
                    &name.as_str().into(),
                    why,
                ));
            }
        }
    }
    for (name, request) in amounts("requests").into_iter().flatten() {
        let limit = amounts("limits").and_then(|limits| limits.get(name));
        let parse = |value: &Value| value.as_str().and_then(Quantity::parse);
        if let (Some(asked), Some(most)) = (parse(request), limit.and_then(parse))
            && asked.exceeds(most)
        {
            let why = format!("must be less than or equal to {name} limit of {most}");
            problems.push(Problem::invalid(
                format!("{path}.resources.requests"),
                request,
                &why,
            ));
        }
    }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn one_of(value: &Value, path: &str, field: &str, allowed: &[&str], problems: &mut Vec<Problem>) {
    if let Some(found) = value
        .get(field)
        .filter(|found| !allowed.iter().any(|allowed| *found == allowed))
    {
        problems.push(Problem::unsupported(format!("{path}.{field}"), found, allowed));
    }
}

fn unique<'v>(field: &str, value: Option<&'v Value>, seen: &mut Vec<&'v str>, problems: &mut Vec<Problem>) {
    if let Some(name) = value.and_then(Value::as_str).filter(|name| !name.is_empty()) {
        if seen.contains(&name) {
            problems.push(Problem::duplicate(field, &name.into()));
        } else {
            seen.push(name);
        }
    }
}

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Refuses changes of a running pod's spec beyond the few fields that may change.
pub(super) fn immutable(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let reduced = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or(Value::Null);
        for list in ["containers", "initContainers"] {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                object::as_map(container).remove("image");
            }
        }
        let map = object::as_map(&mut spec);
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            map.remove(field);
        }
        spec
    };
    if reduced(old) != reduced(new) {
        problems.push(Problem::forbidden("spec", MUTABLE));
    }
    let tolerations = |pod| object::list_at(pod, &["spec", "tolerations"]);
    if !tolerations(old).iter().all(|old| tolerations(new).contains(old)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        problems.push(Problem::forbidden("spec.tolerations", why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems_of(spec: Value) -> Vec<String> {
        let mut problems = Vec::new();
        validate(&json!({"spec": spec}), &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    /// Broken, a bad manifest is accepted and fails much later on a machine that costs money.
    #[test]
    fn common_mistakes_are_named() {
        let fine = json!({"name": "c", "image": "i"});
        for (spec, expected) in [
            (json!({}), "spec.containers: Required value"),
            (
                json!({"containers": [{"name": "c"}]}),
                "spec.containers[0].image: Required value",
            ),
            (
                json!({"containers": [{"image": "i"}]}),
                "spec.containers[0].name: Required value",
            ),
            (
                json!({"containers": [fine, fine]}),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                json!({"containers": [fine], "restartPolicy": "Sometimes"}),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}]}),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
        ] {
            assert_eq!(problems_of(spec), [expected]);
        }
    }

    /// Broken, `kubectl edit` changes a pod's resources behind the kubelet's back.
    #[test]
    fn only_a_few_fields_may_change() {
        let pod =
            json!({"spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"key": "a"}]}});
        let changed = |at: &str, value: Value| {
            let mut new = pod.clone();
            *new.pointer_mut(at).unwrap() = value;
            let mut problems = Vec::new();
            immutable(&pod, &new, &mut problems);
            problems.len()
        };
        assert_eq!(changed("/spec/containers/0/image", json!("j")), 0);
        assert_eq!(changed("/spec/containers/0/name", json!("d")), 1);
        assert_eq!(
            changed("/spec/tolerations", json!([{"key": "a"}, {"key": "b"}])),
            0
        );
        assert_eq!(changed("/spec/tolerations", json!([])), 1);
    }
}

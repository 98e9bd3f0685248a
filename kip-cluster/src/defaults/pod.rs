//! The defaults of pods.

use serde_json::{Map, Value, json};

use crate::object::{self, as_map, child, set_default};
use crate::quantity::Quantity;

/// Sets the defaults of a pod's spec and status.
pub(super) fn apply(pod: &mut Value) {
    let spec = child(pod, "spec");
    for (field, value) in [
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ] {
        set_default(spec, field, value);
    }
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "enableServiceLinks", true);
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec.insert("serviceAccount".to_owned(), account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for one in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            container(as_map(one), host_network);
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        self::volume(as_map(volume));
    }
    let status = child(pod, "status");
    set_default(status, "phase", "Pending");
    if !status.contains_key("qosClass") {
        let class = quality_of_service(pod);
        child(pod, "status").insert("qosClass".to_owned(), class.into());
    }
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set_default(container, "imagePullPolicy", policy);
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let port = as_map(port);
        set_default(port, "protocol", "TCP");
        if let (true, Some(number)) = (host_network, port.get("containerPort").cloned()) {
            set_default(port, "hostPort", number);
        }
    }
    for variable in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_default(as_map(reference), "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) else {
            continue;
        };
        let probe = as_map(probe);
        for (field, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            set_default(probe, field, value);
        }
        if let Some(get) = probe.get_mut("httpGet") {
            let get = as_map(get);
            set_default(get, "path", "/");
            set_default(get, "scheme", "HTTP");
        }
    }
    // A limit is also the request, where none is given.
    if let Some(resources) = container.get_mut("resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = child(resources, "requests");
        limits
            .into_iter()
            .for_each(|(name, value)| set_default(requests, &name, value));
    }
}

fn volume(volume: &mut Map<String, Value>) {
    const SOURCES: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];
    if !volume.keys().any(|name| name != "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in SOURCES {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            set_default(as_map(source), "defaultMode", 420);
        }
    }
    if let Some(host) = volume.get_mut("hostPath").filter(|host| host.is_object()) {
        set_default(as_map(host), "type", "");
    }
    for items in ["/downwardAPI/items", "/projected/sources"] {
        let mut whole = Value::Object(std::mem::take(volume));
        for item in whole
            .pointer_mut(items)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(token) = item.get_mut("serviceAccountToken") {
                set_default(as_map(token), "expirationSeconds", 3600);
            }
            let nested = item
                .pointer_mut("/downwardAPI/items")
                .and_then(Value::as_array_mut);
            for field in nested
                .into_iter()
                .flatten()
                .filter_map(|item| item.get_mut("fieldRef"))
            {
                set_default(as_map(field), "apiVersion", "v1");
            }
            if let Some(field) = item.get_mut("fieldRef") {
                set_default(as_map(field), "apiVersion", "v1");
            }
        }
        if let Value::Object(map) = whole {
            *volume = map;
        }
    }
}

/// Whether an image reference means "whatever is newest".
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by cpu and memory of all containers.
fn quality_of_service(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for list in ["initContainers", "containers"] {
        for container in object::list_at(pod, &["spec", list]) {
            for name in ["cpu", "memory"] {
                let amount = |kind: &str| {
                    let text = object::str_at(container, &["resources", kind, name]);
                    text.and_then(Quantity::parse)
                        .filter(|amount| *amount != Quantity::ZERO)
                };
                let (limit, request) = (amount("limits"), amount("requests"));
                any |= limit.is_some() || request.is_some();
                guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What a pod asks of a node, by resource: the sum of its containers and sidecars, or its largest init step if that is
/// more, plus overhead.
pub(crate) fn requests(pod: &Value) -> std::collections::BTreeMap<String, Quantity> {
    type Amounts = std::collections::BTreeMap<String, Quantity>;
    let of = |value: Option<&Value>| -> Amounts {
        let map = value.and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?)?)))
            .collect()
    };
    let add = |into: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let sum = into.get(name).map_or(*amount, |own| own.plus(*amount));
            into.insert(name.clone(), sum);
        }
    };
    let (mut sidecars, mut largest_init) = (Amounts::new(), Amounts::new());
    for container in object::list_at(pod, &["spec", "initContainers"]) {
        let own = of(object::at(container, &["resources", "requests"]));
        if object::str_at(container, &["restartPolicy"]) == Some("Always") {
            add(&mut sidecars, &own);
        }
        let mut step = sidecars.clone();
        if object::str_at(container, &["restartPolicy"]) != Some("Always") {
            add(&mut step, &own);
        }
        for (name, amount) in step {
            let most = largest_init.get(&name).map_or(amount, |own| own.max(amount));
            largest_init.insert(name, most);
        }
    }
    let mut total = sidecars;
    for container in object::list_at(pod, &["spec", "containers"]) {
        add(&mut total, &of(object::at(container, &["resources", "requests"])));
    }
    for (name, amount) in largest_init {
        let most = total.get(&name).map_or(amount, |own| own.max(amount));
        total.insert(name, most);
    }
    for (name, amount) in of(object::at(pod, &["spec", "resources", "requests"])) {
        total.insert(name, amount);
    }
    add(&mut total, &of(object::at(pod, &["spec", "overhead"])));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, images are pulled again each start, or never.
    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1.36", false),
            ("registry:5000/busybox", true),
            ("registry:5000/busybox:1", false),
            ("busybox@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    /// Broken, the scheduler overcommits nodes.
    #[test]
    fn requests_cover_init_containers_sidecars_and_overhead() {
        let pod = json!({"spec": {
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                {"resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}],
            "containers": [{"resources": {"requests": {"cpu": "500m"}}}, {"resources": {"requests": {"cpu": "1"}}}],
            "overhead": {"cpu": "250m"}}});
        let requests = requests(&pod);
        assert_eq!(requests["cpu"].to_string(), "5250m");
        assert_eq!(requests["memory"].to_string(), "1Gi");
    }

    /// Broken, `kubectl describe` shows the wrong QoS class.
    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(quality_of_service(&pod(resources)), class);
        }
    }
}

//! Reads a field of the pod, or a resource of a container, for environment variables and downward API files.

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Context;
use crate::kubelet::quantity;

/// A field's value, or what only the host knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The value.
    Text(String),
    /// The pod's first address.
    PodIp,
    /// All its addresses.
    PodIps,
}

/// Reads a field by its path, for an environment variable.
pub(super) fn field(context: &Context<'_>, path: &str) -> Result<Field, String> {
    let metadata = &context.pod.metadata;
    let spec = context.pod.spec.as_ref();
    let text = |value: Option<&str>| Ok(Field::Text(value.unwrap_or_default().to_owned()));
    let host_ip = || context.facts.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(format!("field path {path:?} takes no subscript")),
        };
        return text(map.and_then(|map| map.get(key)).map(String::as_str));
    }
    match path {
        "metadata.name" => text(metadata.name.as_deref()),
        "metadata.namespace" => text(metadata.namespace.as_deref()),
        "metadata.uid" => text(metadata.uid.as_deref()),
        "metadata.labels" => Ok(Field::Text(formatted(metadata.labels.as_ref()))),
        "metadata.annotations" => Ok(Field::Text(formatted(metadata.annotations.as_ref()))),
        "spec.nodeName" | "spec.host" => text(spec.and_then(|spec| spec.node_name.as_deref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_deref())),
        "status.hostIP" | "status.hostIPs" => Ok(Field::Text(host_ip())),
        "status.podIP" | "status.podIPs" if spec.and_then(|spec| spec.host_network) == Some(true) => {
            Ok(Field::Text(host_ip()))
        }
        "status.podIP" => Ok(Field::PodIp),
        "status.podIPs" => Ok(Field::PodIps),
        _ => Err(format!(
            "field path {path:?} is not supported; use metadata.name, metadata.namespace, metadata.uid, metadata.labels['k'], \
             metadata.annotations['k'], spec.nodeName, spec.serviceAccountName, status.hostIP or status.podIP"
        )),
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as the downward API writes it: one `key="value"` per line, sorted.
fn formatted(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Reads a request or limit of a container, divided by the divisor and rounded up. A limit that is not set is what the cell has.
pub(super) fn resource(
    context: &Context<'_>,
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| {
        format!(
            "resource {:?} is neither limits.… nor requests.…",
            selector.resource
        )
    })?;
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => {
            return Err(format!(
                "resource {:?} is neither limits.… nor requests.…",
                selector.resource
            ));
        }
    };
    let set = list.and_then(|list| list.get(name));
    let divisor = selector
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    let divisor = if divisor == "0" || divisor.is_empty() {
        "1"
    } else {
        divisor
    };
    let whole_cell = || -> u64 {
        let (cpu, memory) = context.facts.size.unwrap_or_default();
        match (kind, name) {
            ("limits", "cpu") => cpu.0,
            ("limits", "memory") => memory.0,
            _ => 0,
        }
    };
    let failed = |error: quantity::QuantityError| format!("resource {:?}: {error}", selector.resource);
    // CPU is counted in thousandths so that a divisor of 1m works; all else in whole units.
    let (amount, divisor) = if name == "cpu" {
        let amount = set.map_or_else(|| Ok(whole_cell()), |Quantity(text)| quantity::millis(text));
        (amount, quantity::millis(divisor))
    } else {
        let amount = set.map_or_else(|| Ok(whole_cell()), |Quantity(text)| quantity::whole(text));
        (amount, quantity::whole(divisor))
    };
    let (amount, divisor) = (amount.map_err(failed)?, divisor.map_err(failed)?);
    Ok(amount.div_ceil(divisor.max(1)).to_string())
}

//! Refuses, by name and with the way out, what a pod may ask for and Kip does not have: ignoring it would be worse.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use super::Refusal;
use super::resources::is_sidecar;

/// Runtime classes that mean "a machine of its own", which is what every pod here gets.
const RUNTIME_CLASSES: [&str; 2] = ["kip", "vm"];

/// Checks the whole pod.
pub(super) fn check(pod: &Pod) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else {
        return Err(Refusal::invalid("The pod has no spec."));
    };
    of_spec(spec)?;
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume)?;
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_container(container)?;
    }
    if let Some(container) = spec.containers.iter().find(|c| c.restart_policy.is_some()) {
        return Err(Refusal::unsupported(format!(
            "Container {:?} has a restart policy of its own; set spec.restartPolicy instead.",
            container.name
        )));
    }
    if let Some(container) = spec
        .init_containers
        .iter()
        .flatten()
        .find(|c| c.restart_policy.is_some() && !is_sidecar(c))
    {
        return Err(Refusal::unsupported(format!(
            "Init container {:?} has a restart policy other than Always; remove it.",
            container.name
        )));
    }
    Ok(())
}

fn of_spec(spec: &PodSpec) -> Result<(), Refusal> {
    if let Some(os) = &spec.os
        && os.name != "linux"
    {
        return Err(Refusal::unsupported(format!(
            "spec.os.name is {:?}; cells run linux.",
            os.name
        )));
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return Err(Refusal::unsupported(
            "spec.resourceClaims: dynamic resource allocation is not offered; request an extended resource instead.",
        ));
    }
    if let Some(class) = &spec.runtime_class_name
        && !RUNTIME_CLASSES.contains(&class.as_str())
    {
        return Err(Refusal::unsupported(format!(
            "spec.runtimeClassName {class:?}: every pod here gets a machine of its own; remove it, or use kip."
        )));
    }
    if spec.host_users == Some(false) {
        return Err(Refusal::unsupported(
            "spec.hostUsers false: user namespaces are not offered; remove it, the pod has a machine of its own.",
        ));
    }
    Ok(())
}

fn of_container(container: &Container) -> Result<(), Refusal> {
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Err(Refusal::unsupported(format!(
            "Container {:?} uses volumeDevices; block devices are not offered.",
            container.name
        )));
    }
    Ok(())
}

fn of_volume(volume: &Volume) -> Result<(), Refusal> {
    let supported = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.empty_dir.is_some()
        || volume.downward_api.is_some()
        || volume.host_path.is_some();
    if supported {
        return Ok(());
    }
    if let Some(projected) = &volume.projected {
        let known = projected.sources.iter().flatten().all(|source| {
            source.config_map.is_some()
                || source.secret.is_some()
                || source.downward_api.is_some()
                || source.service_account_token.is_some()
        });
        if known {
            return Ok(());
        }
        return Err(Refusal::unsupported(format!(
            "Volume {:?} projects a source that is not offered; use configMap, secret, downwardAPI or serviceAccountToken.",
            volume.name
        )));
    }
    Err(Refusal::unsupported(format!(
        "Volume {:?} is of a type that is not offered ({}); use emptyDir, configMap, secret, downwardAPI, projected or hostPath.",
        volume.name,
        kind_of(volume)
    )))
}

/// The name of the volume's type, as the manifest has it.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    value
        .as_object()
        .and_then(|fields| fields.keys().find(|key| *key != "name").cloned())
        .unwrap_or_else(|| "unknown to this version".to_owned())
}

//! Turns a pod and the objects it refers to into what a host is told to run: everything resolved, nothing left to ask the cluster.

mod container;
mod dns;
mod env;
mod expand;
mod fetch;
mod field;
mod pull;
mod references;
mod services;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::config::PodsConfig;
use super::demand::pod_ref;
use crate::driver::PodNotice;
use crate::model::{
    Bytes, ContainerManifest, CpuMillis, HostAlias, PodManifest, RestartPolicy, VolumeManifest,
};

pub(crate) use fetch::fetch;
pub(crate) use references::{Fetched, References, Resolved, TokenWish};

/// What is known of the cell when the manifest is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellFacts {
    /// The cell's management address.
    pub(crate) host_ip: Option<IpAddr>,
    /// The pod's address, where the cloud assigned it with the cell.
    pub(crate) pod_ip: Option<IpAddr>,
    /// CPU and memory a container may use when it has no limit.
    pub(crate) size: Option<(CpuMillis, Bytes)>,
}

/// A manifest, and what users should be told about how it was resolved.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The manifest; its generation is for the caller to set.
    pub(crate) manifest: PodManifest,
    /// Events.
    pub(crate) notices: Vec<PodNotice>,
    /// Something could not be read for now: build it again soon.
    pub(crate) retry: bool,
}

/// What every part of the conversion sees.
struct Context<'a> {
    pod: &'a Pod,
    resolved: &'a Resolved,
    facts: &'a CellFacts,
    notices: Vec<PodNotice>,
    retry: bool,
}

impl Context<'_> {
    /// Adds an event, once.
    fn warn(&mut self, reason: &str, message: String) {
        let notice = PodNotice::warning(reason, message);
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }
}

/// Builds the manifest.
pub(crate) fn build(pod: &Pod, resolved: &Resolved, config: &PodsConfig, facts: &CellFacts) -> Outcome {
    let mut context = Context {
        pod,
        resolved,
        facts,
        notices: Vec::new(),
        retry: false,
    };
    let mut manifest = PodManifest::new(pod_ref(pod));
    let Some(spec) = &pod.spec else {
        return Outcome {
            manifest,
            notices: context.notices,
            retry: false,
        };
    };
    manifest.labels = pod.metadata.labels.clone().unwrap_or_default();
    manifest.annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let names = dns::names(pod, &config.cluster_domain);
    manifest.hostname = names.hostname;
    manifest.fqdn = names.fqdn;
    manifest.restart_policy = match spec.restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    manifest.termination_grace_seconds = seconds(spec.termination_grace_period_seconds, 30);
    manifest.dns = dns::dns(pod, config);
    manifest.host_aliases = spec
        .host_aliases
        .iter()
        .flatten()
        .map(|alias| HostAlias {
            ip: alias.ip.clone(),
            hostnames: alias.hostnames.clone().unwrap_or_default(),
        })
        .collect();
    manifest.host_network = spec.host_network.unwrap_or(false);
    manifest.host_pid = spec.host_pid.unwrap_or(false);
    manifest.host_ipc = spec.host_ipc.unwrap_or(false);
    manifest.share_process_namespace = spec.share_process_namespace.unwrap_or(false);
    manifest.security = container::pod_security(spec);
    manifest.host_ip = facts.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    manifest.active_deadline_seconds = spec
        .active_deadline_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    manifest.pull_secrets = pull::secrets(&mut context);

    let mut broken: BTreeMap<String, String> = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        match volumes::source(&mut context, volume) {
            Ok(source) => manifest.volumes.push(VolumeManifest {
                name: volume.name.clone(),
                source,
            }),
            Err(problem) => {
                let message = format!(
                    "MountVolume.SetUp failed for volume {:?} : {problem}",
                    volume.name
                );
                context.warn("FailedMount", message.clone());
                broken.insert(volume.name.clone(), message);
            }
        }
    }
    let mut convert = |containers: &[k8s_openapi::api::core::v1::Container]| -> Vec<ContainerManifest> {
        containers
            .iter()
            .map(|container| container::container(&mut context, container, &broken))
            .collect()
    };
    manifest.init_containers = convert(spec.init_containers.as_deref().unwrap_or_default());
    manifest.containers = convert(&spec.containers);
    Outcome {
        manifest,
        notices: context.notices,
        retry: context.retry,
    }
}

/// Seconds as a manifest has them: a value below zero counts as zero.
fn seconds(value: Option<i64>, default: u32) -> u32 {
    value.map_or(default, |value| u32::try_from(value.max(0)).unwrap_or(u32::MAX))
}

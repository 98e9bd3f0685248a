//! Host name and name resolution of a pod.

use k8s_openapi::api::core::v1::Pod;

use crate::kubelet::config::PodsConfig;
use crate::model::Dns;

/// The pod's names.
pub(super) struct Names {
    /// Host name inside the pod.
    pub(super) hostname: String,
    /// Fully qualified name, when it has a subdomain.
    pub(super) fqdn: Option<String>,
}

/// Longest host name Linux takes.
const LONGEST: usize = 63;

/// The pod's names: its own, cut to what Linux takes, unless the spec says another.
pub(super) fn names(pod: &Pod, domain: &str) -> Names {
    let spec = pod.spec.as_ref();
    let given = spec
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let name = given.unwrap_or_else(|| pod.metadata.name.clone().unwrap_or_default());
    let short: String = name.chars().take(LONGEST).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let fqdn = spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{short}.{subdomain}.{namespace}.svc.{domain}"));
    let as_hostname = spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    let hostname = match &fqdn {
        Some(fqdn) if as_hostname => fqdn.clone(),
        _ => short,
    };
    Names { hostname, fqdn }
}

/// Name servers, search domains and options by the pod's policy. Empty servers mean the host's own resolver.
pub(super) fn dns(pod: &Pod, config: &PodsConfig) -> Dns {
    let Some(spec) = &pod.spec else {
        return Dns::default();
    };
    let host_network = spec.host_network == Some(true);
    let policy = match spec.dns_policy.as_deref() {
        Some("ClusterFirst") | None if host_network => "Default",
        Some(policy) => policy,
        None => "ClusterFirst",
    };
    let mut dns = Dns::default();
    let cluster = matches!(policy, "ClusterFirst" | "ClusterFirstWithHostNet");
    if cluster && !config.cluster_dns.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = &config.cluster_domain;
        dns.servers = config.cluster_dns.iter().map(ToString::to_string).collect();
        dns.searches = vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        dns.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &spec.dns_config {
        append(&mut dns.servers, own.nameservers.iter().flatten().cloned());
        append(&mut dns.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            // An option set by the pod replaces the one of the same name.
            dns.options
                .retain(|known| known.split(':').next() != Some(name.as_str()));
            dns.options.push(text);
        }
    }
    dns
}

fn append(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

//! The pod's `/etc/hosts`, as a kubelet writes it.

use kip_cell_api::v1::Pod;

/// Content of the file. `host` is the machine's own file, the base for a pod in the host's network.
pub(super) fn content(pod: &Pod, hostname: &str, pod_ips: &[String], host: &str) -> String {
    let mut out = String::new();
    if pod.host_network {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(host);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n");
        out.push_str("127.0.0.1\tlocalhost\n");
        out.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
        out.push_str("fe00::\tip6-localnet\n");
        out.push_str("fe00::\tip6-mcastprefix\n");
        out.push_str("fe00::1\tip6-allnodes\n");
        out.push_str("fe00::2\tip6-allrouters\n");
        let names = if pod.fqdn.is_empty() {
            hostname.to_owned()
        } else {
            format!("{}\t{hostname}", pod.fqdn)
        };
        for ip in pod_ips {
            out.push_str(&format!("{ip}\t{names}\n"));
        }
    }
    if !pod.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.host_aliases {
            out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use kip_cell_api::v1::HostAlias;

    use super::*;
    use crate::pod::fixtures;

    /// A program must be able to resolve its own name and the aliases its pod declares.
    #[test]
    fn own_name_and_aliases() {
        let mut pod = fixtures::pod("Always", &["c"]);
        pod.fqdn = "web.sub.ns.svc.cluster.local".into();
        pod.host_aliases = vec![HostAlias {
            ip: "10.9.9.9".into(),
            hostnames: vec!["db".into(), "db.local".into()],
        }];
        let got = content(&pod, "web", &["10.0.0.2".into()], "ignored");
        assert!(
            got.contains("10.0.0.2\tweb.sub.ns.svc.cluster.local\tweb\n"),
            "{got}"
        );
        assert!(got.contains("10.9.9.9\tdb\tdb.local\n"), "{got}");
        assert!(!got.contains("ignored"));
        pod.host_network = true;
        assert!(content(&pod, "web", &[], "1.2.3.4\tmachine\n").contains("1.2.3.4\tmachine\n"));
    }
}

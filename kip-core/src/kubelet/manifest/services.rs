//! The environment variables that tell a container where the services are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// Variables of all services that have a cluster address.
pub(super) fn variables(services: &[Service]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let address = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let (Some(name), Some(first)) = (&service.metadata.name, ports.first()) else {
            continue;
        };
        if address.is_empty() || address == "None" {
            continue;
        }
        let prefix = upper(name);
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let mut set = |name: String, value: String| variables.insert(name, value);
        set(format!("{prefix}_SERVICE_HOST"), address.to_owned());
        set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for (i, port) in ports.iter().enumerate() {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                set(
                    format!("{prefix}_SERVICE_PORT_{}", upper(name)),
                    port.port.to_string(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_ascii_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if i == 0 {
                set(format!("{prefix}_PORT"), url.clone());
            }
            let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
            set(format!("{one}_PROTO"), lower);
            set(format!("{one}_PORT"), port.port.to_string());
            set(format!("{one}_ADDR"), address.to_owned());
            set(one, url);
        }
    }
    variables
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_appear_under_the_names_old_software_reads() {
        let service = |name: &str, address: &str| {
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": {
                "clusterIP": address,
                "ports": [ { "port": 80, "name": "http-web" }, { "port": 53, "protocol": "UDP", "name": "dns" } ] } }))
            .expect("a service")
        };
        let services = [
            service("my-web", "10.0.0.9"),
            service("headless", "None"),
            service("six", "fd00::1"),
        ];
        let variables = variables(&services);
        for (name, value) in [
            ("MY_WEB_SERVICE_HOST", "10.0.0.9"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP_WEB", "80"),
            ("MY_WEB_PORT", "tcp://10.0.0.9:80"),
            ("MY_WEB_PORT_53_UDP", "udp://10.0.0.9:53"),
            ("MY_WEB_PORT_53_UDP_PROTO", "udp"),
            ("MY_WEB_PORT_53_UDP_PORT", "53"),
            ("MY_WEB_PORT_53_UDP_ADDR", "10.0.0.9"),
            ("SIX_PORT", "tcp://[fd00::1]:80"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.keys().any(|name| name.starts_with("HEADLESS")));
    }
}

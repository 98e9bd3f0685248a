//! Reads the `pod.elotl.co/` annotations. An annotation that cannot be honoured refuses the pod: a user who asked for spot, or for a
//! size, must not get something else.

use k8s_openapi::api::core::v1::Pod;

use super::Refusal;
use crate::kubelet::quantity;

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// An instance type, or a glob with `*`.
    pub(super) instance_type: Option<String>,
    /// Spot capacity.
    pub(super) spot: bool,
    /// Root volume in bytes.
    pub(super) volume_size: Option<u64>,
}

/// Reads them all.
pub(super) fn read(pod: &Pod) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        let Some(name) = key.strip_prefix("pod.elotl.co/") else {
            continue;
        };
        let value = value.trim();
        let bad = |fix: &str| Refusal::invalid(format!("Annotation {key}: {value:?} {fix}."));
        match name {
            "instance-type" => {
                let plain = |c: char| c.is_ascii_alphanumeric() || ".-_*".contains(c);
                if value.len() < 2 || !value.chars().all(plain) {
                    return Err(bad(
                        "is no instance type; write a name such as c7g.large, or a pattern such as c7g.*",
                    ));
                }
                wishes.instance_type = Some(value.to_owned());
            }
            "launch-type" => match value.to_ascii_lowercase().as_str() {
                "spot" => wishes.spot = true,
                "" | "on-demand" | "ondemand" => {}
                "dedicated" => {
                    return Err(Refusal::unsupported(format!(
                        "Annotation {key}: dedicated hosts are not offered; use spot or on-demand."
                    )));
                }
                _ => return Err(bad("is no launch type; use spot or on-demand")),
            },
            "volume-size" => {
                let size = quantity::whole(value)
                    .map_err(|error| Refusal::invalid(format!("Annotation {key}: {error}.")))?;
                wishes.volume_size = Some(size);
            }
            "private-ip-only" if !is_bool(value) => return Err(bad("is neither true nor false")),
            "healthcheck-healthy-timeout" if !value.parse::<f64>().is_ok_and(f64::is_finite) => {
                return Err(bad("is no number of seconds"));
            }
            "cloud-route" => {
                if let Some(route) = value.split_whitespace().find(|route| !is_cidr(route)) {
                    return Err(Refusal::invalid(format!(
                        "Annotation {key}: {route:?} is no address range; write it as 10.0.0.0/16."
                    )));
                }
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn is_bool(text: &str) -> bool {
    ["1", "0", "t", "f", "true", "false"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(bits) = bits.parse::<u8>() else {
        return false;
    };
    match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => bits <= 32,
        Ok(std::net::IpAddr::V6(_)) => bits <= 128,
        Err(_) => false,
    }
}

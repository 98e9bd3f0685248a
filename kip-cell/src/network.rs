//! Gives the pod its address on a cloud where that is a second address of the instance: writes for the CNI plugins how the pod's network is
//! made. An image that brings its own CNI configuration is left alone.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use kip_cell_api::MetadataService;
use serde_json::json;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::metadata::{Addresses, addresses};

/// The configuration this agent writes, in the folder for them.
const FILE: &str = "10-kip-cell.conflist";
/// How long the metadata service may take to answer.
const LIMIT: Duration = Duration::from_secs(4);
/// Between questions to one that does not: the first pause and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Private networks, and their bits. Source: RFC 1918, RFC 6598.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];
/// Where the kernel shows interfaces.
const INTERFACES: &str = "/sys/class/net";
/// What EC2's interfaces have. Source: "Network maximum transmission unit (MTU) for your EC2 instance", Amazon EC2 User Guide.
const USUAL_MTU: u32 = 9001;

/// Asks the metadata service for the instance's second address until it answers, and writes a CNI configuration that gives it to the pod into
/// `folder`. Does nothing when there is another configuration. Safe to repeat and to drop.
pub async fn prepare(service: &MetadataService, folder: &Path) {
    if let Some(other) = other_configuration(folder) {
        tracing::debug!(other, "the image brings its own network configuration");
        return;
    }
    let mut pause = PAUSES.0;
    loop {
        let asked = timeout(LIMIT, addresses(service)).await;
        match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(addresses) => {
                match set_up(&addresses, folder).await {
                    Ok(Some(pod)) => tracing::info!(%pod, "the pod has an address"),
                    Ok(None) => tracing::error!(
                        "the instance has one address only: pods need hostNetwork, or instances a second private address"
                    ),
                    Err(error) => {
                        tracing::error!(%error, folder = %folder.display(), "the pod's network cannot be set up")
                    }
                }
                return;
            }
            Err(error) => tracing::warn!(error, "the pod's address is not known yet; asking again"),
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSES.1);
    }
}

/// A configuration that this agent did not write.
fn other_configuration(folder: &Path) -> Option<String> {
    let names = fs::read_dir(folder).ok()?.flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| {
            let kind = Path::new(name).extension().and_then(|kind| kind.to_str());
            name != FILE && matches!(kind, Some("conf" | "conflist" | "json"))
        })
}

async fn set_up(addresses: &Addresses, folder: &Path) -> io::Result<Option<Ipv4Addr>> {
    let Some(pod) = addresses.secondary.first().copied() else {
        return Ok(None);
    };
    let (name, mtu) = interface(&addresses.mac);
    if is_claimed(pod) {
        release(pod).await?;
    }
    fs::create_dir_all(folder)?;
    // Renamed into place, so that nobody reads half of it.
    let new = folder.join(format!("{FILE}.new"));
    fs::write(&new, configuration(addresses, pod, mtu))?;
    fs::rename(&new, folder.join(FILE))?;
    tracing::debug!(name, mtu, "network");
    Ok(Some(pod))
}

/// Name and MTU of the interface with this hardware address.
fn interface(mac: &str) -> (String, u32) {
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let found = fs::read_dir(INTERFACES)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| read(&entry.path(), "address").trim().eq_ignore_ascii_case(mac));
    match found {
        Some(entry) => {
            let mtu = read(&entry.path(), "mtu").trim().parse().unwrap_or(USUAL_MTU);
            (entry.file_name().to_string_lossy().into_owned(), mtu)
        }
        None => (String::new(), USUAL_MTU),
    }
}

/// Whether the operating system has put the address on an interface of the instance: the pod would never get a packet.
fn is_claimed(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Takes an address from the interface it is on.
async fn release(address: Ipv4Addr) -> io::Result<()> {
    let failed = |what: &str| {
        io::Error::other(format!(
            "the operating system has put the pod's address {address} on an interface, and {what}: see docs/cell-image.md"
        ))
    };
    let shown = Command::new("ip")
        .args(["-o", "-4", "addr", "show", "to", &format!("{address}/32")])
        .output()
        .await
        .map_err(|error| failed(&format!("`ip` cannot be run: {error}")))?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let (interface, network) = on(&shown).ok_or_else(|| failed("`ip` does not show on which"))?;
    tracing::warn!(%address, interface, "the operating system claims the pod's address; taking it away");
    let taken = Command::new("ip")
        .args(["-4", "addr", "del", network, "dev", interface])
        .status()
        .await
        .map_err(|error| failed(&format!("`ip` cannot be run: {error}")))?;
    if taken.success() && !is_claimed(address) {
        Ok(())
    } else {
        Err(failed("it cannot be taken away"))
    }
}

/// Interface and network in a line such as `2: eth0    inet 10.0.1.9/24 brd ...`.
fn on(shown: &str) -> Option<(&str, &str)> {
    let mut words = shown.lines().next()?.split_whitespace();
    let interface = words.nth(1)?;
    Some((interface, words.nth(1)?))
}

/// The pod's network: a link of its own to the instance, with the instance's second address.
///
/// Within the private network the address is in, packets carry it wherever they go. What leaves it carries the instance's own address, since only
/// that one may have a public address. The plugin knows one network that is not translated: the address's own, so its bits say which.
fn configuration(addresses: &Addresses, pod: Ipv4Addr, mtu: u32) -> String {
    let within = |(network, bits): &&(Ipv4Addr, u8)| {
        let mask = u32::MAX << (32 - u32::from(*bits));
        (u32::from(pod) & mask) == u32::from(*network)
    };
    let bits = PRIVATE
        .iter()
        .find(within)
        .map_or(addresses.subnet_bits, |(_, bits)| *bits);
    json!({
        "cniVersion": "0.4.0",
        "name": "kip",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": true,
                "mtu": mtu,
                "ipam": {
                    "type": "static",
                    "addresses": [{ "address": format!("{pod}/{bits}"), "gateway": addresses.primary }],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests;

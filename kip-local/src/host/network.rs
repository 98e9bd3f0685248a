//! The network of the instances: a bridge, a link and two addresses each, and a way out.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use kip_core::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{Names, Subnet, run};

const OP: &str = "set up network";
/// Where networks are chosen from when the user does not say: addresses shared by carriers, so hardly ever used on a machine.
const POOL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const POOL_PREFIX: u8 = 10;
const CHOSEN_PREFIX: u8 = 20;
/// Marks a bridge as ours; the data folder follows.
const ALIAS: &str = "kip-local ";
/// Remembers that forwarding was off before the first local cloud of this machine turned it on.
const FORWARDING_MARK: &str = "/run/kip-local/ip_forward-was-off";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The two addresses of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addressing {
    /// The instance's own, where its agent listens.
    pub management: Ipv4Addr,
    /// The pod's.
    pub pod: Ipv4Addr,
}

/// The network of one local cloud.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    names: Names,
    data_dir: PathBuf,
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    pub(crate) mtu: u32,
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    ifalias: Option<String>,
}

async fn ip<T: serde::de::DeserializeOwned>(args: &[&str]) -> Result<Vec<T>> {
    let text = run("ip", &[&["-json"], args].concat(), "").await?;
    // Older versions print nothing at all for an empty list.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).map_err(|source| {
        Error::new(
            ErrorKind::Unexpected,
            OP,
            "`ip -json` printed something unexpected",
        )
        .with_source(source)
    })
}

impl Network {
    /// Decides bridge and network. Nothing is changed yet.
    ///
    /// `kept` is what was chosen before and is in use by instances: it is kept.
    ///
    /// # Errors
    /// `ConfigInvalid` when the configured ones are taken by something else.
    pub(crate) async fn plan(
        names: &Names,
        data_dir: &Path,
        bridge: Option<&str>,
        subnet: Option<&str>,
        kept: Option<Subnet>,
    ) -> Result<Self> {
        let bridge = bridge.map_or_else(|| names.bridge(), str::to_owned);
        let links: Vec<Link> = ip(&["link", "show"]).await?;
        let alias = format!("{ALIAS}{}", data_dir.display());
        if let Some(link) = links.iter().find(|link| link.ifname == bridge)
            && link.ifalias.as_ref() != Some(&alias)
        {
            let owner = link
                .ifalias
                .as_deref()
                .and_then(|alias| alias.strip_prefix(ALIAS));
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                OP,
                match owner {
                    Some(owner) => format!(
                        "bridge `{bridge}` belongs to the local cloud in {owner}: choose another `bridge`"
                    ),
                    None => format!(
                        "a network interface `{bridge}` exists and is not ours: choose another `bridge`"
                    ),
                },
            ));
        }
        let routes: Vec<Route> = ip(&["-4", "route", "show", "table", "all"]).await?;
        let taken: Vec<(Subnet, &str)> = routes
            .iter()
            .filter(|route| route.dev.as_deref() != Some(&bridge))
            .filter_map(|route| {
                Some((
                    Subnet::parse_route(&route.dst)?,
                    route.dev.as_deref().unwrap_or("?"),
                ))
            })
            .collect();
        let uplink = routes
            .iter()
            .find(|route| route.dst == "default")
            .and_then(|route| links.iter().find(|link| Some(&link.ifname) == route.dev.as_ref()));
        let invalid = |message: String| Error::new(ErrorKind::ConfigInvalid, OP, message);
        let subnet = match subnet.map(Subnet::parse).transpose().map_err(invalid)? {
            Some(subnet) => {
                if let Some((other, dev)) = taken.iter().find(|(other, _)| subnet.overlaps(*other)) {
                    return Err(invalid(format!(
                        "subnet {subnet} overlaps with {other}, which this machine reaches through {dev}: choose another `subnet`"
                    )));
                }
                subnet
            }
            None => choose(
                names.number(),
                kept,
                &taken.iter().map(|(one, _)| *one).collect::<Vec<_>>(),
            )
            .ok_or_else(|| invalid("100.64.0.0/10 is in use by this machine: set `subnet`".into()))?,
        };
        Ok(Self {
            names: names.clone(),
            data_dir: data_dir.to_owned(),
            bridge,
            subnet,
            mtu: uplink.map_or(1500, |link| link.mtu.clamp(576, 1500)),
        })
    }

    /// The addresses of a slot.
    pub(crate) fn addressing(&self, slot: u32) -> Addressing {
        let (management, pod) = self.subnet.pair(slot);
        Addressing { management, pod }
    }

    /// Whether an instance can have these addresses.
    ///
    /// # Errors
    /// `InvalidRequest` when the network has not both, or when they are not two.
    pub(crate) fn check(&self, addressing: Addressing) -> Result<()> {
        let Addressing { management, pod } = addressing;
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidRequest, "launch", message));
        if management == pod {
            return invalid(format!(
                "{management} cannot be both the instance's address and its pod's"
            ));
        }
        match [management, pod].iter().find(|one| !self.subnet.has_host(**one)) {
            Some(outside) => invalid(format!(
                "{outside} is no address for an instance in {}: choose another, or another `subnet`",
                self.subnet
            )),
            None => Ok(()),
        }
    }

    /// Makes the bridge and the way out, if they are not there. Safe to repeat.
    pub(crate) async fn ensure(&self) -> Result<()> {
        if Path::new("/sys/class/net").join(&self.bridge).exists() {
            return Ok(());
        }
        let (bridge, subnet) = (&self.bridge, self.subnet);
        let table = self.names.table();
        // In one transaction; first emptied, so that it can be repeated.
        let rules = format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n\
             \tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat;\n\
             \t\tip saddr {subnet} ip daddr != {subnet} masquerade\n\t}}\n}}\n"
        );
        let links = format!(
            "link add name {bridge} type bridge forward_delay 0\n\
             link set dev {bridge} alias \"{ALIAS}{}\"\n\
             address add {}/{} dev {bridge}\n\
             link set dev {bridge} up\n",
            self.data_dir.display(),
            subnet.gateway(),
            subnet.prefix(),
        );
        let firewall = run("nft", &["-f", "-"], &rules);
        let bridge_up = run("ip", &["-batch", "-"], &links);
        let (firewall, bridge_up) = tokio::join!(firewall, bridge_up);
        if let Err(error) = firewall.and(bridge_up) {
            // Half a bridge would look like a whole one next time.
            self.remove().await?;
            return Err(error);
        }
        forwarding_on()
    }

    /// Removes the bridge and the way out. That they are not there is success.
    pub(crate) async fn remove(&self) -> Result<()> {
        delete_link(&self.bridge).await?;
        delete_table(&self.names.table()).await?;
        forwarding_back().await
    }

    /// Makes an instance's network namespace and its link to the bridge. Safe to repeat.
    pub(crate) async fn attach(&self, short: &str, addressing: Addressing) -> Result<()> {
        let (netns, link) = (self.names.netns(short), self.names.link(short));
        let (bridge, mtu) = (&self.bridge, self.mtu);
        // Derived from the address: whoever remembers an address's hardware address from an earlier instance is right.
        let mac = addressing.management.octets();
        let mac = format!(
            "06:00:{:02x}:{:02x}:{:02x}:{:02x}",
            mac[0], mac[1], mac[2], mac[3]
        );
        run(
            "ip",
            &["-batch", "-"],
            &format!(
                "netns add {netns}\n\
                 link add name {link} mtu {mtu} type veth peer name eth0 mtu {mtu} address {mac} netns {netns}\n\
                 link set dev {link} master {bridge} up\n"
            ),
        )
        .await?;
        // Before anything runs in it: the first packet to an address that is not up yet is only repeated after a second.
        let inside = format!(
            "link set dev lo up\n\
             address add {}/{} dev eth0\n\
             link set dev eth0 up\n\
             route add default via {}\n",
            addressing.management,
            self.subnet.prefix(),
            self.subnet.gateway()
        );
        run("ip", &["-netns", &netns, "-batch", "-"], &inside)
            .await
            .map(|_| ())
    }

    /// Removes an instance's link and network namespace. That they are not there is success.
    pub(crate) async fn detach(&self, short: &str) -> Result<()> {
        delete_link(&self.names.link(short)).await?;
        delete_netns(&self.names.netns(short)).await
    }
}

/// A /20 of the pool that nothing on the machine uses, the same one each time while it stays free.
fn choose(number: u32, kept: Option<Subnet>, taken: &[Subnet]) -> Option<Subnet> {
    let free = |subnet: &Subnet| !taken.iter().any(|other| subnet.overlaps(*other));
    if let Some(kept) = kept.filter(free) {
        return Some(kept);
    }
    let count = 1_u32 << (CHOSEN_PREFIX - POOL_PREFIX);
    (0..count)
        .map(|offset| {
            let index = (number.wrapping_add(offset)) % count;
            let base = u32::from(POOL) + (index << (32 - u32::from(CHOSEN_PREFIX)));
            Subnet::new(Ipv4Addr::from(base), CHOSEN_PREFIX)
        })
        .find(free)
}

pub(super) async fn delete_link(link: &str) -> Result<()> {
    if !Path::new("/sys/class/net").join(link).exists() {
        return Ok(());
    }
    match run("ip", &["link", "delete", link], "").await {
        Err(_) if !Path::new("/sys/class/net").join(link).exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

pub(super) async fn delete_netns(netns: &str) -> Result<()> {
    let path = Path::new("/run/netns").join(netns);
    if !path.exists() {
        return Ok(());
    }
    match run("ip", &["netns", "delete", netns], "").await {
        Err(_) if !path.exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Names of the bridges made for a data folder, whatever their names.
pub(super) async fn bridges_of(data_dir: &Path) -> Result<Vec<String>> {
    let alias = format!("{ALIAS}{}", data_dir.display());
    let links: Vec<Link> = ip(&["link", "show", "type", "bridge"]).await?;
    Ok(links
        .into_iter()
        .filter(|link| link.ifalias.as_ref() == Some(&alias))
        .map(|link| link.ifname)
        .collect())
}

/// Names of all tables of our family in the firewall.
pub(super) async fn tables() -> Result<Vec<String>> {
    let text = run("nft", &["list", "tables", "ip"], "").await?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("table ip "))
        .map(str::to_owned)
        .collect())
}

pub(super) async fn delete_table(table: &str) -> Result<()> {
    // Declared first, so that deleting a table that is not there is no error.
    run(
        "nft",
        &["-f", "-"],
        &format!("table ip {table}\ndelete table ip {table}\n"),
    )
    .await
    .map(|_| ())
}

fn forwarding_failed(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, OP, "cannot change net.ipv4.ip_forward").with_source(source)
}

/// Instances reach the outside only if the machine forwards.
fn forwarding_on() -> Result<()> {
    let now = fs::read_to_string(FORWARDING).map_err(forwarding_failed)?;
    if now.trim() == "1" {
        return Ok(());
    }
    let mark = Path::new(FORWARDING_MARK);
    if let Some(folder) = mark.parent() {
        fs::create_dir_all(folder).map_err(forwarding_failed)?;
    }
    fs::write(mark, "").map_err(forwarding_failed)?;
    fs::write(FORWARDING, "1").map_err(forwarding_failed)
}

/// Puts forwarding back as it was once no local cloud of this machine needs it.
pub(super) async fn forwarding_back() -> Result<()> {
    let mark = Path::new(FORWARDING_MARK);
    if !mark.exists() {
        return Ok(());
    }
    let links: Vec<Link> = ip(&["link", "show", "type", "bridge"]).await?;
    if links.iter().any(|link| {
        link.ifalias
            .as_ref()
            .is_some_and(|alias| alias.starts_with(ALIAS))
    }) {
        return Ok(());
    }
    fs::write(FORWARDING, "0").map_err(forwarding_failed)?;
    fs::remove_file(mark).map_err(forwarding_failed)?;
    // Whatever else is in that folder is not ours.
    let _ = mark.parent().map(fs::remove_dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_network_is_stable_and_avoids_what_the_machine_uses() {
        let first = choose(7, None, &[]).unwrap();
        assert_eq!(choose(7, None, &[]).unwrap(), first);
        let second = choose(7, None, &[first]).unwrap();
        assert!(!second.overlaps(first));
        assert_eq!(choose(7, Some(second), &[first]), Some(second));
        // A VPN over the whole pool leaves nothing.
        assert_eq!(
            choose(7, None, &[Subnet::parse_route("100.64.0.0/10").unwrap()]),
            None
        );
    }
}

//! A network for the VPC that nothing else on this machine uses: its addresses are real ones here.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::command::{cmd, read};

/// Of the addresses that carriers share, so hardly ever used on a machine: 100.64.0.0/10.
const POOL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const POOL_BITS: u32 = 10;
/// How large the VPC's network is.
const VPC_BITS: u32 = 20;
/// How large a subnet of it is.
const SUBNET_BITS: u32 = 22;

/// The first address of a free /20.
pub(super) fn free() -> Result<Ipv4Addr> {
    let routes = read(&mut cmd("ip", ["-4", "route", "show", "table", "all"]))?;
    choose(std::process::id(), &routes).context("this machine uses all of 100.64.0.0/10 itself")
}

/// The first address of a subnet of the VPC.
pub(super) fn nth_subnet(vpc: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(vpc) + (number << (32 - SUBNET_BITS)))
}

/// A different one for each run where possible, so that two do not meet before either has a route.
fn choose(number: u32, routes: &str) -> Option<Ipv4Addr> {
    let taken: Vec<(u32, u32)> = routes.lines().filter_map(destination).collect();
    let count = 1 << (VPC_BITS - POOL_BITS);
    (0..count)
        .map(|offset| u32::from(POOL) + ((number.wrapping_add(offset) % count) << (32 - VPC_BITS)))
        .find(|first| !taken.iter().any(|other| overlap((*first, VPC_BITS), *other)))
        .map(Ipv4Addr::from)
}

/// First address and length of the network a route leads to; None for the default route.
fn destination(route: &str) -> Option<(u32, u32)> {
    let kinds = [
        "local",
        "broadcast",
        "unreachable",
        "blackhole",
        "prohibit",
        "unicast",
    ];
    let word = route.split_whitespace().find(|word| !kinds.contains(word))?;
    let (address, bits) = word.split_once('/').unwrap_or((word, "32"));
    Some((address.parse::<Ipv4Addr>().ok()?.into(), bits.parse().ok()?))
}

fn overlap(one: (u32, u32), other: (u32, u32)) -> bool {
    let shift = 32 - one.1.min(other.1);
    // A network of all addresses overlaps with each.
    one.0.checked_shr(shift) == other.0.checked_shr(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_the_machine_uses_is_not_given_to_cells() {
        let first = choose(7, "default via 10.0.0.1 dev eth0\n").unwrap();
        assert_eq!(first, Ipv4Addr::new(100, 64, 112, 0));
        let routes = format!("default via 10.0.0.1 dev eth0\n{first}/20 dev kip0 scope link\n");
        assert_ne!(choose(7, &routes).unwrap(), first);
        let routes = "broadcast 100.64.127.255 dev kip0 table local\n";
        assert_ne!(choose(7, routes).unwrap(), first);
        assert_eq!(choose(7, "100.64.0.0/10 dev vpn\n"), None);
        assert_eq!(nth_subnet(first, 1), Ipv4Addr::new(100, 64, 116, 0));
    }
}

//! IPv4 networks: reading them, and handing out pairs of addresses.

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: u32,
    prefix: u8,
}

/// Addresses at the start of a network that are not instances': the network, the gateway, and room for what a user puts there.
const RESERVED: u32 = 8;

impl Subnet {
    pub(crate) fn new(base: Ipv4Addr, prefix: u8) -> Self {
        Self {
            base: u32::from(base) & Self::mask(prefix),
            prefix,
        }
    }

    /// Reads `a.b.c.d/n`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` must be an IPv4 network such as 100.64.0.0/20");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=28).contains(&prefix) {
            return Err(format!("`{text}` must be between /8 and /28"));
        }
        let subnet = Self::new(address, prefix);
        if subnet.base != u32::from(address) {
            return Err(format!(
                "`{text}` has bits set after its prefix: did you mean {subnet}?"
            ));
        }
        Ok(subnet)
    }

    /// Reads what `ip` prints as a destination: a network, or an address alone.
    pub(crate) fn parse_route(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self::new(address.parse().ok()?, prefix))
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.base & mask == other.base & mask
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The machine's address in it.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Whether an instance can have this address: it is in the network, and neither the network's own, nor the machine's, nor for all.
    pub(crate) fn has_host(self, address: Ipv4Addr) -> bool {
        let last = self.base | !Self::mask(self.prefix);
        (self.base + 2..last).contains(&u32::from(address))
    }

    /// How many instances it has addresses for.
    pub(crate) fn slots(self) -> u32 {
        // The last address is the broadcast address.
        ((1_u32 << (32 - self.prefix)) - RESERVED - 1) / 2
    }

    /// The management and the pod address of a slot: the two of a /31.
    pub(crate) fn pair(self, slot: u32) -> (Ipv4Addr, Ipv4Addr) {
        let first = self.base + RESERVED + 2 * slot;
        (Ipv4Addr::from(first), Ipv4Addr::from(first + 1))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_slots_are_inside_and_apart_or_two_cells_would_share_one() {
        let subnet = Subnet::parse("10.1.2.0/26").unwrap();
        let mut seen = std::collections::BTreeSet::from([subnet.gateway()]);
        for slot in 0..subnet.slots() {
            let (management, pod) = subnet.pair(slot);
            assert!(Subnet::new(management, 31).overlaps(Subnet::new(pod, 32)));
            for address in [management, pod] {
                assert!(seen.insert(address));
                assert!(subnet.overlaps(Subnet::new(address, 32)));
                assert_ne!(address, Ipv4Addr::new(10, 1, 2, 63));
            }
        }
        assert_eq!(subnet.slots(), 27);
        assert!(Subnet::parse("10.0.0.0/28").unwrap().slots() >= 3);
    }

    #[test]
    fn addresses_that_are_no_instances_are_refused_or_the_whole_network_would_suffer() {
        let subnet = Subnet::parse("10.1.2.0/26").unwrap();
        let cases = [
            ([10, 1, 2, 0], false),
            ([10, 1, 2, 1], false),
            ([10, 1, 2, 2], true),
            ([10, 1, 2, 62], true),
            ([10, 1, 2, 63], false),
            ([10, 1, 2, 64], false),
            ([10, 1, 1, 62], false),
        ];
        for (address, expected) in cases {
            assert_eq!(subnet.has_host(Ipv4Addr::from(address)), expected, "{address:?}");
        }
    }

    #[test]
    fn a_network_another_program_uses_is_recognised_whichever_is_larger() {
        let ours = Subnet::parse("100.64.16.0/20").unwrap();
        for (other, expected) in [
            ("100.64.0.0/10", true),
            ("100.64.31.7", true),
            ("100.64.32.0/20", false),
            ("192.0.2.0/24", false),
        ] {
            assert_eq!(
                ours.overlaps(Subnet::parse_route(other).unwrap()),
                expected,
                "{other}"
            );
        }
    }

    #[test]
    fn a_wrong_network_is_explained() {
        for (text, hint) in [
            ("10.0.0.0", "must be an IPv4 network"),
            ("10.0.0.1/24", "did you mean 10.0.0.0/24?"),
            ("10.0.0.0/30", "between /8 and /28"),
            ("fd00::/64", "must be an IPv4 network"),
        ] {
            assert!(Subnet::parse(text).unwrap_err().contains(hint), "{text}");
        }
    }
}

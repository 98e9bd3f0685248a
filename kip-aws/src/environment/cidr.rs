//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range, such as `10.0.0.0/16`, with no bit set behind its prefix: as EC2 shows it, however it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cidr {
    first: IpAddr,
    bits: u8,
}

impl Cidr {
    /// The range of one address.
    pub(crate) fn of(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { first: address, bits }
    }

    /// Whether it is of IPv4.
    pub(crate) fn is_v4(self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether an address is in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        self.is_v4() == address.is_ipv4() && first(address, self.bits) == self.first
    }
}

/// The address with every bit behind the prefix cleared.
fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no address range; write one such as 10.0.0.0/8");
        let (address, bits) = text.trim().split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
        Ok(Self {
            first: first(address, bits),
            bits,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EC2 shows a range without the bits behind its prefix: compared as written, a rule would be added and revoked at each start.
    #[test]
    fn a_range_is_the_same_however_it_is_written() {
        for (written, shown) in [
            ("10.0.1.5/16", "10.0.0.0/16"),
            ("10.0.1.5/32", "10.0.1.5/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("2001:DB8:0::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(written.parse::<Cidr>().unwrap().to_string(), shown, "{written}");
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "host/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_inside_or_not() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        for (address, inside) in [("10.1.255.255", true), ("10.2.0.0", false), ("::1", false)] {
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(
            "0.0.0.0/0"
                .parse::<Cidr>()
                .unwrap()
                .contains("8.8.8.8".parse().unwrap())
        );
        let own = Cidr::of("10.1.2.3".parse().unwrap());
        assert_eq!(own.to_string(), "10.1.2.3/32");
    }
}

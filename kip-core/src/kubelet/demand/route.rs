//! Address ranges as clouds keep them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The range with all bits zero that it does not fix: `10.0.3.4/16` is `10.0.0.0/16`, and a route table would list it so. None when the
/// text is no range.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let address = match address.parse().ok()? {
        IpAddr::V4(v4) => {
            let free = 32_u32.checked_sub(bits)?;
            let mask = u32::MAX.checked_shl(free).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let free = 128_u32.checked_sub(bits)?;
            let mask = u128::MAX.checked_shl(free).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    };
    Some(format!("{address}/{bits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_named_as_the_cloud_names_it_or_its_route_would_never_be_found_again() {
        for (text, range) in [
            ("10.0.3.4/16", Some("10.0.0.0/16")),
            ("10.0.3.4/32", Some("10.0.3.4/32")),
            ("1.2.3.4/0", Some("0.0.0.0/0")),
            ("fd00:1::7/64", Some("fd00:1::/64")),
            ("::1/0", Some("::/0")),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("ten/8", None),
        ] {
            assert_eq!(canonical(text).as_deref(), range, "{text}");
        }
    }
}

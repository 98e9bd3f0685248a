//! Prices as the cloud writes them: decimal text.

use kip_core::model::Price;

/// Dollars an hour above which a price is taken for nonsense. The dearest type, of 448 vCPUs and 24 TiB, costs about 220.
const MOST: u64 = 10_000;

/// Reads dollars, such as `0.0960000000`, exactly; what is smaller than a millionth is rounded up. None for zero, which is no price, for
/// what is negative or beyond reason, and for everything that is no plain decimal number.
pub(super) fn price(text: &str) -> Option<Price> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Longer is no price, and must not overflow.
    if !digits(whole) || !digits(part) || whole.len() > 5 || part.len() > 30 {
        return None;
    }
    let micros: u64 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    let is_more = part.bytes().skip(6).any(|b| b != b'0');
    let whole: u64 = whole.parse().ok()?;
    let total = whole * 1_000_000 + micros + u64::from(is_more);
    (total > 0 && whole < MOST).then_some(Price(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A price that is read wrongly is the cheapest of all, or is never chosen.
    #[test]
    fn only_plain_positive_amounts_are_prices() {
        for (text, read) in [
            ("0.0960000000", Some(96_000)),
            ("0.096", Some(96_000)),
            ("3", Some(3_000_000)),
            ("109.2", Some(109_200_000)),
            ("0.0000001000", Some(1)),
            ("0.0047001", Some(4_701)),
            ("0.0000000000", None),
            ("0", None),
            ("", None),
            (".", None),
            (".5", None),
            ("1.", None),
            ("-0.096", None),
            ("+1", None),
            ("NaN", None),
            ("inf", None),
            ("1e-3", None),
            ("0,096", None),
            (" 0.096", None),
            ("10000", None),
            ("99999999999999999999999999", None),
        ] {
            assert_eq!(price(text), read.map(Price), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_exactly_or_not_at_all(micros in 1u64..10_000_000_000, noise in "\\PC{0,40}") {
            let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(price(&text), Some(Price(micros)));
            prop_assert_eq!(price(&format!("{text}0000")), Some(Price(micros)));
            prop_assert!(price(&noise).is_none_or(|price| price > Price(0)));
        }
    }
}

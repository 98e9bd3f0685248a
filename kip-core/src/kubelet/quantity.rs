//! Reads Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) exactly, in integers, without overflow.

use std::fmt;

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QuantityError {
    /// It does not follow the grammar: a decimal number and a suffix Kubernetes knows.
    Malformed(String),
    /// It is below zero, and no amount of a resource is.
    Negative(String),
    /// It is more than can be counted.
    TooLarge(String),
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(
                f,
                "{text:?} is not a quantity: write a number and one of the suffixes m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"
            ),
            Self::Negative(text) => write!(f, "{text:?} is negative: write an amount of zero or more"),
            Self::TooLarge(text) => write!(f, "{text:?} is too large"),
        }
    }
}

impl std::error::Error for QuantityError {}

/// How many billionths (10^-9, the smallest unit Kubernetes has) one unit of the suffix is: `value * 2^binary * 10^decimal`.
#[derive(Clone, Copy)]
struct Scale {
    binary: u32,
    decimal: i32,
}

/// The quantity in whole units, rounded up, as Kubernetes rounds.
pub(crate) fn whole(text: &str) -> Result<u64, QuantityError> {
    scaled(text, 0)
}

/// The quantity in thousandths, rounded up.
pub(crate) fn millis(text: &str) -> Result<u64, QuantityError> {
    scaled(text, 3)
}

/// `ceil(quantity * 10^shift)`.
fn scaled(text: &str, shift: i32) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(text.to_owned());
    let too_large = || QuantityError::TooLarge(text.to_owned());
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let scale = scale_of(suffix).ok_or_else(malformed)?;
    let (integer, fraction) = match number.split_once('.') {
        Some((integer, fraction)) if !fraction.contains('.') => (integer, fraction),
        Some(_) => return Err(malformed()),
        None => (number, ""),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(malformed());
    }
    let integer = integer.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let zero = integer.is_empty() && fraction.is_empty();
    if zero {
        return Ok(0);
    }
    if negative {
        return Err(QuantityError::Negative(text.to_owned()));
    }
    if integer.len() > 36 {
        return Err(too_large());
    }
    // Beyond 18 fraction digits nothing changes but the rounding upwards, which one more digit keeps.
    let (kept, rest) = fraction.split_at(fraction.len().min(18));
    let mut digits = String::with_capacity(integer.len() + kept.len());
    digits.push_str(integer);
    digits.push_str(kept);
    let mut mantissa: u128 = if digits.trim_start_matches('0').is_empty() {
        0
    } else {
        digits.parse().map_err(|_| too_large())?
    };
    // At most 18 digits were kept, which fits.
    let mut exponent = scale.decimal + shift - i32::try_from(kept.len()).unwrap_or(18);
    if !rest.is_empty() {
        mantissa = mantissa
            .checked_mul(10)
            .and_then(|m| m.checked_add(1))
            .ok_or_else(too_large)?;
        exponent -= 1;
    }
    mantissa = mantissa
        .checked_mul(1u128 << scale.binary)
        .ok_or_else(too_large)?;
    while exponent > 0 {
        mantissa = mantissa.checked_mul(10).ok_or_else(too_large)?;
        exponent -= 1;
    }
    let mut inexact = false;
    while exponent < 0 && mantissa > 0 {
        inexact |= !mantissa.is_multiple_of(10);
        mantissa /= 10;
        exponent += 1;
    }
    if inexact {
        mantissa += 1;
    }
    u64::try_from(mantissa).map_err(|_| too_large())
}

fn scale_of(suffix: &str) -> Option<Scale> {
    let decimal = |decimal| Scale { binary: 0, decimal };
    let binary = |binary| Scale { binary, decimal: 0 };
    Some(match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            decimal(exponent.parse().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_a_manifest_may_use_is_read_or_the_pod_gets_the_wrong_size() {
        for (text, expected_whole, expected_millis) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.1", 1, 100),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("1u", 1, 1),
            ("1n", 1, 1),
            ("2k", 2000, 2_000_000),
            ("2e3", 2000, 2_000_000),
            ("2E3", 2000, 2_000_000),
            ("2E", 2_000_000_000_000_000_000, 0),
            ("12e-1", 2, 1200),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("+3", 3, 3000),
            ("-0", 0, 0),
            ("0.0000000000000000000001", 1, 1),
        ] {
            assert_eq!(whole(text), Ok(expected_whole), "{text}");
            if expected_millis != 0 || expected_whole == 0 {
                assert_eq!(millis(text), Ok(expected_millis), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_text_and_the_fix() {
        for text in [
            "", "m", "1.2.3", "1 Gi", "Gi", "1KI", "1g", "e3", "1e", "1e1234", "0x10", "1i", "٣",
        ] {
            assert!(matches!(whole(text), Err(QuantityError::Malformed(_))), "{text}");
        }
        assert!(matches!(whole("-1"), Err(QuantityError::Negative(_))));
        for text in ["16Ei", "1e999", "99999999999999999999", "1e30Gi"] {
            assert!(whole(text).is_err(), "{text}");
        }
        assert!(whole("1GB").unwrap_err().to_string().contains("\"1GB\""));
    }

    proptest! {
        // A panic here would let one pod's manifest stop the controller for all pods.
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = whole(&text);
            let _ = millis(&text);
        }

        #[test]
        fn no_number_like_text_makes_it_panic(text in "[+-]?[0-9]{0,45}\\.?[0-9]{0,45}([eE][+-]?[0-9]{0,4}|[numkMGTPE]|[KMGTPE]i)?") {
            let _ = whole(&text);
            let _ = millis(&text);
        }

        #[test]
        fn whole_numbers_are_themselves(n in 0u64..=u64::MAX / 1000) {
            prop_assert_eq!(whole(&n.to_string()), Ok(n));
            prop_assert_eq!(millis(&n.to_string()), Ok(n * 1000));
            prop_assert_eq!(millis(&format!("{n}m")), Ok(n));
            prop_assert_eq!(whole(&format!("{n}m")), Ok(n.div_ceil(1000)));
        }

        #[test]
        fn binary_suffixes_are_shifts(n in 0u64..1 << 20) {
            for (suffix, shift) in [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)] {
                prop_assert_eq!(whole(&format!("{n}{suffix}")), Ok(n << shift));
            }
        }
    }
}

//! Read, compare and write resource quantities (`500m`, `1Gi`) as Kubernetes does.

use std::fmt;

/// The family of suffixes a quantity was written with; it is kept when the quantity is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// An amount in billionths, the finest Kubernetes knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity {
    nanos: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Nothing.
    pub(crate) const ZERO: Self = Self {
        nanos: 0,
        format: Format::Decimal,
    };

    /// Parses a quantity; `None` if it is not one or is beyond 2^63. What is finer than a billionth is rounded up.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 40 {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?;
        let (magnitude, format) = if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            (
                scaled(digits.checked_mul(1_i128 << bits)?, 9 - scale)?,
                Format::Binary,
            )
        } else if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (scaled(digits, exponent + 9 - scale)?, Format::Decimal)
        } else {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (
                scaled(digits, exponent.checked_add(9 - scale)?)?,
                Format::Exponent,
            )
        };
        if magnitude > i128::from(i64::MAX) * NANO {
            return None;
        }
        Some(Self {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }

    pub(crate) const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub(crate) const fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Sum; the format is the left one's.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format: self.format,
        }
    }

    /// The larger of two.
    pub(crate) const fn max(self, other: Self) -> Self {
        if other.nanos > self.nanos { other } else { self }
    }

    pub(crate) const fn exceeds(self, other: Self) -> bool {
        self.nanos > other.nanos
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

/// `digits` times ten to the `exponent`, rounded up.
fn scaled(digits: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    match (exponent >= 0, power) {
        (true, Some(power)) => digits.checked_mul(power),
        (true, None) => (digits == 0).then_some(0),
        (false, Some(power)) => Some(digits / power + i128::from(digits % power != 0)),
        (false, None) => Some(i128::from(digits != 0)),
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            let whole = self.nanos / NANO;
            let fits = BINARY
                .iter()
                .rev()
                .find(|(_, bits)| whole % (1_i128 << bits) == 0);
            return match fits {
                Some((suffix, bits)) => write!(f, "{}{suffix}", whole >> bits),
                None => write!(f, "{whole}"),
            };
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::Exponent {
            return if exponent == 0 {
                write!(f, "{mantissa}")
            } else {
                write!(f, "{mantissa}e{exponent}")
            };
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, power)| *power == exponent)
            .map_or("", |(suffix, _)| suffix);
        write!(f, "{mantissa}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Broken, `kubectl apply` of an unchanged manifest reports a change each time.
    #[test]
    fn quantities_have_one_canonical_form() {
        for (text, expected) in [
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Mi", "1000Mi"),
            ("512Ki", "512Ki"),
            ("2000", "2k"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-5m", "-5m"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.1n", "1n"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "abc",
            "1gb",
            "1 Gi",
            "1..2",
            "Mi",
            "-",
            "9999999999999999999999",
        ] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        /// Broken, a stored quantity is another amount than the one written.
        #[test]
        fn canonical_form_keeps_the_amount(number in 0..1_000_000_000_i64, suffix in "(n|u|m||k|M|G|Ki|Mi|Gi)") {
            let quantity = Quantity::parse(&format!("{number}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        /// Broken, odd input ends the process.
        #[test]
        fn parse_never_panics(text in "\\PC{0,24}") {
            let _ = Quantity::parse(&text);
        }
    }
}

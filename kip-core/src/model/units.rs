//! Quantities with their units in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Processor time in thousandths of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuMillis(pub u64);

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

/// An amount of memory or storage in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// So many mebibytes (2^20 bytes).
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// So many gibibytes (2^30 bytes).
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

impl fmt::Display for Bytes {
    /// Prints as Kubernetes writes quantities, with the largest binary suffix that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A price in millionths of a US dollar per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(pub u64);

impl fmt::Display for Price {
    /// Dollars per hour with at least four decimals: `$0.0052/h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros.is_multiple_of(100) {
            write!(f, "${dollars}.{:04}/h", micros / 100)
        } else {
            write!(f, "${dollars}.{micros:06}/h")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_as_kubernetes_users_write_them() {
        assert_eq!(CpuMillis(250).to_string(), "250m");
        assert_eq!(CpuMillis(2000).to_string(), "2");
        assert_eq!(Bytes::gib(2).to_string(), "2Gi");
        assert_eq!(Bytes::mib(512).to_string(), "512Mi");
        assert_eq!(Bytes(1000).to_string(), "1000");
        assert_eq!(Price(5_200).to_string(), "$0.0052/h");
        assert_eq!(Price(1_234_567).to_string(), "$1.234567/h");
    }
}

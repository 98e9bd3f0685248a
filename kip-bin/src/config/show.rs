//! How values are written back by `kip config print`.

use std::fmt::Display;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serializer;

/// `90s`, or `250ms` when there is a fraction.
pub(super) fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if value.subsec_nanos() == 0 {
        serializer.collect_str(&format_args!("{}s", value.as_secs()))
    } else {
        serializer.collect_str(&format_args!("{}ms", value.as_millis()))
    }
}

/// As it is displayed: quantities.
pub(super) fn display<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Millionths as a decimal number.
pub(super) fn micros<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    decimal(*value, 1_000_000, serializer)
}

/// Tenths of a percent as percent.
pub(super) fn permille<S: Serializer>(value: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    decimal(u64::from(*value), 10, serializer)
}

fn decimal<S: Serializer>(value: u64, unit: u64, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    serializer.collect_str(text.trim_end_matches('0').trim_end_matches('.'))
}

/// Never the secret.
#[expect(clippy::ref_option, reason = "the shape serde's serialize_with calls")]
pub(super) fn secret<S: Serializer>(_: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("********")
}

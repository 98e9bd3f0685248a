//! Make the random and time-dependent parts of objects: UIDs, name suffixes, timestamps.

use std::fmt::Write as _;

use crate::origin::{Origin, SystemOrigin};

fn draw<const N: usize>(origin: &dyn Origin, subject: &str) -> [u8; N] {
    let mut bytes = [0_u8; N];
    origin.fill(subject, &mut bytes);
    bytes
}

fn hex(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{byte:02x}");
}

/// A version 4 UUID of these bytes in its usual spelling.
pub(crate) fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        hex(&mut text, *byte);
    }
    text
}

/// A token of 256 random bits in hexadecimal. Always the operating system's: whoever guesses one owns the cluster.
pub(crate) fn secret() -> String {
    let bytes: [u8; 32] = draw(&SystemOrigin, "");
    let mut text = String::with_capacity(64);
    bytes.iter().for_each(|byte| hex(&mut text, *byte));
    text
}

/// The five characters Kubernetes puts behind `metadata.generateName`: no vowels, nothing easily misread.
pub(crate) fn name_suffix(origin: &dyn Origin, subject: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    draw::<5>(origin, subject)
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// Now, as `metadata.creationTimestamp` spells it: UTC, whole seconds.
pub(crate) fn now(origin: &dyn Origin) -> String {
    timestamp(origin.now())
}

/// A point in time as Kubernetes' `Time` spells it: UTC, whole seconds.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as `MicroTime` spells it: UTC, six decimals.
pub(crate) fn now_micro(origin: &dyn Origin) -> String {
    timestamp_micro(origin.now())
}

/// A point in time as `MicroTime` spells it: UTC, six decimals.
pub(crate) fn timestamp_micro(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

//! Make the random and time-dependent parts of objects: UIDs, name suffixes, timestamps.

use std::fmt::Write as _;

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes from the operating system. An operating system that gives none ends the process: tokens and UIDs made
/// without them would be guessable.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    assert!(
        SystemRandom::new().fill(&mut bytes).is_ok(),
        "the operating system gives no random bytes"
    );
    bytes
}

/// A random (version 4) UUID in its usual spelling.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A random token of 256 bits in hexadecimal.
pub(crate) fn secret() -> String {
    random::<32>()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The five characters Kubernetes puts behind `metadata.generateName`: no vowels, nothing easily misread.
pub(crate) fn name_suffix() -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    random::<5>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// Now, as `metadata.creationTimestamp` spells it: UTC, whole seconds.
pub(crate) fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// A point in time as Kubernetes' `Time` spells it: UTC, whole seconds.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as `MicroTime` spells it: UTC, six decimals.
pub(crate) fn now_micro() -> String {
    timestamp_micro(jiff::Timestamp::now())
}

/// A point in time as `MicroTime` spells it: UTC, six decimals.
pub(crate) fn timestamp_micro(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

//! One line of a CRI log file: `2026-01-02T03:04:05.678901234Z stdout F text`.

/// A parsed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// As written: RFC 3339 with nanoseconds.
    pub(super) time: &'a str,
    pub(super) stream: Stream,
    /// More of the same output line follows in a later entry.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// Where the container wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl<'a> Entry<'a> {
    /// Parses a line without its newline; nothing when it is not of this form.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // The field may hold more tags, separated by colons; the first says partial or full.
        let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self {
            time,
            stream,
            partial,
            text: parts.next().unwrap_or_default(),
        })
    }
}

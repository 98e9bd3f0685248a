//! Answers a log request from lines that were kept when a cell was terminated. Pure.

use jiff::Timestamp;

use crate::runtime::LogRequest;

/// The part of `kept` that a request asks for. Each kept line begins with an RFC 3339 timestamp and a space; a line without one
/// (a cut first line) counts as older than everything.
pub(super) fn select(kept: &[u8], request: &LogRequest) -> Vec<u8> {
    let lines: Vec<&[u8]> = kept.split_inclusive(|byte| *byte == b'\n').collect();
    let since = |line: &[u8]| match request.since {
        None => true,
        Some(since) => stamp(line).is_some_and(|(at, _)| at >= since),
    };
    let first = lines.iter().position(|line| since(line)).unwrap_or(lines.len());
    let newest = lines.get(first..).unwrap_or_default();
    let tail = request.tail_lines.map_or(newest.len(), |n| {
        usize::try_from(n).unwrap_or(usize::MAX).min(newest.len())
    });
    let mut out = Vec::new();
    for line in newest.iter().skip(newest.len() - tail) {
        match stamp(line) {
            Some((_, rest)) if !request.timestamps => out.extend_from_slice(rest),
            _ => out.extend_from_slice(line),
        }
    }
    if let Some(limit) = request.limit_bytes {
        out.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    out
}

/// A line's timestamp, and the line without it.
fn stamp(line: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (head, rest) = line.split_at(space);
    let at = std::str::from_utf8(head).ok()?.parse().ok()?;
    Some((at, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &[u8] = b"2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n";

    fn select_text(request: LogRequest) -> String {
        String::from_utf8(select(KEPT, &request)).expect("text")
    }

    #[test]
    fn logs_of_a_finished_pod_answer_every_flag_although_the_cell_is_gone() {
        let all = LogRequest::default();
        assert_eq!(select_text(all.clone()), "one\ntwo\nthree\n");
        assert_eq!(
            select_text(LogRequest {
                tail_lines: Some(1),
                ..all.clone()
            }),
            "three\n"
        );
        assert_eq!(
            select_text(LogRequest {
                tail_lines: Some(0),
                ..all.clone()
            }),
            ""
        );
        assert_eq!(
            select_text(LogRequest {
                limit_bytes: Some(5),
                ..all.clone()
            }),
            "one\nt"
        );
        assert_eq!(
            select_text(LogRequest {
                since: "2026-01-01T00:00:02Z".parse().ok(),
                timestamps: true,
                ..all
            }),
            "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n"
        );
    }
}

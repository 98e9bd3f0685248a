//! The only place that writes to the terminal.

use std::error::Error;
use std::io::{self, Write as _};
use std::time::Duration;

/// Writes to stdout. A reader that has gone away (`kip ... | head`) is no failure.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`print()`].
pub(crate) fn line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a remark to stderr, so that stdout stays usable by scripts.
pub(crate) fn note(text: &str) {
    // Nothing can be done when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes an error with its causes to stderr.
pub(crate) fn error(error: &anyhow::Error) {
    note(&format!("kip: {}", chain(error)));
}

/// An error and its causes in one text, without saying anything twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        let api_answer = match cause.downcast_ref() {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => Some(status.message.clone()),
            _ => None,
        };
        // The client prints the API's whole answer twice; its message says it all.
        let is_last = api_answer.is_some();
        let cause_text = api_answer.unwrap_or_else(|| cause.to_string());
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = if is_last { None } else { cause.source() };
    }
    text
}

/// A table as kubectl prints them: columns wide enough, three blanks between them.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(head.get(column).map(|name| name.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    let mut text = line(head);
    for row in rows {
        text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    text
}

/// How long ago something was, as kubectl prints ages.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_have_no_trailing_blanks_so_scripts_can_cut_them() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME   N\na      1\nlong\n");
    }

    #[test]
    fn an_error_is_told_with_its_causes_once() {
        let cause = io::Error::other("no such file");
        let error = anyhow::Error::new(cause)
            .context("cannot read x")
            .context("cannot read x");
        assert_eq!(chain(&error), "cannot read x: no such file");
    }
}

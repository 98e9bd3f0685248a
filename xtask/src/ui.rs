//! For output that is pleasant to read: sections, marks and tables, with colour only on a terminal.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn colour() -> bool {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    *COLOUR.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
}

fn paint(code: &str, text: &str) -> String {
    if colour() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A heading: what the following lines are about.
pub(crate) fn section(title: &str) {
    println!("\n{}", paint("1;36", &format!("== {title}")));
}

/// One thing that is being done.
pub(crate) fn step(text: &str) {
    println!("   {text}");
}

/// One thing that held.
pub(crate) fn ok(text: &str) {
    println!(" {} {text}", paint("32", "ok"));
}

/// One thing that did not hold.
pub(crate) fn failed(text: &str) {
    println!(" {} {text}", paint("1;31", "FAILED"));
}

/// A command as a user could type it.
pub(crate) fn command(line: &str) {
    println!("   {}", paint("2", &format!("$ {line}")));
}

/// What a command answered, set in under it.
pub(crate) fn answer(text: &str) {
    for line in text.trim_end().lines() {
        println!("     {line}");
    }
}

/// A table with left-aligned columns, as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    for line in table_lines(head, rows) {
        println!("   {line}");
    }
}

/// The lines of [`table`], for files.
pub(crate) fn table_lines(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .chain([head[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

/// Runs one named stage and prints how long it took.
pub(crate) fn timed<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    section(what);
    let start = Instant::now();
    let outcome = work();
    let took = duration(start.elapsed());
    match &outcome {
        Ok(_) => ok(&format!("{what} ({took})")),
        Err(_) => failed(&format!("{what} ({took})")),
    }
    outcome
}

/// A duration with the precision a reader needs.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0 => format!("{} ms", value.as_millis()),
        1..60 => format!("{:.1} s", value.as_secs_f64()),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up() {
        let lines = table_lines(&["pod", "price"], &[vec!["web".into(), "$0.01".into()]]);
        assert_eq!(lines, ["pod  price", "web  $0.01"]);
    }

    #[test]
    fn durations_read_well_at_every_size() {
        assert_eq!(duration(Duration::from_millis(350)), "350 ms");
        assert_eq!(duration(Duration::from_millis(2_340)), "2.3 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
    }
}

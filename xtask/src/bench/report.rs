//! What was measured, against what was promised.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::command::{cmd, read};
use crate::{paths, ui};

/// The figures of one run.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Row {
    what: String,
    value: String,
    budget: String,
    held: Option<bool>,
}

impl Report {
    pub(super) fn new() -> Result<Self> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or(": unknown processor");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = read(&mut cmd("uname", ["-r"]))?;
        let containerd = read(&mut cmd("containerd", ["--version"]))?;
        let version = containerd
            .split_whitespace()
            .nth(2)
            .unwrap_or("unknown")
            .to_owned();
        Ok(Self {
            machine: format!(
                "{} cores of {}, Linux {}, containerd {version}",
                cores,
                model.trim_start_matches([' ', '\t', ':']).trim(),
                kernel.trim()
            ),
            rows: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// A figure that must not be above its budget; both in `unit`.
    pub(super) fn at_most(&mut self, what: &str, value: f64, budget: f64, unit: &str) {
        let held = value <= budget;
        let line = format!("{what}: {} {unit} (at most {budget} {unit})", figure(value));
        if held {
            ui::ok(&line)
        } else {
            ui::failed(&line)
        }
        self.rows.push(Row {
            what: what.to_owned(),
            value: format!("{} {unit}", figure(value)),
            budget: format!("≤ {budget} {unit}"),
            held: Some(held),
        });
    }

    /// A figure without a budget.
    pub(super) fn plain(&mut self, what: &str, value: &str) {
        ui::step(&format!("{what}: {value}"));
        self.rows.push(Row {
            what: what.to_owned(),
            value: value.to_owned(),
            budget: String::new(),
            held: None,
        });
    }

    /// A paragraph below the table.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Writes `benches/README.md` and returns what is over its budget.
    pub(super) fn write(&self) -> Result<Vec<String>> {
        let path = paths::workspace().join("benches/README.md");
        std::fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))?;
        ui::ok(&format!("written to {}", path.display()));
        let over = self.rows.iter().filter(|row| row.held == Some(false));
        Ok(over
            .map(|row| format!("{}: {} ({})", row.what, row.value, row.budget))
            .collect())
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# Figures\n\nMeasured and written by `cargo xtask bench`, which fails when a budget is exceeded. The parts by hand:\n\n\
             ```\ncargo bench -p benches                       # placement and step alone\n\
             cargo tree -p kip-core -e normal,build       # what kip-core brings\n```\n\n",
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "Machine: {}.\n\n| what | measured | budget | held |\n|---|---|---|---|",
            self.machine
        );
        for row in &self.rows {
            let held = row.held.map_or("", |held| if held { "yes" } else { "**no**" });
            let _ = writeln!(text, "| {} | {} | {} | {held} |", row.what, row.value, row.budget);
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}

/// As many digits as carry meaning.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The middle one; 0 of nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_budget_shows_in_the_report() {
        let mut report = Report {
            machine: "m".into(),
            rows: Vec::new(),
            notes: Vec::new(),
        };
        report.at_most("agent", 13.2, 12.0, "MB");
        assert!(
            report.text().contains("| agent | 13.2 MB | ≤ 12 MB | **no** |"),
            "{}",
            report.text()
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(figure(median(&mut [3.0, 1.0, 2.0])), "2.00");
    }
}

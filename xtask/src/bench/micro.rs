//! The decisions, by criterion.

use anyhow::{Result, ensure};

use super::report::Report;
use crate::command::{cmd, read};
use crate::{paths, ui};

/// What a benchmark's name begins with, and the most microseconds it may take.
const BUDGETS: [(&str, f64); 4] = [
    ("placement/3000_offerings_mixed_pods", 2.0),
    ("step/mean_of_a_life", 1.0),
    ("catalogue/one_placement_over_all_of_ec2", 2.0),
    ("catalogue/ten_thousand_placements_over_all_of_ec2", 100_000.0),
];

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut cargo = cmd(
        "cargo",
        [
            "bench",
            "--quiet",
            "-p",
            "benches",
            "--bench",
            "catalogue",
            "--bench",
            "placement",
            "--bench",
            "step",
            "--",
            "--output-format",
            "bencher",
        ],
    );
    ui::command(&crate::command::line(&cargo));
    let text = read(cargo.current_dir(paths::workspace()))?;
    let found: Vec<(String, f64)> = text.lines().filter_map(parse).collect();
    for (prefix, budget) in BUDGETS {
        ensure!(
            found.iter().any(|(name, _)| name.starts_with(prefix)),
            "there is no benchmark {prefix}"
        );
        for (name, nanoseconds) in found.iter().filter(|(name, _)| name.starts_with(prefix)) {
            report.at_most(name, nanoseconds / 1000.0, budget, "µs");
        }
    }
    for (name, nanoseconds) in found
        .iter()
        .filter(|(name, _)| !BUDGETS.iter().any(|(prefix, _)| name.starts_with(prefix)))
    {
        report.plain(name, &format!("{:.2} µs", nanoseconds / 1000.0));
    }
    Ok(())
}

/// `test NAME ... bench:      1,234 ns/iter (+/- 12)`
fn parse(line: &str) -> Option<(String, f64)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... bench:")?;
    let number = rest.split("ns/iter").next()?.trim().replace(',', "");
    Some((name.trim().to_owned(), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_criterion_is_understood() {
        let line = "test step/running ... bench:       1,234 ns/iter (+/- 12)";
        assert_eq!(parse(line), Some(("step/running".to_owned(), 1234.0)));
    }
}

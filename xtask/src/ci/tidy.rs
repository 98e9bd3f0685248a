//! For rules about the text of this repository that no compiler knows.

use anyhow::{Context, Result, bail};

use crate::command::{cmd, read};
use crate::paths;

/// A file nobody can hold in their head is split; generated ones are exempt by their first lines.
const MOST_LINES: usize = 800;

/// Fails with every file that breaks a rule.
pub(super) fn check() -> Result<()> {
    let root = paths::workspace();
    let files =
        read(cmd("git", ["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(&root))?;
    let mut problems = Vec::new();
    for file in files.lines() {
        let path = root.join(file);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // Deleted in the working tree, not yet in the index; or a link.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {file}")),
        };
        if let Ok(text) = String::from_utf8(bytes) {
            problems.extend(of_file(file, &text));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn of_file(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let generated = text.lines().take(3).any(|line| line.contains("@generated"));
    let lines = text.lines().count();
    if file.ends_with(".rs") && lines > MOST_LINES && !generated {
        problems.push(format!(
            "{file}: {lines} lines; at most {MOST_LINES}. Split it by what its parts are for"
        ));
    }
    if (file.ends_with(".rs") || file.ends_with(".md")) && !text.is_empty() && !text.ends_with('\n') {
        problems.push(format!("{file}: the last line has no end"));
    }
    if text.contains("\n<<<<<<< ") || text.contains("\n>>>>>>> ") {
        problems.push(format!("{file}: a merge conflict was left in"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_too_long_is_named_with_what_to_do() {
        let problems = of_file("a/b.rs", &"\n".repeat(MOST_LINES + 1));
        assert_eq!(
            problems,
            ["a/b.rs: 801 lines; at most 800. Split it by what its parts are for"]
        );
        assert!(of_file("a/b.rs", &"\n".repeat(MOST_LINES)).is_empty());
    }
}

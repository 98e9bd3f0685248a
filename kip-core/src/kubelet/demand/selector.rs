//! Reads a selector as `kubectl --selector` takes it, from an annotation: the scheduler does not compare it with the virtual node's labels, so a
//! pod can select its instance without the node having such a label.

use std::collections::BTreeSet;

use crate::model::{Operator, Requirement};

/// Requirements with commas between: `family in (c7g, m7g), cpu>4, size=large, !local-nvme`. The error is the part that cannot be read.
pub(super) fn parse(text: &str) -> Result<BTreeSet<Requirement>, String> {
    parts(text)
        .into_iter()
        .map(|part| one(part).ok_or_else(|| part.to_owned()))
        .collect()
}

/// Splits at commas outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut is_inside = false;
    let parts = text.split(move |c| {
        match c {
            '(' => is_inside = true,
            ')' => is_inside = false,
            _ => {}
        }
        c == ',' && !is_inside
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn one(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::new(name(key)?, Operator::DoesNotExist, [""; 0]));
    }
    if let Some((words, list)) = part.split_once('(') {
        let mut words = words.split_whitespace();
        let operator = match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => (key, Operator::In),
            (Some(key), Some("notin"), None) => (key, Operator::NotIn),
            _ => return None,
        };
        let values: Vec<&str> = list.strip_suffix(')')?.split(',').map(str::trim).collect();
        let is_plain = values.iter().all(|value| !value.is_empty() && is_value(value));
        return is_plain.then(|| Requirement::new(operator.0, operator.1, values));
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Gt),
        ("<", Operator::Lt),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            let (key, value) = (name(key)?, value.trim());
            let is_number = matches!(operator, Operator::Gt | Operator::Lt);
            let is_fit = is_value(value) && (!is_number || value.parse::<i64>().is_ok());
            return is_fit.then(|| Requirement::new(key, operator, [value]));
        }
    }
    Some(Requirement::new(name(part)?, Operator::Exists, [""; 0]))
}

/// A label's name, with or without a domain.
fn name(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(is_plain)).then_some(text)
}

fn is_value(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_as_kubectl_reads_it() {
        let read = |text: &str| -> Result<Vec<String>, String> {
            parse(text).map(|all| all.iter().map(ToString::to_string).collect())
        };
        let all =
            "a.b/family in (c7g, m7g),size=large , cpu>4,memory < 9,!nvme, gpu, kind!=x, one==1, z notin (y)";
        let expected = [
            "a.b/family in (c7g, m7g)",
            "cpu > 4",
            "gpu",
            "kind notin (x)",
            "memory < 9",
            "!nvme",
            "one in (1)",
            "size in (large)",
            "z notin (y)",
        ];
        assert_eq!(read(all).expect("read"), expected);
        assert_eq!(read("").expect("nothing"), [""; 0]);
        for bad in [
            "cpu > many",
            "a b",
            "a in c",
            "a in (b",
            "a within (b)",
            "a in ()",
            "!",
            "=x",
            "a=b c",
        ] {
            assert_eq!(read(bad), Err(bad.to_owned()), "{bad}");
        }
    }
}

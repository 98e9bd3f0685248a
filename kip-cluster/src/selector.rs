//! Choose objects by label and field selectors, as `kubectl get -l` and `--field-selector` write them.

use serde_json::Value;

use crate::object;
use crate::status::{ApiError, ApiResult};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// A parsed label selector; the empty one takes everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<(String, Test)>);

impl Labels {
    /// Parses the query form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let mut tests = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            tests.push(parse_test(part).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to parse requirement: found '{part}', expected a label requirement"
                ))
            })?);
        }
        Ok(Self(tests))
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object::at(object, &["metadata", "labels"]);
        self.0.iter().all(|(key, test)| {
            let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            match test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|other| other == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|other| other != value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_test(part: &str) -> Option<(String, Test)> {
    let key = |text: &str| {
        let text = text.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
        (!text.is_empty() && text.chars().all(fine)).then(|| text.to_owned())
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Some((key(rest)?, Test::Absent));
    }
    if let Some(open) = part.find('(') {
        let values: Vec<String> = part[open + 1..]
            .strip_suffix(')')?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = part[..open].split_whitespace();
        let (name, operator) = (words.next()?, words.next()?);
        return match (operator, words.next()) {
            ("in", None) => Some((key(name)?, Test::In(values))),
            ("notin", None) => Some((key(name)?, Test::NotIn(values))),
            _ => None,
        };
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Some((key(name)?, Test::NotIn(vec![value.trim().to_owned()])));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some((key(name)?, Test::In(vec![value.trim().to_owned()])));
    }
    Some((key(part)?, Test::Exists))
}

/// A parsed field selector; the empty one takes everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    /// Parses `path=value,path!=value`; only `metadata.name`, `metadata.namespace` and the paths in `allowed` exist.
    pub(crate) fn parse(text: &str, allowed: &[String]) -> ApiResult<Self> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (path, true, value)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{term}'; can't understand '{term}'"
                )));
            };
            let known =
                matches!(path, "metadata.name" | "metadata.namespace") || allowed.iter().any(|a| a == path);
            if !known {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {path}"
                )));
            }
            terms.push((path.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(terms))
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, wanted)| {
            let members: Vec<&str> = path.trim_start_matches('.').split('.').collect();
            let actual = object::at(object, &members);
            let is = match actual {
                None | Some(Value::Null) => match path.as_str() {
                    "spec.unschedulable" | "spec.hostNetwork" => wanted == "false",
                    _ => wanted.is_empty(),
                },
                Some(Value::String(text)) => text == wanted,
                Some(other) => &other.to_string() == wanted,
            };
            is == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Broken, `kubectl get -l` shows the wrong objects.
    #[test]
    fn label_selectors_follow_the_query_language() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front", "x.y/z": ""}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app notin (web,db),tier", false),
            ("other notin (a)", true),
            ("!other", true),
            ("!app", false),
            ("x.y/z", true),
            ("x.y/z=", true),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&pod), expected, "{text}");
        }
        for text in ["a b", "app in web", "=x", "app is (x)"] {
            assert_eq!(Labels::parse(text).unwrap_err().code, 400, "{text}");
        }
    }

    /// Broken, a kubelet watching `spec.nodeName=me` gets the pods of others.
    #[test]
    fn field_selectors_know_their_paths() {
        let allowed = ["spec.nodeName".to_owned(), "status.phase".to_owned()];
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("metadata.name=p", true),
            ("spec.nodeName=n,status.phase!=Failed", true),
            ("spec.nodeName=", false),
            ("spec.nodeName!=n", false),
        ] {
            assert_eq!(
                Fields::parse(text, &allowed).unwrap().matches(&pod),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            Fields::parse("spec.other=x", &allowed).unwrap_err().message,
            "field label not supported: spec.other"
        );
        assert_eq!(Fields::parse("nonsense", &allowed).unwrap_err().code, 400);
    }
}

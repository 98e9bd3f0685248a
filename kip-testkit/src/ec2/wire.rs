//! EC2's query protocol: parameters as flat names, answers as XML.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The parameters of a call, by their flat names such as `Filter.1.Value.2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub BTreeMap<String, String>);

impl Params {
    /// One parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The values of a list: `name.1`, `name.2`, ...
    pub fn list(&self, name: &str) -> Vec<String> {
        (1..)
            .map_while(|i| self.get(&format!("{name}.{i}")).map(str::to_owned))
            .collect()
    }

    /// The prefixes of a list of structures: `name.1.`, `name.2.`, ...
    pub fn items(&self, name: &str) -> Vec<String> {
        (1..)
            .map(|i| format!("{name}.{i}."))
            .take_while(|prefix| self.0.keys().any(|key| key.starts_with(prefix.as_str())))
            .collect()
    }

    /// The tags of one resource type.
    pub fn tags(&self, resource: &str) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        for specification in self.items("TagSpecification") {
            if self.get(&format!("{specification}ResourceType")) == Some(resource) {
                for tag in self.items(&format!("{specification}Tag")) {
                    let part = |name: &str| self.get(&format!("{tag}{name}")).unwrap_or_default().to_owned();
                    tags.insert(part("Key"), part("Value"));
                }
            }
        }
        tags
    }

    /// The filters: name and accepted patterns.
    pub fn filters(&self) -> Vec<(String, Vec<String>)> {
        self.items("Filter")
            .iter()
            .map(|prefix| {
                let name = self.get(&format!("{prefix}Name")).unwrap_or_default();
                (name.to_owned(), self.list(&format!("{prefix}Value")))
            })
            .collect()
    }
}

/// Whether a value matches a pattern of a filter: `*` any text, `?` any character, `\` takes the next literally.
pub(super) fn matches(pattern: &str, value: &str) -> bool {
    fn at(pattern: &[char], value: &[char]) -> bool {
        match pattern {
            [] => value.is_empty(),
            ['*', rest @ ..] => (0..=value.len()).any(|skip| at(rest, &value[skip..])),
            ['?', rest @ ..] => !value.is_empty() && at(rest, &value[1..]),
            ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                value.first() == Some(literal) && at(rest, &value[1..])
            }
        }
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    at(&chars(pattern), &chars(value))
}

/// An element around escaped text.
pub(super) fn element(name: &str, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    format!("<{name}>{escaped}</{name}>")
}

/// An element around elements.
pub(super) fn wrap(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// A set: its items in an element.
pub(super) fn set(name: &str, items: impl IntoIterator<Item = String>) -> String {
    let mut inner = String::new();
    for item in items {
        let _ = write!(inner, "<item>{item}</item>");
    }
    wrap(name, &inner)
}

/// A whole answer.
pub(super) fn answer(action: &str, inner: &str) -> String {
    format!(
        "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>req-1</requestId>{inner}</{action}Response>"
    )
}

/// The answer that refuses.
pub(super) fn refusal(code: &str, message: &str) -> String {
    let error = wrap("Error", &(element("Code", code) + &element("Message", message)));
    wrap(
        "Response",
        &(wrap("Errors", &error) + &element("RequestID", "req-1")),
    )
}

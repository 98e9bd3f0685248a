//! Read what a request asks for out of its path and query.

use std::str::FromStr;

use http::Method;
use serde_json::json;

use crate::registry::group_version;
use crate::status::{ApiError, ApiResult, Problem};

/// A path of the resource API, taken apart. Parts that are absent are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Group and version joined: `v1`, `apps/v1`.
    pub(crate) api_version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource (for proxies), with its leading slash.
    pub(crate) rest: String,
}

impl Target {
    /// Takes a path apart; `None` when it is not one of a resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decode).collect();
        let (group, version, rest) = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["api", version, _, ..] => (String::new(), version.to_owned(), &parts[2..]),
            ["apis", group, version, _, ..] => (group.to_owned(), version.to_owned(), &parts[3..]),
            _ => return None,
        };
        let api_version = group_version(&group, &version);
        let mut target = Self {
            group,
            version,
            api_version,
            ..Self::default()
        };
        let words: Vec<&str> = rest
            .iter()
            .map(String::as_str)
            .filter(|word| !word.is_empty())
            .collect();
        let words: &[&str] = match words[..] {
            [] => return None,
            ["namespaces", _, "status" | "finalize"] => &words,
            ["namespaces", namespace, ref words @ ..] if !words.is_empty() => {
                target.namespace = namespace.to_owned();
                words
            }
            _ => &words,
        };
        let word = |index: usize| words.get(index).copied().unwrap_or("").to_owned();
        target.resource = word(0);
        target.name = word(1);
        target.subresource = word(2);
        if let Some(rest) = words.get(3..).filter(|rest| !rest.is_empty()) {
            target.rest = format!("/{}", rest.join("/"));
        }
        Some(target)
    }
}

/// What is done to the target, as authorization names it.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    let single = !target.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if single => Some("get"),
        Method::GET | Method::HEAD if query.flag("watch") => Some("watch"),
        Method::GET | Method::HEAD => Some("list"),
        Method::POST => Some("create"),
        Method::PUT => Some("update"),
        Method::PATCH => Some("patch"),
        Method::DELETE if single => Some("delete"),
        Method::DELETE => Some("deletecollection"),
        _ => None,
    }
}

/// The decoded query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        };
        Self(
            text.split('&')
                .filter(|part| !part.is_empty())
                .map(pair)
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "true" | "True" | "TRUE" | "t")
    }

    /// A number, if given; 400 if it is none.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> ApiResult<Option<T>> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing \"{text}\" ({name}): invalid syntax"
                ))
            }),
        }
    }

    /// Whether nothing is to be stored; 422 for anything but `All`. `options` is the kind of the request's options.
    pub(crate) fn dry_run(&self, options: &str) -> ApiResult<bool> {
        let values: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        if values.iter().all(|value| *value == "All") {
            return Ok(!values.is_empty());
        }
        let problem = Problem::unsupported("dryRun", &json!(values), &["All"]);
        Err(ApiError::invalid("meta.k8s.io", options, "", vec![problem]))
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let byte = (bytes[index] == b'%')
            .then(|| {
                text.get(index + 1..index + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        match byte {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encodes a query value.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, a request reads or writes something else than it names.
    #[test]
    fn paths_are_taken_apart() {
        for (path, expected) in [
            ("/api/v1/pods", ["", "", "pods", "", "", ""]),
            ("/api/v1/namespaces/n/pods/p", ["", "n", "pods", "p", "", ""]),
            (
                "/api/v1/namespaces/n/pods/p/log",
                ["", "n", "pods", "p", "log", ""],
            ),
            ("/api/v1/namespaces/n", ["", "", "namespaces", "n", "", ""]),
            (
                "/api/v1/namespaces/n/finalize",
                ["", "", "namespaces", "n", "finalize", ""],
            ),
            (
                "/api/v1/nodes/n/proxy/stats/summary",
                ["", "", "nodes", "n", "proxy", "/stats/summary"],
            ),
            (
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/a%2Db",
                ["coordination.k8s.io", "n", "leases", "a-b", "", ""],
            ),
        ] {
            let target = Target::parse(path).unwrap();
            let found = [
                target.group,
                target.namespace,
                target.resource,
                target.name,
                target.subresource,
                target.rest,
            ];
            assert_eq!(found, expected, "{path}");
        }
        for path in ["/", "/api", "/api/v1", "/apis/g", "/apis/g/v1", "/healthz"] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&watch=true&x=1&command=sh&command=a+b%25");
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert!(query.flag("watch"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "a b%"]);
        assert_eq!(query.number::<u64>("labelSelector").unwrap_err().code, 400);
        assert_eq!(decode(&encode("a b/ü%")), "a b/ü%");
    }
}

//! Which images a pattern covers, as the kubelet decides it.

/// A pattern such as `*.dkr.ecr.*.amazonaws.com`, `registry.io:8080/path`: host, and optionally a port and a path.
///
/// Covered is an image whose host has as many parts between dots, each matching its part of the pattern, where `*` stands for any text within
/// one part; whose port is the same; and whose path begins with the pattern's. Nothing is a wildcard in port and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    host: Vec<String>,
    port: String,
    path: String,
}

impl Pattern {
    /// Reads one. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (host, port, path) = split(text);
        if host.is_empty() {
            return Err(format!("{text:?} names no host"));
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "{text:?}: the port is a number and cannot have a wildcard"
            ));
        }
        if host.contains([':', '/', '?', '[', ']', '\\', '@', ' ']) || text.contains("://") {
            return Err(format!(
                "{text:?} is not a host, optionally with port and path and without scheme, such as *.dkr.ecr.*.amazonaws.com"
            ));
        }
        Ok(Self {
            host: host.split('.').map(str::to_owned).collect(),
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether it covers a repository, named with its host.
    pub(super) fn fits(&self, name: &str) -> bool {
        let (host, port, path) = split(name);
        let parts: Vec<&str> = host.split('.').collect();
        port == self.port
            && parts.len() == self.host.len()
            && path.starts_with(&self.path)
            && self
                .host
                .iter()
                .zip(parts)
                .all(|(pattern, part)| part_fits(pattern, part))
    }
}

/// Host, port and path; the path keeps its slash.
fn split(text: &str) -> (&str, &str, &str) {
    let end = text.find('/').unwrap_or(text.len());
    let (authority, path) = text.split_at(end);
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, port, path),
        None => (authority, "", path),
    }
}

fn part_fits(pattern: &str, part: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = part.strip_prefix(first) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, between)) = pieces.split_last() else {
        // No wildcard at all.
        return rest.is_empty();
    };
    for piece in between {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the kubelet's documentation, and its edges: a login must reach its registry and no other.
    #[test]
    fn an_image_is_covered_as_by_a_kubelet() {
        for (pattern, image, fits) in [
            (
                "123456789.dkr.ecr.us-east-1.amazonaws.com",
                "123456789.dkr.ecr.us-east-1.amazonaws.com/a",
                true,
            ),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "123456789.dkr.ecr.us-east-1.amazonaws.com/a/b",
                true,
            ),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "123456789.dkr.ecr.cn-north-1.amazonaws.com.cn/a",
                false,
            ),
            ("*.azurecr.io", "acme.azurecr.io/app", true),
            ("*.azurecr.io", "azurecr.io/app", false),
            ("*.azurecr.io", "a.b.azurecr.io/app", false),
            ("*.*.registry.io", "a.b.registry.io/app", true),
            ("app*.k8s.io", "app-one.k8s.io/x", true),
            ("app*.k8s.io", "my-app.k8s.io/x", false),
            ("k8s.*", "k8s.io/x", true),
            ("foo.registry.io:8080/path", "foo.registry.io:8080/path/app", true),
            (
                "foo.registry.io:8080/path",
                "foo.registry.io:8080/pathology",
                true,
            ),
            ("foo.registry.io:8080/path", "foo.registry.io:8080/other", false),
            ("foo.registry.io:8080", "foo.registry.io/app", false),
            ("foo.registry.io", "foo.registry.io:8080/app", false),
            ("gcr.io", "gcr.io/project/app", true),
            ("gcr.io", "eu.gcr.io/project/app", false),
            ("a*b*c.io", "axxbyyc.io/x", true),
            ("a*b*c.io", "axxcyyb.io/x", false),
            ("a*a.io", "a.io/x", false),
            ("GCR.io", "gcr.io/x", false),
        ] {
            let read = Pattern::parse(pattern).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.fits(image), fits, "{pattern} {image}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", ":80", "reg.io:*", "https://gcr.io", "[::1]/x", "reg.io:80:90"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}

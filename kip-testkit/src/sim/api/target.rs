//! What a request is about.

use http::{Method, Uri};

use crate::sim::scenario::Op;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `pods`, `cells`, `configmaps`, ...
    pub(super) resource: String,
    /// Empty for a collection.
    pub(super) name: String,
    /// `status` or empty.
    subresource: String,
    method: Method,
    is_watch: bool,
}

impl Target {
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let mut words = uri.path().split('/').filter(|word| !word.is_empty());
        // `api/v1` or `apis/group/version`.
        let versions = if words.next() == Some("api") { 1 } else { 2 };
        let mut words = words.skip(versions).peekable();
        let word = |words: &mut dyn Iterator<Item = &str>| words.next().unwrap_or("").to_owned();
        let mut resource = word(&mut words);
        let mut name = word(&mut words);
        if resource == "namespaces" && words.peek().is_some() {
            resource = word(&mut words);
            name = word(&mut words);
        }
        Self {
            resource,
            name,
            subresource: word(&mut words),
            method: method.clone(),
            is_watch: uri.query().is_some_and(|query| query.contains("watch=true")),
        }
    }

    /// Which operation of a controller it belongs to. None is what nothing goes wrong with.
    pub(super) fn op(&self) -> Option<Op> {
        let is_single = !self.name.is_empty();
        Some(match (self.resource.as_str(), &self.method) {
            ("cells", &Method::POST) => Op::Create,
            ("cells", &Method::PUT) => Op::Update,
            // Taking the finalizer off is the first half of a removal.
            ("cells", &Method::PATCH | &Method::DELETE) => Op::Remove,
            ("cells", _) => Op::Read,
            ("pods", &Method::PATCH) => Op::Publish,
            ("pods", &Method::DELETE) => Op::Release,
            ("pods", _) if is_single => Op::Exists,
            ("pods", _) if self.is_watch => Op::WatchPods,
            ("pods", _) => Op::ListPods,
            ("events", _) => Op::Tell,
            ("configmaps" | "secrets" | "services" | "serviceaccounts", _) => Op::Manifest,
            _ => return None,
        })
    }

    /// For traces.
    pub(super) fn subject(&self) -> String {
        let Self {
            resource,
            name,
            subresource,
            method,
            ..
        } = self;
        let mut text = format!("{method} {resource}");
        for part in [name, subresource] {
            if !part.is_empty() {
                text.push('/');
                text.push_str(part);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_the_call_it_is_meant_for() {
        for (method, path, op, subject) in [
            (
                Method::POST,
                "/apis/kip.elotl.co/v1alpha1/cells",
                Some(Op::Create),
                "POST cells",
            ),
            (
                Method::PUT,
                "/apis/kip.elotl.co/v1alpha1/cells/kip-1/status?x=y",
                Some(Op::Update),
                "PUT cells/kip-1/status",
            ),
            (
                Method::GET,
                "/api/v1/pods?watch=true&a=b",
                Some(Op::WatchPods),
                "GET pods",
            ),
            (
                Method::GET,
                "/api/v1/pods?limit=500",
                Some(Op::ListPods),
                "GET pods",
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/default/pods/web/status",
                Some(Op::Publish),
                "PATCH pods/web/status",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/default/pods/web",
                Some(Op::Exists),
                "GET pods/web",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/default/services",
                Some(Op::Manifest),
                "GET services",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/kube-system",
                None,
                "GET namespaces/kube-system",
            ),
        ] {
            let target = Target::of(&method, &path.parse().expect("a path"));
            assert_eq!((target.op(), target.subject().as_str()), (op, subject), "{path}");
        }
    }
}

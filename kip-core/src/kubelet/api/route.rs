//! Which handler a request is for: a pure function of method and path.

use http::Method;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Healthz,
    Metrics,
    Pods,
    RunningPods,
    StatsSummary,
    MetricsResource,
    MetricsCadvisor,
    Configz,
    Logs(Target),
    Exec(Target),
    Attach(Target),
    PortForward(Target),
    /// A route of the kubelet that Kip does not have, with the sentence that says so.
    NotImplemented(&'static str),
    /// A known path with a method it does not take, and those it does.
    WrongMethod(&'static str),
    Unknown,
}

/// A pod, and for most routes a container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Given by clients that use the longer path.
    pub(super) uid: Option<String>,
    /// Empty for port-forward.
    pub(super) container: String,
}

/// Decodes a path into a route. Segments are percent-decoded after splitting, so an escaped slash stays inside its segment.
pub(super) fn route(method: &Method, path: &str) -> Route {
    let Some(segments) = segments(path) else {
        return Route::Unknown;
    };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let get = |found: Route| {
        if *method == Method::GET {
            found
        } else {
            Route::WrongMethod("GET")
        }
    };
    let stream = |found: Route| {
        if *method == Method::GET || *method == Method::POST {
            found
        } else {
            Route::WrongMethod("GET, POST")
        }
    };
    match segments.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => get(Route::Healthz),
        ["metrics"] => get(Route::Metrics),
        ["metrics", "resource"] => get(Route::MetricsResource),
        ["metrics", "cadvisor" | "probes" | "slis"] => get(Route::MetricsCadvisor),
        ["pods"] => get(Route::Pods),
        ["runningpods"] => get(Route::RunningPods),
        ["stats", "summary"] => get(Route::StatsSummary),
        ["configz"] => get(Route::Configz),
        ["containerLogs", namespace, pod, container] => {
            get(Route::Logs(target(namespace, pod, None, container)))
        }
        ["exec", namespace, pod, container] => stream(Route::Exec(target(namespace, pod, None, container))),
        ["exec", namespace, pod, uid, container] => {
            stream(Route::Exec(target(namespace, pod, Some(*uid), container)))
        }
        ["attach", namespace, pod, container] => {
            stream(Route::Attach(target(namespace, pod, None, container)))
        }
        ["attach", namespace, pod, uid, container] => {
            stream(Route::Attach(target(namespace, pod, Some(*uid), container)))
        }
        ["portForward", namespace, pod] => stream(Route::PortForward(target(namespace, pod, None, ""))),
        ["portForward", namespace, pod, uid] => {
            stream(Route::PortForward(target(namespace, pod, Some(*uid), "")))
        }
        ["checkpoint", ..] => Route::NotImplemented("cells cannot be checkpointed"),
        ["run", ..] => Route::NotImplemented("use exec instead of run"),
        ["logs", ..] => Route::NotImplemented("a virtual node has no log files of its own"),
        _ => Route::Unknown,
    }
}

fn target(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> Target {
    Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }
}

/// The non-empty segments of a path, decoded; None when an escape is broken or a segment is not UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(percent_decode)
        .collect()
}

/// Decodes `%xx`; None when an escape is broken or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// The pairs of a query string, decoded, in order; None when an escape is broken.
pub(super) fn query_pairs(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((
                percent_decode(&key.replace('+', " "))?,
                percent_decode(&value.replace('+', " "))?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_the_api_server_sends_finds_its_handler() {
        let web = |container: &str, uid: Option<&str>| target("default", "web", uid, container);
        for (method, path, expected) in [
            ("GET", "/healthz", Route::Healthz),
            ("GET", "/runningpods/", Route::RunningPods),
            ("GET", "/pods", Route::Pods),
            ("GET", "/stats/summary", Route::StatsSummary),
            ("GET", "/metrics/resource", Route::MetricsResource),
            (
                "GET",
                "/containerLogs/default/web/main",
                Route::Logs(web("main", None)),
            ),
            ("POST", "/exec/default/web/main", Route::Exec(web("main", None))),
            (
                "GET",
                "/exec/default/web/u-1/main",
                Route::Exec(web("main", Some("u-1"))),
            ),
            (
                "POST",
                "/attach/default/web/main",
                Route::Attach(web("main", None)),
            ),
            (
                "POST",
                "/portForward/default/web",
                Route::PortForward(web("", None)),
            ),
            (
                "DELETE",
                "/exec/default/web/main",
                Route::WrongMethod("GET, POST"),
            ),
            ("POST", "/pods", Route::WrongMethod("GET")),
            ("GET", "/nothing/here", Route::Unknown),
            ("GET", "/exec/default/%zz/main", Route::Unknown),
        ] {
            let method = method.parse::<Method>().expect("a method");
            assert_eq!(route(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_command_keeps_its_spaces_and_signs_or_exec_would_run_something_else() {
        assert_eq!(
            query_pairs("command=sh&command=-c&command=echo+%22a%2Bb%22&input=1"),
            Some(vec![
                ("command".into(), "sh".into()),
                ("command".into(), "-c".into()),
                ("command".into(), "echo \"a+b\"".into()),
                ("input".into(), "1".into()),
            ])
        );
        assert_eq!(query_pairs("a=%f"), None);
    }
}

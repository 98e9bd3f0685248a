//! Which permission a route needs: the subresources of the node that the API server is asked about. Pure.

use http::Method;

use super::route::Route;

/// What the API server is asked: may this user do `verb` on any of these subresources of the node?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Permission {
    pub(super) verb: &'static str,
    /// Tried in order; any one is enough.
    pub(super) subresources: &'static [&'static str],
}

/// The permission a request needs.
///
/// A session is `create` on `nodes/proxy` even when it comes as a GET (a WebSocket does): otherwise whoever may read the node's
/// statistics through the proxy could run commands in its pods.
pub(super) fn permission(method: &Method, route: &Route) -> Permission {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let (verb, subresources): (_, &'static [&'static str]) = match route {
        Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => ("create", &["proxy"]),
        Route::Pods | Route::RunningPods => (verb, &["pods", "proxy"]),
        Route::Healthz => (verb, &["healthz", "proxy"]),
        Route::Configz => (verb, &["configz", "proxy"]),
        Route::StatsSummary => (verb, &["stats"]),
        Route::Metrics | Route::MetricsResource | Route::MetricsCadvisor => (verb, &["metrics"]),
        Route::Logs(_) | Route::NotImplemented(_) | Route::WrongMethod(_) | Route::Unknown => {
            (verb, &["proxy"])
        }
    };
    Permission { verb, subresources }
}

#[cfg(test)]
mod tests {
    use super::super::route::route;
    use super::*;

    #[test]
    fn reading_statistics_never_grants_a_shell() {
        for (method, path, verb, subresources) in [
            (Method::GET, "/exec/a/b/c", "create", &["proxy"][..]),
            (Method::POST, "/exec/a/b/c", "create", &["proxy"]),
            (Method::GET, "/portForward/a/b", "create", &["proxy"]),
            (Method::GET, "/containerLogs/a/b/c", "get", &["proxy"]),
            (Method::GET, "/stats/summary", "get", &["stats"]),
            (Method::GET, "/metrics/resource", "get", &["metrics"]),
            (Method::GET, "/pods", "get", &["pods", "proxy"]),
            (Method::GET, "/whatever", "get", &["proxy"]),
        ] {
            let found = permission(&method, &route(&method, path));
            assert_eq!(
                (found.verb, found.subresources),
                (verb, subresources),
                "{method} {path}"
            );
        }
    }
}

//! The API without sockets: a `tower` service that answers within the caller's task.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use serde_json::Value;
use tower_service::Service;

use crate::api::{self, Body, BoxError};
use crate::app::App;
use crate::auth::User;
use crate::store::Key;
use crate::{controllers, scheduler};

/// A Kubernetes API in this process that is called, not connected to. Made by
/// [`Builder::in_process`](crate::Builder::in_process); cheap to clone, all clones are one cluster.
///
/// It is a [`tower_service::Service`], so `kube::Client::new(cluster, "default")` makes a client of it:
///
/// ```
/// use kip_cluster::{Cluster, SeededOrigin};
/// # use k8s_openapi::api::core::v1::ConfigMap;
/// # use kube::api::{Api, PostParams};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), kube::Error> {
/// let origin = SeededOrigin::new("2026-01-01T00:00:00Z".parse().expect("a time"), 7);
/// let cluster = Cluster::builder().origin(origin).in_process();
/// let client = kube::Client::new(cluster, "default");
/// let maps: Api<ConfigMap> = Api::default_namespaced(client);
/// let map = serde_json::from_value(serde_json::json!({ "metadata": { "name": "m" } })).expect("a ConfigMap");
/// let created = maps.create(&PostParams::default(), &map).await?;
/// assert_eq!(created.metadata.creation_timestamp.expect("set").0.to_string(), "2026-01-01T00:00:00Z");
/// # Ok(())
/// # }
/// ```
///
/// Calls come as `kubernetes-admin`, who may do everything, unless [`as_user`](Self::as_user) or a bearer token in the
/// request says otherwise.
///
/// # What is different
/// A request is answered in one go, without waiting: only a watch takes time, and a request for a version that does not
/// exist yet. There are no tasks: namespaces and definitions that are deleted stay `Terminating` and pods stay unscheduled
/// unless [`housekeep`](Self::housekeep) runs. There are no certificates: `kube-root-ca.crt` is empty, kubelets are not
/// dialed (`logs`, `exec`, ... answer 500), and service-account tokens are signed with a secret drawn from the
/// [`Origin`](crate::Origin), so no key is published.
///
/// # Determinism
/// With a [`SeededOrigin`](crate::SeededOrigin) on a single-threaded runtime, the same calls in the same order give the same
/// answers to the byte, and watchers wake in the order in which they began to wait. (`AGE` in tables is the exception: it is
/// counted by the machine's clock.)
#[derive(Debug, Clone)]
pub struct InProcess {
    app: Arc<App>,
    user: User,
    scheduler: bool,
}

impl InProcess {
    pub(crate) fn new(app: Arc<App>, scheduler: bool) -> Self {
        Self {
            app,
            user: User::new("kubernetes-admin", &["system:masters".to_owned()]),
            scheduler,
        }
    }

    /// The same cluster, called by somebody else. Whoever is not in `system:masters` may do nothing until
    /// [`allow`](Self::allow) says so.
    #[must_use]
    pub fn as_user(&self, user: &str, groups: &[&str]) -> Self {
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        Self {
            user: User::new(user, &groups),
            ..self.clone()
        }
    }

    /// Lets a user or group do everything from now on.
    pub fn allow(&self, subject: &str) {
        self.app.auth.allow(subject);
    }

    /// An object as it is stored, without a request: for a test that judges what its controllers have made. `group` is empty for core
    /// resources, `namespace` for cluster-scoped ones.
    #[must_use]
    pub fn object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.app
            .store
            .get(&format!("{group}/{plural}"), &Key::new(namespace, name))
    }

    /// All objects of a resource as they are stored, in order of namespace and name.
    #[must_use]
    pub fn objects(&self, group: &str, plural: &str) -> Vec<Arc<Value>> {
        self.app.store.list(&format!("{group}/{plural}"), None).1
    }

    /// The version of the last change, as `metadata.resourceVersion` counts.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.app.store.version()
    }

    /// Does a cluster's housekeeping until [`stop`](Self::stop): ends deleted namespaces and definitions and, unless the
    /// builder said no, schedules pods. Dropping the future pauses it; it may run again later.
    pub async fn housekeep(&self) {
        let controllers = controllers::run(Arc::clone(&self.app));
        if self.scheduler {
            tokio::join!(controllers, scheduler::run(Arc::clone(&self.app)));
        } else {
            controllers.await;
        }
    }

    /// Ends all watches and [`housekeep`](Self::housekeep). Other requests are answered as before.
    pub fn stop(&self) {
        self.app.stopping.cancel();
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let answer = api::handle(Arc::clone(&self.app), Some(self.user.clone()), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

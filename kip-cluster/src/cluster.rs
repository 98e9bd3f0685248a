//! Start a cluster, get credentials for it, stop it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::{App, Limits, Transport};
use crate::auth::{Auth, Authority, Signer, User, serving_config};
use crate::controllers;
use crate::error::Error;
use crate::ids;
use crate::in_process::InProcess;
use crate::origin::{Origin, SystemOrigin};
use crate::proxy::{Dialer, KubeletTrust};
use crate::scheduler;
use crate::server;

/// Who issues service-account tokens, which is also this API as their audience.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Sets up a [`Cluster`]. Made by [`Cluster::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    listen: SocketAddr,
    history: usize,
    scheduler: bool,
    names: Vec<String>,
    body: usize,
    watches: usize,
    allowed: Vec<String>,
    trust: KubeletTrust,
    origin: Arc<dyn Origin>,
}

impl Builder {
    /// The address to serve on. Default: `127.0.0.1:0`, any free loopback port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// How many changes of each resource type are kept for watches to continue from; older ones answer 410 Gone.
    /// Default: 1000. A small number makes a test meet 410 soon.
    pub fn history(mut self, changes: usize) -> Self {
        self.history = changes;
        self
    }

    /// Whether pending pods are put on nodes. Default: yes.
    pub fn scheduler(mut self, enabled: bool) -> Self {
        self.scheduler = enabled;
        self
    }

    /// A further DNS name or IP address clients reach the API by; it becomes part of the serving certificate.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// The largest request body in bytes; larger ones answer 413. Default: 3 MiB, as kube-apiserver.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// How many watches may be open at once; more answer 429. Default: 2000.
    pub fn max_watches(mut self, watches: usize) -> Self {
        self.watches = watches;
        self
    }

    /// Lets a user or group do everything: `alice`, `dev`, `system:serviceaccount:ns:name`. Without it only
    /// `system:masters` may; everybody else, service accounts included, gets 403.
    pub fn allow(mut self, subject: impl Into<String>) -> Self {
        self.allowed.push(subject.into());
        self
    }

    /// Believes only kubelets whose serving certificate one of these authorities signed. Default: any certificate is
    /// believed, as kube-apiserver does without `--kubelet-certificate-authority`.
    pub fn kubelet_roots(mut self, roots: RootCertStore) -> Self {
        self.trust = KubeletTrust::Roots(roots);
        self
    }

    /// Where the time and the ids in objects come from. Default: [`SystemOrigin`].
    pub fn origin(mut self, origin: impl Origin) -> Self {
        self.origin = Arc::new(origin);
        self
    }

    /// The same API without sockets, TLS and tasks of its own, to be called as a `tower` service. See [`InProcess`].
    /// Address, names and kubelet roots of the builder have no meaning there.
    #[must_use]
    pub fn in_process(self) -> InProcess {
        let mut secret = [0_u8; 32];
        self.origin.fill("token-signer", &mut secret);
        let auth = Auth::new(Signer::from_secret(ISSUER, &secret));
        self.allowed.iter().for_each(|subject| auth.allow(subject));
        let limits = Limits {
            body: self.body,
            watches: self.watches,
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let app = App::new(self.history, auth, None, self.origin, limits, address.to_string());
        furnish(&app, address);
        InProcess::new(Arc::new(app), self.scheduler)
    }

    /// Starts the cluster. When this returns, the API answers, and the namespaces `default`, `kube-system`,
    /// `kube-public` and `kube-node-lease` exist.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address is taken or not this machine's; [`Error::Certificate`] when a name is none.
    ///
    /// # Cancellation
    /// Dropped before it is done, nothing is left behind.
    pub async fn start(self) -> Result<Cluster, Error> {
        let failed = |source| Error::Listen {
            address: self.listen,
            source,
        };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let reachable = SocketAddr::new(reachable(bound.ip()), bound.port());
        let authority = Authority::new()?;
        let tls = serving_config(&authority, &authority.serving(reachable.ip(), &self.names)?)?;
        let auth = Auth::new(Signer::new(ISSUER)?);
        let admin_token = ids::secret();
        auth.add_token(
            &admin_token,
            User::new("kubernetes-admin", &["system:masters".to_owned()]),
        );
        self.allowed.iter().for_each(|subject| auth.allow(subject));
        let dialer = Dialer::new(&authority, self.trust)?;
        let transport = Transport { authority, dialer };
        let limits = Limits {
            body: self.body,
            watches: self.watches,
        };
        let app = Arc::new(App::new(
            self.history,
            auth,
            Some(transport),
            self.origin,
            limits,
            reachable.to_string(),
        ));
        furnish(&app, reachable);
        let mut tasks = vec![
            tokio::spawn(server::serve(Arc::clone(&app), listener, Arc::new(tls))),
            tokio::spawn(controllers::run(Arc::clone(&app))),
        ];
        if self.scheduler {
            tasks.push(tokio::spawn(scheduler::run(Arc::clone(&app))));
        }
        let stop = app.stopping.clone();
        Ok(Cluster {
            app,
            address: reachable,
            admin_token,
            tasks,
            _stop: stop.drop_guard(),
        })
    }
}

/// The address to call when listening on all of them.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        ip
    }
}

/// Creates what exists in every cluster.
fn furnish(app: &App, address: SocketAddr) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        controllers::ensure(
            app,
            "",
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    // What aggregated servers and kubelets read to learn whose client certificates to believe.
    controllers::ensure(
        app,
        "",
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap",
               "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"},
               "data": {"client-ca-file": app.ca_pem()}}),
    );
    controllers::ensure(
        app,
        "",
        "services",
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
               "spec": {"ports": [{"name": "https", "port": 443, "targetPort": address.port()}]}}),
    );
    controllers::ensure(
        app,
        "",
        "endpoints",
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": "default", "name": "kubernetes"},
               "subsets": [{"addresses": [{"ip": address.ip().to_string()}],
                            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]}]}),
    );
}

/// A running Kubernetes API. Dropping it stops it; [`Cluster::shutdown`] also waits until it has stopped.
#[derive(Debug)]
pub struct Cluster {
    app: Arc<App>,
    address: SocketAddr,
    admin_token: String,
    tasks: Vec<JoinHandle<()>>,
    _stop: DropGuard,
}

impl Cluster {
    /// A cluster with the defaults named at each method of [`Builder`].
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            history: 1000,
            scheduler: true,
            names: Vec::new(),
            body: 3 * 1024 * 1024,
            watches: 2000,
            allowed: Vec::new(),
            trust: KubeletTrust::Any,
            origin: Arc::new(SystemOrigin),
        }
    }

    /// Where the API is: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The address the API is reached at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the cluster's authority, in PEM. It signs the serving certificate and all client certificates.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.app.ca_pem()
    }

    /// The bearer token of `kubernetes-admin`, who may do everything. Random for each cluster.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A kubeconfig (YAML) for `kubernetes-admin`. It holds the admin token: treat it as a secret.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        let config: Value = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "kip-cluster",
            "clusters": [{"name": "kip-cluster", "cluster": {"server": self.url(), "certificate-authority-data": ca}}],
            "users": [{"name": "kubernetes-admin", "user": {"token": self.admin_token}}],
            "contexts": [{"name": "kip-cluster", "context": {"cluster": "kip-cluster", "user": "kubernetes-admin"}}],
        });
        // JSON is YAML; the library's form is only easier to read, and cannot fail on a value made of strings.
        serde_norway::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    /// Writes [`Cluster::kubeconfig`] to a file, readable by its owner only.
    ///
    /// # Errors
    /// [`Error::Write`] when the file cannot be written.
    pub fn write_kubeconfig(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = path.as_ref();
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(self.kubeconfig().as_bytes()).map_err(failed)
    }

    /// A client certificate and its key, both in PEM, for a user and at most two groups. The user may do nothing yet
    /// unless a group is `system:masters` or [`Cluster::allow`] says so.
    ///
    /// # Errors
    /// [`Error::TooManyGroups`] for more than two groups.
    pub fn client_cert(&self, user: &str, groups: &[&str]) -> Result<(String, String), Error> {
        let Some(transport) = &self.app.transport else {
            return Err(Error::NoAuthority);
        };
        let pair = transport.authority.client(user, groups)?;
        Ok((pair.certificate_pem, pair.key_pem))
    }

    /// A new bearer token for a user and any number of groups; valid until the cluster stops.
    #[must_use]
    pub fn user_token(&self, user: &str, groups: &[&str]) -> String {
        let token = ids::secret();
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        self.app.auth.add_token(&token, User::new(user, &groups));
        token
    }

    /// Lets a user or group do everything from now on; the same as [`Builder::allow`], later.
    pub fn allow(&self, subject: &str) {
        self.app.auth.allow(subject);
    }

    /// Stops serving: ends watches, lets open requests finish for some seconds, closes all connections.
    pub async fn shutdown(mut self) {
        self.app.stopping.cancel();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the cluster ended badly");
            }
        }
    }

    /// Cancelled when the cluster stops.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.app.stopping.child_token()
    }
}

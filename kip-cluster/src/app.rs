//! What all requests share: the store, the registry, who may do what, and the limits.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, Authority, User};
use crate::origin::Origin;
use crate::proxy::Dialer;
use crate::registry::Registry;
use crate::store::Store;

/// Bounds on what one client can ask of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a request body.
    pub(crate) body: usize,
    /// Watches open at once.
    pub(crate) watches: usize,
}

/// What only a cluster that listens on a socket has.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) authority: Authority,
    pub(crate) dialer: Dialer,
}

/// The running API.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    registry: RwLock<Arc<Registry>>,
    pub(crate) auth: Auth,
    /// None: a cluster without sockets.
    pub(crate) transport: Option<Transport>,
    pub(crate) origin: Arc<dyn Origin>,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) limits: Limits,
    /// `host:port` clients reach the API at.
    pub(crate) address: String,
    pub(crate) stopping: CancellationToken,
}

/// The table of CustomResourceDefinitions.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";

impl App {
    pub(crate) fn new(
        history: usize,
        auth: Auth,
        transport: Option<Transport>,
        origin: Arc<dyn Origin>,
        limits: Limits,
        address: String,
    ) -> Self {
        Self {
            store: Store::new(history),
            registry: RwLock::new(Arc::new(Registry::builtin())),
            auth,
            transport,
            origin,
            watches: Arc::new(Semaphore::new(limits.watches)),
            limits,
            address,
            stopping: CancellationToken::new(),
        }
    }

    /// The certificate of the cluster's authority, in PEM; empty when there is none.
    pub(crate) fn ca_pem(&self) -> String {
        self.transport
            .as_ref()
            .map_or_else(String::new, |transport| transport.authority.pem())
    }

    /// The user a token belongs to now, and the audiences it is good for; an error says why it is refused.
    pub(crate) fn user_of(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        self.auth
            .user_of(token, audiences, &self.store, self.origin.now())
    }

    /// What is served right now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the definitions anew; called after each change of one.
    pub(crate) fn refresh_registry(&self) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let (_, definitions) = self.store.list(DEFINITIONS, None);
        *registry = Arc::new(Registry::with_definitions(definitions.iter().map(AsRef::as_ref)));
    }
}

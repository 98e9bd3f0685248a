//! A Kubernetes client that can be part of types with `Debug`, without telling anything.

/// The client.
#[derive(Clone)]
pub(crate) struct Client(kube::Client);

impl Client {
    /// The client itself; cheap.
    pub(crate) fn get(&self) -> kube::Client {
        self.0.clone()
    }

    /// The client, borrowed.
    pub(crate) fn as_ref(&self) -> &kube::Client {
        &self.0
    }
}

impl From<kube::Client> for Client {
    fn from(client: kube::Client) -> Self {
        Self(client)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

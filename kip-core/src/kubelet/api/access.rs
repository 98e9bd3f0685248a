//! Who a client is and what it may do. Asks the API server, remembers for a while, and refuses whatever it cannot find out.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::permission::Permission;
use super::reply::Refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::NodeName;
use crate::kubelet::config::EndpointConfig;
use crate::kubelet::errors::api_error;

/// Most answers remembered of each kind: far more than a cluster has clients of one node.
const REMEMBERED: usize = 1024;

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The user name.
    pub user: String,
    /// The user's UID, empty when the authenticator gives none.
    pub uid: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// More facts about the user, which some authorizers read.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Identity {
    /// The identity in a verified client certificate: its common name and organizations, as Kubernetes reads them.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject
            .iter_organization()
            .filter_map(|name| name.as_str().ok())
            .map(str::to_owned)
            .collect();
        Some(Self {
            user,
            uid: String::new(),
            groups,
            extra: Vec::new(),
        })
    }
}

/// Decides who a token belongs to and what an identity may do.
#[async_trait]
pub trait Reviewer: fmt::Debug + Send + Sync + 'static {
    /// The identity behind a bearer token, None when it is not valid.
    ///
    /// # Errors
    /// When it cannot be found out; the client is then refused.
    async fn authenticate(&self, token: &str) -> Result<Option<Identity>>;

    /// Whether an identity may do `verb` on a subresource of the node.
    ///
    /// # Errors
    /// When it cannot be found out; the client is then refused.
    async fn allows(&self, identity: &Identity, verb: &str, subresource: &str) -> Result<bool>;
}

/// Asks the Kubernetes API by TokenReview and SubjectAccessReview.
#[derive(Clone)]
pub struct KubeReviewer {
    client: kube::Client,
    node: NodeName,
}

impl KubeReviewer {
    /// A reviewer for the node's endpoint. Needs `create` on `tokenreviews` and `subjectaccessreviews`.
    pub fn new(client: kube::Client, node: NodeName) -> Self {
        Self { client, node }
    }
}

impl fmt::Debug for KubeReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeReviewer")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Reviewer for KubeReviewer {
    async fn authenticate(&self, token: &str) -> Result<Option<Identity>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let answer = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| api_error("review token", error))?;
        let Some(status) = answer.status else {
            return Err(Error::new(
                ErrorKind::Unexpected,
                "review token",
                "the answer has no status",
            ));
        };
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        let Some(user) = status.user else { return Ok(None) };
        Ok(user
            .username
            .filter(|name| !name.is_empty())
            .map(|name| Identity {
                user: name,
                uid: user.uid.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default().into_iter().collect(),
            }))
    }

    async fn allows(&self, identity: &Identity, verb: &str, subresource: &str) -> Result<bool> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(identity.user.clone()),
                uid: Some(identity.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(identity.groups.clone()),
                extra: Some(identity.extra.iter().cloned().collect()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.to_string()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = Api::<SubjectAccessReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| api_error("review access", error))?;
        Ok(answer
            .status
            .is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

/// The endpoint's gate: authentication, then authorization, each with a memory.
#[derive(Debug)]
pub(super) struct Gate {
    reviewer: Box<dyn Reviewer>,
    node: NodeName,
    token_cache: Duration,
    allow_cache: Duration,
    deny_cache: Duration,
    /// By the token's hash: the token itself is not kept.
    tokens: Memory<[u8; 32], Option<Identity>>,
    decisions: Memory<(Identity, Permission), bool>,
}

impl Gate {
    pub(super) fn new(reviewer: Box<dyn Reviewer>, node: NodeName, config: &EndpointConfig) -> Self {
        Self {
            reviewer,
            node,
            token_cache: config.token_cache,
            allow_cache: config.allow_cache,
            deny_cache: config.deny_cache,
            tokens: Memory::default(),
            decisions: Memory::default(),
        }
    }

    /// Lets a request pass, or says why not. A client certificate goes before a token.
    pub(super) async fn admit(
        &self,
        certificate: Option<&Identity>,
        headers: &HeaderMap,
        permission: &Permission,
    ) -> Result<(), Refusal> {
        let identity = match certificate {
            Some(identity) => identity.clone(),
            None => self.authenticate(headers).await?,
        };
        let key = (identity, permission.clone());
        let allowed = match self.decisions.get(&key) {
            Some(allowed) => allowed,
            None => {
                let allowed = self.decide(&key.0, permission).await?;
                let keep = if allowed {
                    self.allow_cache
                } else {
                    self.deny_cache
                };
                self.decisions.put(key.clone(), allowed, keep);
                allowed
            }
        };
        if allowed {
            return Ok(());
        }
        let text = format!(
            "Forbidden (user={}, verb={}, resource=nodes, subresource(s)={:?}, name={})",
            key.0.user, permission.verb, permission.subresources, self.node
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, text))
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .map(|(_, token)| token.trim())
            .ok_or_else(unauthorized)?;
        let key = hmac_sha256::Hash::hash(token.as_bytes());
        let identity = match self.tokens.get(&key) {
            Some(identity) => identity,
            None => {
                let identity = self
                    .reviewer
                    .authenticate(token)
                    .await
                    .map_err(|error| undecided("client", &error))?;
                let keep = if identity.is_some() {
                    self.token_cache
                } else {
                    self.deny_cache
                };
                self.tokens.put(key, identity.clone(), keep);
                identity
            }
        };
        identity.ok_or_else(unauthorized)
    }

    async fn decide(&self, identity: &Identity, permission: &Permission) -> Result<bool, Refusal> {
        for subresource in permission.subresources {
            let allowed = self.reviewer.allows(identity, permission.verb, subresource).await;
            if allowed.map_err(|error| undecided("permission", &error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn undecided(what: &str, error: &Error) -> Refusal {
    tracing::warn!(error = %error.chain(), "the API server could not be asked about a {what}; the request is refused");
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the API server could not be asked about this {what}"),
    )
}

/// Remembers answers until a time, at most [`REMEMBERED`] of them.
#[derive(Debug)]
struct Memory<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(key)
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, keep: Duration) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if entries.len() >= REMEMBERED {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() >= REMEMBERED {
            // Somebody sends many different tokens: forgetting costs questions, growing would cost memory.
            entries.clear();
        }
        entries.insert(key, (value, now + keep));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::HeaderValue;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Script {
        asked: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Reviewer for Script {
        async fn authenticate(&self, token: &str) -> Result<Option<Identity>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match token {
                "broken" => Err(Error::new(ErrorKind::Unavailable, "review token", "down")),
                "wrong" => Ok(None),
                user => Ok(Some(Identity {
                    user: user.to_owned(),
                    uid: String::new(),
                    groups: Vec::new(),
                    extra: Vec::new(),
                })),
            }
        }
        async fn allows(&self, identity: &Identity, verb: &str, subresource: &str) -> Result<bool> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match identity.user.as_str() {
                "undecided" => Err(Error::new(ErrorKind::Timeout, "review access", "slow")),
                "reader" => Ok(verb == "get" && subresource != "proxy"),
                _ => Ok(true),
            }
        }
    }

    const SHELL: Permission = Permission {
        verb: "create",
        subresources: &["proxy"],
    };
    const READ: Permission = Permission {
        verb: "get",
        subresources: &["pods", "proxy"],
    };

    async fn code(gate: &Gate, authorization: Option<&str>, permission: &Permission) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(
                header::AUTHORIZATION,
                HeaderValue::from_str(value).expect("a header"),
            );
        }
        match gate.admit(None, &headers, permission).await {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    fn gate(script: &Script) -> Gate {
        Gate::new(
            Box::new(script.clone()),
            NodeName::new("kip"),
            &EndpointConfig::default(),
        )
    }

    #[tokio::test]
    async fn whoever_is_not_known_and_allowed_is_refused_also_when_nobody_can_be_asked() {
        let gate = gate(&Script::default());
        for (authorization, permission, expected) in [
            (None, &READ, 401),
            (Some("Basic abc"), &READ, 401),
            (Some("Bearer wrong"), &READ, 401),
            (Some("Bearer broken"), &READ, 500),
            (Some("Bearer undecided"), &READ, 500),
            (Some("Bearer reader"), &SHELL, 403),
            (Some("Bearer reader"), &READ, 200),
            (Some("bearer admin"), &SHELL, 200),
        ] {
            assert_eq!(
                code(&gate, authorization, permission).await,
                expected,
                "{authorization:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_remembered_for_a_while_and_then_asked_again() {
        let script = Script::default();
        let gate = gate(&script);
        for _ in 0..3 {
            assert_eq!(code(&gate, Some("Bearer admin"), &SHELL).await, 200);
        }
        assert_eq!(script.asked.load(Ordering::SeqCst), 2);
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(code(&gate, Some("Bearer admin"), &SHELL).await, 200);
        assert_eq!(
            script.asked.load(Ordering::SeqCst),
            3,
            "the token, not yet the permission"
        );
    }
}

//! Decide who is asking and whether they may: bearer tokens, client certificates, one list of who may do everything.
//!
//! There is no RBAC engine. Whoever is on the access list (a user or a group) may do everything; whoever is not may ask
//! who they are and what is served, nothing else. RBAC objects are stored and never consulted.

mod ca;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use ca::{Authority, serving_config, user_of_certificate};
pub(crate) use token::{Bound, Claims, Signer};

use crate::object;
use crate::status::{ApiError, ApiResult};
use crate::store::{Key, Store};

/// Who a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// Names and values of further attributes (the pod a token is bound to).
    pub(crate) extra: Vec<(String, String)>,
}

impl User {
    /// A user with these groups, and the group of all who proved who they are.
    pub(crate) fn new(name: &str, groups: &[String]) -> Self {
        let mut groups = groups.to_vec();
        groups.push("system:authenticated".to_owned());
        Self {
            name: name.to_owned(),
            groups,
            ..Self::default()
        }
    }

    /// Whoever proves nothing.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// The `user` of a review's status.
    pub(crate) fn to_json(&self) -> Value {
        let mut user = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            user["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            let extra = self
                .extra
                .iter()
                .map(|(name, value)| (name.clone(), json!([value])))
                .collect();
            user["extra"] = Value::Object(extra);
        }
        user
    }
}

/// What a request wants to do, as authorization sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// Empty for a path that is no resource.
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
}

/// Known tokens, the signer of service-account tokens, and the access list.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) signer: Signer,
    /// Users by the SHA-256 of their token, so that a look-up tells nothing of the tokens by its timing.
    tokens: RwLock<HashMap<[u8; 32], User>>,
    access: RwLock<BTreeSet<String>>,
}

impl Auth {
    pub(crate) fn new(signer: Signer) -> Self {
        Self {
            signer,
            tokens: RwLock::default(),
            access: RwLock::new(BTreeSet::from(["system:masters".to_owned()])),
        }
    }

    pub(crate) fn add_token(&self, token: &str, user: User) {
        self.tokens
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(Sha256::digest(token).into(), user);
    }

    /// Lets a user, or all members of a group, do everything.
    pub(crate) fn allow(&self, subject: &str) {
        self.access
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(subject.to_owned());
    }

    /// The user a token belongs to, and the audiences it is good for; an error says why it is refused.
    pub(crate) fn user_of(
        &self,
        token: &str,
        audiences: &[String],
        store: &Store,
        now: jiff::Timestamp,
    ) -> Result<(User, Vec<String>), String> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(user) = self
            .tokens
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&digest)
        {
            return Ok((user.clone(), audiences.to_vec()));
        }
        let claims = self.signer.verify(token, now)?;
        let shared: Vec<String> = claims
            .audiences
            .iter()
            .filter(|audience| audiences.contains(audience))
            .cloned()
            .collect();
        if shared.is_empty() {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {audiences:?}",
                claims.audiences
            ));
        }
        check_bound(&claims, store)?;
        Ok((claims.user(), shared))
    }

    /// Whether the user may do it.
    pub(crate) fn allows(&self, user: &User, wanted: &Attributes<'_>) -> bool {
        let open = match wanted.resource {
            "" => matches!(wanted.path, "/healthz" | "/livez" | "/readyz" | "/version"),
            _ => false,
        };
        let authenticated = user.groups.iter().any(|group| group == "system:authenticated");
        let about_oneself = matches!(
            wanted.resource,
            "selfsubjectaccessreviews" | "selfsubjectreviews" | "selfsubjectrulesreviews"
        );
        let discovery = wanted.resource.is_empty()
            && wanted.verb == "get"
            && ["/api", "/apis", "/openapi"].iter().any(|root| {
                wanted
                    .path
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
        if open || (authenticated && (about_oneself || discovery)) {
            return true;
        }
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        access.contains(&user.name) || user.groups.iter().any(|group| access.contains(group))
    }

    /// Fails with 403 unless the user may do it.
    pub(crate) fn authorize(&self, user: &User, wanted: &Attributes<'_>) -> ApiResult<()> {
        if self.allows(user, wanted) {
            return Ok(());
        }
        if wanted.resource.is_empty() {
            let why = format!(
                "User \"{}\" cannot {} path \"{}\"",
                user.name, wanted.verb, wanted.path
            );
            return Err(ApiError::forbidden("", "", "", &why));
        }
        let resource = match wanted.subresource {
            "" => wanted.resource.to_owned(),
            sub => format!("{}/{sub}", wanted.resource),
        };
        let place = match wanted.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let why = format!(
            "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
            user.name, wanted.verb, wanted.group
        );
        Err(ApiError::forbidden(
            wanted.group,
            wanted.resource,
            wanted.name,
            &why,
        ))
    }
}

/// A token lives no longer than its service account and the object it is bound to.
fn check_bound(claims: &Claims, store: &Store) -> Result<(), String> {
    let account = store.get(
        "/serviceaccounts",
        &Key::new(&*claims.namespace, &*claims.account),
    );
    if account.is_none_or(|account| object::uid(&account) != claims.account_uid) {
        return Err("service account has been deleted or recreated".to_owned());
    }
    if let Some(bound) = &claims.bound {
        let (table, namespace) = match bound.kind.as_str() {
            "pod" => ("/pods", claims.namespace.as_str()),
            "secret" => ("/secrets", claims.namespace.as_str()),
            _ => ("/nodes", ""),
        };
        let object = store.get(table, &Key::new(namespace, &*bound.name));
        if object.is_none_or(|object| object::uid(&object) != bound.uid) {
            return Err(format!("the {} the token is bound to is gone", bound.kind));
        }
    }
    Ok(())
}

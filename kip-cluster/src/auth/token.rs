//! Sign and check service-account tokens: JSON web tokens with an ES256 signature, as TokenRequest issues them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

use super::User;
use crate::error::Error;
use crate::object;

/// The object a token dies with, besides its service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) account_uid: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) bound: Option<Bound>,
    /// Name and UID of the node of the pod the token is bound to.
    pub(crate) node: Option<(String, String)>,
    /// Seconds since 1970.
    pub(crate) issued: i64,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) id: String,
}

impl Claims {
    /// The user the token stands for.
    pub(crate) fn user(&self) -> User {
        let mut extra = vec![(
            "authentication.kubernetes.io/credential-id".to_owned(),
            format!("JTI={}", self.id),
        )];
        if let Some(Bound { kind, name, uid }) = &self.bound
            && kind == "pod"
        {
            extra.push(("authentication.kubernetes.io/pod-name".to_owned(), name.clone()));
            extra.push(("authentication.kubernetes.io/pod-uid".to_owned(), uid.clone()));
        }
        if let Some((name, uid)) = &self.node {
            extra.push(("authentication.kubernetes.io/node-name".to_owned(), name.clone()));
            extra.push(("authentication.kubernetes.io/node-uid".to_owned(), uid.clone()));
        }
        User {
            name: format!("system:serviceaccount:{}:{}", self.namespace, self.account),
            uid: self.account_uid.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", self.namespace),
                "system:authenticated".to_owned(),
            ],
            extra,
        }
    }
}

/// The key service-account tokens are signed with; made at start, known to nobody else.
pub(crate) struct Signer {
    key: Key,
    issuer: String,
}

enum Key {
    /// What anybody can verify with the published half.
    Pair(EcdsaKeyPair),
    /// What only this process can verify: the same claims give the same token to the byte.
    Shared(hmac::Key),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Signer {
    pub(crate) fn new(issuer: &str) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Certificate {
            what: "key that signs service-account tokens".to_owned(),
            source,
        };
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|error| failed(error.to_string().into()))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .map_err(|error| failed(error.to_string().into()))?;
        Ok(Self {
            key: Key::Pair(key),
            issuer: issuer.to_owned(),
        })
    }

    /// A signer whose tokens follow from their claims and this secret. It publishes no key.
    pub(crate) fn from_secret(issuer: &str, secret: &[u8]) -> Self {
        Self {
            key: Key::Shared(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            issuer: issuer.to_owned(),
        }
    }

    /// The audience of this API, which is also who issues the tokens.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public half, as `/openid/v1/jwks` publishes it.
    pub(crate) fn public_keys(&self) -> Value {
        let Key::Pair(key) = &self.key else {
            return json!({"keys": []});
        };
        // An uncompressed P-256 point: one byte of form, then x and y.
        let point = key.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at(32.min(point.len().saturating_sub(1)));
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": "kip-cluster", "crv": "P-256", "alg": "ES256",
                         "x": BASE64.encode(x), "y": BASE64.encode(y)}]})
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        let account = format!("system:serviceaccount:{}:{}", claims.namespace, claims.account);
        let mut kubernetes = json!({
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.account, "uid": claims.account_uid},
        });
        if let Some(Bound { kind, name, uid }) = &claims.bound {
            kubernetes[kind.as_str()] = json!({"name": name, "uid": uid});
        }
        if let Some((name, uid)) = &claims.node {
            kubernetes["node"] = json!({"name": name, "uid": uid});
        }
        let payload = json!({
            "iss": self.issuer, "sub": account, "aud": claims.audiences, "iat": claims.issued, "nbf": claims.issued,
            "exp": claims.expires, "jti": claims.id, "kubernetes.io": kubernetes,
        });
        let algorithm = match &self.key {
            Key::Pair(_) => "ES256",
            Key::Shared(_) => "HS256",
        };
        let header = json!({"alg": algorithm, "kid": "kip-cluster", "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(payload.to_string())
        );
        let signature = match &self.key {
            Key::Pair(key) => BASE64.encode(
                key.sign(&SystemRandom::new(), signed.as_bytes())
                    .map_err(|_| "the token could not be signed".to_owned())?,
            ),
            Key::Shared(key) => BASE64.encode(hmac::sign(key, signed.as_bytes())),
        };
        Ok(format!("{signed}.{signature}"))
    }

    /// The claims of a token that this signer signed and that is still good.
    pub(crate) fn verify(&self, token: &str, now: jiff::Timestamp) -> Result<Claims, String> {
        let invalid = || "invalid bearer token".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
        let signature = BASE64.decode(signature).map_err(|_| invalid())?;
        match &self.key {
            Key::Pair(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref())
                .verify(signed.as_bytes(), &signature),
            Key::Shared(key) => hmac::verify(key, signed.as_bytes(), &signature),
        }
        .map_err(|_| invalid())?;
        let (_, payload) = signed.split_once('.').ok_or_else(invalid)?;
        let payload = BASE64.decode(payload).map_err(|_| invalid())?;
        let payload: Value = serde_json::from_slice(&payload).map_err(|_| invalid())?;
        let claims = read(&payload).ok_or_else(invalid)?;
        if claims.expires <= now.as_second() {
            return Err("service account token has expired".to_owned());
        }
        Ok(claims)
    }
}

fn read(payload: &Value) -> Option<Claims> {
    let text = |path: &[&str]| object::str_at(payload, path).map(str::to_owned);
    let about = |kind: &str| {
        Some((
            text(&["kubernetes.io", kind, "name"])?,
            text(&["kubernetes.io", kind, "uid"])?,
        ))
    };
    let bound = ["pod", "secret"].into_iter().find_map(|kind| {
        let (name, uid) = about(kind)?;
        Some(Bound {
            kind: kind.to_owned(),
            name,
            uid,
        })
    });
    let node = about("node");
    let (bound, node) = match (bound, node) {
        (None, Some((name, uid))) => (
            Some(Bound {
                kind: "node".to_owned(),
                name,
                uid,
            }),
            None,
        ),
        (bound, node) => (bound, node),
    };
    Some(Claims {
        namespace: text(&["kubernetes.io", "namespace"])?,
        account: text(&["kubernetes.io", "serviceaccount", "name"])?,
        account_uid: text(&["kubernetes.io", "serviceaccount", "uid"])?,
        audiences: object::list_at(payload, &["aud"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        bound,
        node,
        issued: payload.get("iat")?.as_i64()?,
        expires: payload.get("exp")?.as_i64()?,
        id: text(&["jti"])?,
    })
}

impl Bound {
    /// Reads a TokenRequest's `boundObjectRef`; `None` when the kind cannot be bound to.
    pub(crate) fn kind_of(kind: &str) -> Option<&'static str> {
        match kind {
            "Pod" => Some("pod"),
            "Secret" => Some("secret"),
            "Node" => Some("node"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(expires: i64) -> Claims {
        Claims {
            namespace: "n".into(),
            account: "a".into(),
            account_uid: "u".into(),
            audiences: vec!["api".into()],
            bound: Some(Bound {
                kind: "pod".into(),
                name: "p".into(),
                uid: "pu".into(),
            }),
            node: Some(("node".into(), "nu".into())),
            issued: 1,
            expires,
            id: "i".into(),
        }
    }

    /// Broken, anybody can make a token, or an expired one opens the door.
    #[test]
    fn only_own_unexpired_tokens_are_good() {
        let now = jiff::Timestamp::from_second(1_000).unwrap();
        let pairs = [
            [
                Signer::new("https://a").unwrap(),
                Signer::new("https://a").unwrap(),
            ],
            [
                Signer::from_secret("https://a", b"1"),
                Signer::from_secret("https://a", b"2"),
            ],
        ];
        for [signer, stranger] in pairs {
            let claims_good = claims(i64::MAX / 2);
            let token = signer.sign(&claims_good).unwrap();
            assert_eq!(signer.verify(&token, now), Ok(claims_good));
            assert!(stranger.verify(&token, now).is_err());
            let (rest, signature) = token.rsplit_once('.').unwrap();
            assert!(signer.verify(&format!("{rest}x.{signature}"), now).is_err());
            assert!(signer.verify("nonsense", now).is_err());
            let old = signer.sign(&claims(5)).unwrap();
            assert_eq!(
                signer.verify(&old, now).unwrap_err(),
                "service account token has expired"
            );
        }
    }
}
